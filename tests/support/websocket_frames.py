"""Frames of a client, and what our reader makes of them."""

from collections.abc import Iterable

from prefork.websocket.frame_reader import FrameReader, ProtocolViolation, Received
from prefork.websocket.masking import masked_in_python
from prefork.websocket.message_deflate import DeflateParameters, MessageInflater

MASK = b"\x12\x34\xab\xcd"

TAKEOVER = DeflateParameters(12, 15, True, True, "permessage-deflate")
FRESH = DeflateParameters(12, 15, False, False, "permessage-deflate")


def client_frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = MASK
) -> bytes:
    """A masked frame."""
    first = opcode | (0x80 if fin else 0) | rsv << 4
    size = len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65536:
        head = bytes([first, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0x80 | 127]) + size.to_bytes(8, "big")
    return head + mask + masked_in_python(payload, mask)


def fragments(opcode: int, *payloads: bytes, rsv: int = 0) -> bytes:
    """A message in several frames."""
    last = len(payloads) - 1
    return b"".join(
        client_frame(0 if place else opcode, each, fin=place == last, rsv=0 if place else rsv)
        for place, each in enumerate(payloads)
    )


def frames_read(
    pieces: Iterable[bytes], max_message: int = 0, deflate: DeflateParameters | None = None
) -> list[Received | int]:
    """All that is read of pieces, then the code of a violation if there is one."""
    inflater = None
    if deflate is not None:
        inflater = MessageInflater(deflate.client_bits, deflate.client_takeover)
    reader = FrameReader(max_message, inflater)
    found: list[Received | int] = []
    for piece in pieces:
        try:
            received = reader.next(piece)
            while received is not None:
                found.append(received)
                received = reader.next()
        except ProtocolViolation as violation:
            found.append(violation.code)
    return found
