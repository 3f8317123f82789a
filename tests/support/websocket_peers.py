"""What other WebSocket libraries read of a client's bytes: websockets and wsproto, without I/O."""

from codecs import getincrementaldecoder
from typing import NamedTuple

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from prefork.websocket.frame_reader import CloseFrame, PingFrame, PongFrame, Received


class Reading(NamedTuple):
    """What a reader has taken before the end or the first violation."""

    received: list[Received]
    violated: bool


def by_websockets(data: bytes, *, deflate: bool = False) -> Reading:
    protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=1 << 20)
    if deflate:
        protocol.extensions = [PerMessageDeflate(False, False, 15, 12)]
    protocol.receive_data(data)
    found: list[Received] = []
    parts: list[bytes] = []
    decoder = getincrementaldecoder("utf-8")()
    text = False
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        payload = bytes(event.data)
        if event.opcode is Opcode.PING:
            found.append(PingFrame(payload))
        elif event.opcode is Opcode.PONG:
            found.append(PongFrame(payload))
        elif event.opcode is Opcode.CLOSE:
            assert protocol.close_rcvd is not None
            found.append(CloseFrame(protocol.close_rcvd.code, protocol.close_rcvd.reason))
        else:
            if event.opcode is not Opcode.CONT:
                text = event.opcode is Opcode.TEXT
            parts.append(payload)
            try:  # it leaves this check to its user
                if text:
                    decoder.decode(payload, event.fin)
            except UnicodeDecodeError:
                return Reading(found, True)
            if event.fin:
                whole = b"".join(parts)
                parts.clear()
                found.append(whole.decode() if text else whole)
    problem = protocol.parser_exc
    return Reading(found, problem is not None and not isinstance(problem, EOFError))


def by_wsproto(data: bytes) -> Reading:
    connection = Connection(ConnectionType.SERVER)
    found: list[Received] = []
    text: list[str] = []
    binary: list[bytes] = []
    try:
        connection.receive_data(data)
        for event in connection.events():
            if isinstance(event, Ping):
                found.append(PingFrame(bytes(event.payload)))
            elif isinstance(event, Pong):
                found.append(PongFrame(bytes(event.payload)))
            elif isinstance(event, CloseConnection):
                if connection.state is ConnectionState.OPEN:  # it stands for a violation
                    return Reading(found, True)
                found.append(CloseFrame(int(event.code), event.reason or ""))
            elif isinstance(event, TextMessage):
                text.append(event.data)
                if event.message_finished:
                    found.append("".join(text))
                    text.clear()
            else:
                assert isinstance(event, BytesMessage)
                binary.append(bytes(event.data))
                if event.message_finished:
                    found.append(b"".join(binary))
                    binary.clear()
    except (RemoteProtocolError, LocalProtocolError):
        return Reading(found, True)
    return Reading(found, False)
