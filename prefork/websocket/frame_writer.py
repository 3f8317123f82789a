"""Frames of a server: never masked (RFC 6455 section 5.1), a message in one frame."""

from enum import IntEnum
from struct import Struct

from prefork.websocket.close_codes import NO_STATUS, REASON_MAX


class Opcode(IntEnum):
    """Section 5.2."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


FIN = 0x80
RSV1 = 0x40
"""Set in the first frame of a compressed message (RFC 7692 section 6)."""

_TWO = Struct("!BB")
_FOUR = Struct("!BBH")
_TEN = Struct("!BBQ")


def frame(opcode: int, payload: bytes, reserved: int = 0) -> bytes:
    """A final frame with its payload.  `reserved`: RSV1 if that is compressed."""
    first = FIN | opcode | reserved
    size = len(payload)
    if size < 126:
        return _TWO.pack(first, size) + payload
    if size < 65536:
        return _FOUR.pack(first, 126, size) + payload
    return _TEN.pack(first, 127, size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame; without a code if that is 1005.

    A reason that is too long is cut between two characters.
    """
    if code == NO_STATUS:
        return frame(Opcode.CLOSE, b"")
    text = reason.encode("utf-8", "replace")
    if len(text) > REASON_MAX:
        text = text[:REASON_MAX].decode("utf-8", "ignore").encode()
    return frame(Opcode.CLOSE, code.to_bytes(2, "big") + text)
