"""Bytes of a client to messages and control frames (RFC 6455 sections 5 and 8.1, RFC 7692).

`FrameReader` gives out one thing at a time and no further, so that its owner can stop in the middle
of what has come: the rest stays bytes.  What is wrong is found at the first byte that shows it.

The first byte of a frame decides what the frame may be, by the state of the message before it:

    BETWEEN -> BETWEEN  a whole message, or a control frame
            -> TEXT     the first fragment of a text
            -> BINARY   the first fragment of binary data
    TEXT, BINARY
            -> itself   a continuation, or a control frame
            -> BETWEEN  the last continuation
    each    -> ENDED    a close frame, or what is not allowed

`TABLE` has this as a row for each state and an entry for each of the 256 bytes.
"""

import zlib
from codecs import IncrementalDecoder, getincrementaldecoder
from enum import Enum
from io import StringIO
from typing import Final, NamedTuple

from prefork.quantity import quantity
from prefork.websocket.close_codes import (
    INVALID_DATA,
    NO_STATUS,
    PROTOCOL_ERROR,
    TOO_BIG,
    is_sendable,
)
from prefork.websocket.frame_writer import FIN, RSV1, Opcode
from prefork.websocket.masking import masked
from prefork.websocket.message_deflate import MessageInflater

_UNBOUNDED = 1 << 62

_utf8 = getincrementaldecoder("utf-8")


class MessageState(Enum):
    """What was read of a message before the next frame."""

    __hash__ = object.__hash__

    BETWEEN = "between two messages"
    TEXT = "in a text"
    BINARY = "in binary data"
    ENDED = "ended"


class FrameRule(NamedTuple):
    """What the first byte of a frame means in a state."""

    opcode: Opcode
    next: MessageState
    final: bool = True
    compressed: bool = False
    problem: str = ""
    """If it is not allowed."""


class PingFrame(NamedTuple):
    """Its payload is to be sent back."""

    payload: bytes


class PongFrame(NamedTuple):
    """The answer to a ping, or unasked for (section 5.5.3)."""

    payload: bytes


class CloseFrame(NamedTuple):
    """The peer has sent its last frame."""

    code: int
    """1005 if the frame had none."""
    reason: str


Received = str | bytes | PingFrame | PongFrame | CloseFrame
"""A text, binary data, or a control frame."""


class ProtocolViolation(Exception):
    """A peer has sent what it may not; the connection ends with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def _rule(state: MessageState, byte: int) -> FrameRule:
    """One entry of the table."""
    final, compressed = bool(byte & FIN), bool(byte & RSV1)
    between = state is MessageState.BETWEEN
    ended = MessageState.ENDED
    try:
        opcode = Opcode(byte & 0x0F)
    except ValueError:
        reserved = f"opcode {byte & 0x0F} is reserved"
        return FrameRule(Opcode.CLOSE, ended, problem=reserved)
    problem = ""
    if byte & 0x30:
        problem = "a reserved bit is set"
    elif opcode >= Opcode.CLOSE:
        if not final:
            problem = "a control frame is fragmented"
        elif compressed:
            problem = "a control frame is compressed"
        after = ended if opcode is Opcode.CLOSE else state
    elif opcode is Opcode.CONTINUATION:
        if between:
            problem = "a continuation without a message"
        elif compressed:
            problem = "a reserved bit is set"  # only in the first frame (RFC 7692 section 6.1)
        after = MessageState.BETWEEN if final else state
    else:
        if not between:
            problem = "a new message within a fragmented one"
        kind = MessageState.TEXT if opcode is Opcode.TEXT else MessageState.BINARY
        after = MessageState.BETWEEN if final else kind
    if problem:
        return FrameRule(opcode, ended, problem=problem)
    return FrameRule(opcode, after, final, compressed)


TABLE: Final = {
    state: tuple(_rule(state, byte) for byte in range(256))
    for state in (MessageState.BETWEEN, MessageState.TEXT, MessageState.BINARY)
}

_BETWEEN, _ENDED = MessageState.BETWEEN, MessageState.ENDED
_TEXT, _CLOSE, _PING = Opcode.TEXT, Opcode.CLOSE, Opcode.PING

_WHOLE: Final = {
    byte: (rule.opcode is _TEXT, rule.compressed)
    for byte, rule in enumerate(TABLE[_BETWEEN])
    if rule.next is _BETWEEN and rule.opcode < _CLOSE
}
"""By the first byte of a frame that is a whole message: whether it is a text, and compressed."""

_COPIED = 4096
"""Bytes up to which a copy of a payload is made sooner than a view of it."""


class FrameReader:
    """The frames of one client."""

    __slots__ = (
        "_at",
        "_compressed",
        "_data",
        "_decoder",
        "_inflater",
        "_mask",
        "_most",
        "_parts",
        "_rule",
        "_size",
        "_text",
        "missing",
        "state",
        "whole",
    )

    def __init__(self, max_message: int, inflater: MessageInflater | None = None) -> None:
        """`max_message`: bytes, after inflation; 0 for no bound.  `inflater`: if permessage-deflate
        was agreed upon."""
        self._most = max_message or _UNBOUNDED
        self._inflater = inflater
        self._data = b""
        self._at = 0
        self.whole = True
        """Nothing is kept: what has come ended between two messages."""
        self.state = _BETWEEN
        # Of the data frame whose payload is not complete:
        self._rule: FrameRule | None = None
        self.missing = 0
        """Bytes of its payload that have not come."""
        self._mask = b""
        # Of the message that is not complete:
        self._size = 0
        self._compressed = False
        self._parts: bytearray | None = None  # of a binary one
        self._text: StringIO | None = None  # of a text: fragments of one byte take a byte each
        self._decoder: IncrementalDecoder | None = None

    @property
    def held(self) -> int:
        """Bytes that are kept: of an unfinished message, and of what is not read yet."""
        return self._size + len(self._data) - self._at

    def next(self, data: bytes = b"") -> Received | None:
        """The next message or control frame; None if more bytes have to come.

        `data`: the bytes that have come since the last call.  Raises ProtocolViolation; from then
        on, as after a close frame, nothing more is read.
        """
        if self.state is _ENDED:
            return None
        if data:
            self._data = data if self.whole else self._data[self._at :] + data
            self._at = 0
            self.whole = False
        try:
            while True:
                if self._rule is None:
                    data, at = self._data, self._at
                    have = len(data) - at
                    if not have:
                        break
                    if self.state is _BETWEEN:
                        message = self._whole_message(data, at)
                        if message is not None:
                            return message
                    rule = TABLE[self.state][data[at]]
                    if rule.problem:
                        raise ProtocolViolation(PROTOCOL_ERROR, rule.problem)
                    if rule.compressed and self._inflater is None:
                        raise ProtocolViolation(PROTOCOL_ERROR, "a reserved bit is set")
                    if have < 2:
                        break
                    size = data[at + 1]
                    if size < 128:
                        raise ProtocolViolation(PROTOCOL_ERROR, "a frame is not masked")
                    size &= 127
                    head = 6
                    if size > 125:
                        if rule.opcode >= _CLOSE:
                            raise ProtocolViolation(PROTOCOL_ERROR, "a control frame is too long")
                        head = 8 if size == 126 else 14
                        if have < head - 4:
                            break
                        size = _extended(data[at + 2 : at + head - 4])
                    elif rule.opcode >= _CLOSE:
                        if have < head + size:
                            break
                        self._at = at + head + size
                        mask = data[at + 2 : at + 6]
                        return self._control(rule, masked(data[at + 6 : self._at], mask))
                    compressed = rule.compressed or self._compressed
                    if not compressed and self._size + size > self._most:
                        raise ProtocolViolation(TOO_BIG, self._too_big())
                    if have < head:
                        break
                    self._at = at + head
                    self._mask = data[at + head - 4 : self._at]
                    self._begin(rule, size)
                message = self._payload()
                if message is not None:
                    return message
                if self._rule is not None:
                    break
        except UnicodeDecodeError:
            self._end()
            raise ProtocolViolation(INVALID_DATA, "a text is not UTF-8") from None
        except zlib.error:
            self._end()
            raise ProtocolViolation(INVALID_DATA, "a message cannot be inflated") from None
        except ProtocolViolation:
            self._end()
            raise
        # At most the head of a frame stays, or a control frame.
        self._data = self._data[self._at :]
        self._at = 0
        self.whole = not self._data and self._rule is None and self.state is _BETWEEN
        return None

    def _whole_message(self, data: bytes, at: int) -> str | bytes | None:
        """The message that begins at `at`, if it is in one frame and has come whole: most are.

        None for all else, also if it is not allowed.
        """
        kind = _WHOLE.get(data[at])
        if kind is None or len(data) - at < 6:
            return None
        text, compressed = kind
        size, start = data[at + 1] - 128, at + 6
        if size == 126:
            size, start, shortest = data[at + 2] << 8 | data[at + 3], at + 8, 126
        elif size == 127:
            size, start, shortest = int.from_bytes(data[at + 2 : at + 10], "big"), at + 14, 65536
        else:
            shortest = 0
        end, inflater = start + size, self._inflater
        if end > len(data) or size < shortest or (size > self._most and not compressed):
            return None
        sent = data[start:end] if size < _COPIED else memoryview(data)[start:end]
        payload = masked(sent, data[start - 4 : start])
        if compressed:
            if inflater is None:
                return None
            payload = inflater.inflate(payload, self._most, last=True)
            if len(payload) > self._most:
                raise ProtocolViolation(TOO_BIG, self._too_big())
        self._at = end
        if end == len(data):
            self._data, self._at = b"", 0
            self.whole = True
        return payload.decode() if text else payload

    def _too_big(self) -> str:
        return f"a message has more than {quantity(self._most, 'byte')}"

    def _end(self) -> None:
        self.state = _ENDED
        self._data, self._at = b"", 0
        self.whole = False
        self._size = self.missing = 0
        self._rule = self._inflater = self._parts = self._text = self._decoder = None

    # Data frames.

    def _begin(self, rule: FrameRule, size: int) -> None:
        """The head of a data frame was read, and its payload is next."""
        self._rule = rule
        self.missing = size
        if self.state is not _BETWEEN:
            return
        self._compressed = rule.compressed
        if rule.opcode is _TEXT:
            self._text = StringIO()
            self._decoder = _utf8()
        else:
            self._parts = bytearray()

    def _payload(self) -> str | bytes | None:
        """Reads more of a payload; returns the message that ends with it."""
        rule, at = self._rule, self._at
        assert rule is not None
        piece = self._data[at : at + self.missing]
        size = len(piece)
        self._at = at + size
        left = self.missing = self.missing - size
        if size:
            mask = self._mask
            piece = masked(piece, mask)
            turn = size & 3
            if turn:
                self._mask = mask[turn:] + mask[:turn]
        last = rule.final and not left
        if self._compressed:
            inflater = self._inflater
            assert inflater is not None
            room = self._most - self._size
            piece = inflater.inflate(piece, room, last=last)
            if len(piece) > room:
                raise ProtocolViolation(TOO_BIG, self._too_big())
        self._size += len(piece)
        text, parts = self._text, self._parts
        if text is not None:
            assert self._decoder is not None
            text.write(self._decoder.decode(piece, last))
        else:
            assert parts is not None
            parts += piece
        if left:
            return None
        self._rule = None
        self.state = rule.next
        if not last:
            return None
        self._size = 0
        self._compressed = False
        self._text = self._parts = self._decoder = None
        if text is not None:
            return text.getvalue()
        assert parts is not None
        return bytes(parts)

    # Control frames.

    def _control(self, rule: FrameRule, payload: bytes) -> PingFrame | PongFrame | CloseFrame:
        if rule.opcode is not _CLOSE:
            return PingFrame(payload) if rule.opcode is _PING else PongFrame(payload)
        if len(payload) == 1:
            raise ProtocolViolation(PROTOCOL_ERROR, "a close frame has half a code")
        code = int.from_bytes(payload[:2], "big") if payload else NO_STATUS
        if payload and not is_sendable(code):
            raise ProtocolViolation(PROTOCOL_ERROR, f"close code {code} is not allowed")
        reason = payload[2:].decode()
        self._end()
        return CloseFrame(code, reason)


def _extended(field: bytes) -> int:
    """A length of 16 or 64 bits, which has to need that many (section 5.2)."""
    size = int.from_bytes(field, "big")
    if size >> 63:
        raise ProtocolViolation(PROTOCOL_ERROR, "the highest bit of a length is set")
    if size < (126 if len(field) == 2 else 65536):
        raise ProtocolViolation(PROTOCOL_ERROR, "a length is not in its shortest form")
    return size
