"""The server's side of one WebSocket: messages in and out, the answers to pings, the closing.

    OPEN -> CLOSE_SENT  the server closes, and waits for the client's close frame
         -> CLOSED      the client's close frame, which is answered, or what is not allowed
    CLOSE_SENT -> CLOSED

`TABLE` says what each state does with what comes.  Nothing here touches a socket or a clock: the
owner feeds bytes, takes messages, and sends the bytes that it gets.
"""

from enum import Enum
from typing import Final, NamedTuple

from prefork.websocket.close_codes import NORMAL
from prefork.websocket.frame_reader import (
    CloseFrame,
    FrameReader,
    PingFrame,
    PongFrame,
    ProtocolViolation,
)
from prefork.websocket.frame_writer import RSV1, Opcode, close_frame, frame
from prefork.websocket.message_deflate import (
    DeflateParameters,
    MessageDeflater,
    MessageInflater,
)


class SessionState(Enum):
    """How far the closing handshake is (RFC 6455 section 7)."""

    __hash__ = object.__hash__

    OPEN = "open"
    CLOSE_SENT = "close sent"
    CLOSED = "closed"


class SessionRow(NamedTuple):
    """What a state does."""

    delivers: bool
    """Messages that come are the application's."""
    answers: bool
    """Pings are answered, and so is a close frame."""
    sends: bool
    """Messages may be sent (section 5.5.1: none after a close frame)."""
    reads: bool
    """More may come."""


TABLE: Final = {
    #                                    delivers  answers  sends  reads
    SessionState.OPEN: SessionRow(True, True, True, True),
    SessionState.CLOSE_SENT: SessionRow(False, False, False, True),
    SessionState.CLOSED: SessionRow(False, False, False, False),
}

_OPEN, _CLOSE_SENT, _CLOSED = SessionState.OPEN, SessionState.CLOSE_SENT, SessionState.CLOSED
_TEXT, _BINARY = int(Opcode.TEXT), int(Opcode.BINARY)


class WebSocketSession:
    """One WebSocket after its opening handshake."""

    __slots__ = ("_deflater", "close", "pong", "reader", "replies", "state", "violation")

    def __init__(self, max_message: int, deflate: DeflateParameters | None = None) -> None:
        """`max_message`: bytes of a message of the client's, 0 for no bound."""
        inflater = None
        self._deflater: MessageDeflater | None = None
        if deflate is not None:
            inflater = MessageInflater(deflate.client_bits, deflate.client_takeover)
            self._deflater = MessageDeflater(deflate.server_bits, deflate.server_takeover)
        self.reader = FrameReader(max_message, inflater)
        self.replies: list[bytes] = []
        """Frames that answer what has come: see `take_replies`."""
        self.state = _OPEN
        self.close: CloseFrame | None = None
        """The client's close frame, or the code that the client is told it has earned."""
        self.violation: ProtocolViolation | None = None
        """What the client has sent that is not allowed."""
        self.pong: bytes | None = None
        """The payload of the last pong."""

    @property
    def compresses(self) -> bool:
        """What is sent is compressed."""
        return self._deflater is not None

    @property
    def held(self) -> int:
        """Bytes that are kept of what the client has sent."""
        return self.reader.held

    # What comes.

    def next(self, data: bytes = b"") -> str | bytes | None:
        """The next message; None if more has to come, or the session is closed.

        `data`: what has come since the last call.  What is to be sent in answer is then in
        `take_replies`.
        """
        reader = self.reader
        while self.state is not _CLOSED:
            try:
                received = reader.next(data)
            except ProtocolViolation as violation:
                violation.__traceback__ = None  # it refers to frames, and so to what they hold
                self._violated(violation)
                return None
            data = b""
            kind = type(received)
            if kind is str or kind is bytes:
                if self.state is _OPEN:
                    return received  # type: ignore[return-value]
            elif received is None:
                return None
            elif kind is PingFrame:
                if TABLE[self.state].answers:
                    assert isinstance(received, PingFrame)
                    self.replies.append(frame(Opcode.PONG, received.payload))
            elif kind is PongFrame:
                assert isinstance(received, PongFrame)
                self.pong = received.payload
            else:
                assert isinstance(received, CloseFrame)
                self._closed_by_client(received)
        return None

    def _closed_by_client(self, received: CloseFrame) -> None:
        if TABLE[self.state].answers:
            # Section 5.5.1: typically the code is sent back.
            self.replies.append(close_frame(received.code))
        self.close = received
        self.state = _CLOSED

    def _violated(self, violation: ProtocolViolation) -> None:
        if TABLE[self.state].answers:
            self.replies.append(close_frame(violation.code, violation.reason))
        self.violation = violation
        self.close = CloseFrame(violation.code, violation.reason)
        self.state = _CLOSED

    def take_replies(self) -> bytes:
        """The frames that answer what has come, to be sent now."""
        if not self.replies:
            return b""
        replies = b"".join(self.replies)
        self.replies.clear()
        return replies

    # What is sent.

    def text(self, message: str) -> bytes:
        """The frame of a text.  Raises UnicodeEncodeError for a lone surrogate."""
        payload = message.encode()
        if self._deflater is None:
            return frame(_TEXT, payload)
        return frame(_TEXT, self._deflater.compress(payload), RSV1)

    def binary(self, message: bytes) -> bytes:
        """The frame of binary data."""
        if self._deflater is None:
            return frame(_BINARY, message)
        return frame(_BINARY, self._deflater.compress(message), RSV1)

    def ping(self, payload: bytes) -> bytes:
        """The frame of a ping, of at most 125 bytes."""
        return frame(Opcode.PING, payload)

    def begin_close(self, code: int = NORMAL, reason: str = "") -> bytes:
        """The server's close frame; empty if it was sent, or the client's was answered."""
        if not TABLE[self.state].sends:
            return b""
        self.state = _CLOSE_SENT
        return close_frame(code, reason)

    def end(self) -> None:
        """The connection is gone, or is given up."""
        self.state = _CLOSED
