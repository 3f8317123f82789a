"""Frames of a client: valid, nearly valid, and neither.

The same generator of random numbers gives the same inputs.
"""

import zlib
from random import Random

from tests.support.websocket_frames import client_frame

_TEXTS = (b"", b"a", b"Hello", "é€𐍈".encode(), b"x" * 125, b"y" * 126, b"\xff", b"\xed\xa0\x80")
_SIZES = (0, 1, 3, 125, 126, 127, 1023, 1025, 65535, 65536)
_CODES = (1000, 1001, 1004, 1005, 1006, 1011, 1014, 1015, 2999, 3000, 4999, 5000, 0)


def frames(rng: Random, *, deflate: bool) -> bytes:
    """A few frames; most of them are as they should be."""
    out = []
    within = False
    coder = zlib.compressobj(wbits=-12)
    for _ in range(rng.randint(1, 6)):
        kind = rng.random()
        if kind < 0.25:
            opcode = rng.choice((9, 10))
            out.append(client_frame(opcode, rng.choice(_TEXTS)[:125], mask=rng.randbytes(4)))
        elif kind < 0.32:
            code = rng.choice(_CODES).to_bytes(2, "big")
            payload = rng.choice((b"", code, code + rng.choice(_TEXTS)[:100]))
            out.append(client_frame(8, payload))
        elif kind < 0.36:
            opcode = rng.randrange(16)
            out.append(
                client_frame(opcode, b"?", rsv=rng.choice((0, 0, 1, 2, 4)), fin=rng.random() < 0.7)
            )
        else:
            opcode = 0 if within else rng.choice((1, 2))
            payload = rng.choice(_TEXTS)
            if rng.random() < 0.2:
                payload = rng.choice((b"z", b"\xc3\xa9")) * rng.choice(_SIZES)
            if opcode == 1 and rng.random() < 0.3:
                payload = payload[: rng.randint(0, 3)]
            fin = rng.random() < 0.6
            rsv = 0
            if deflate and opcode and fin and rng.random() < 0.6:
                payload = (coder.compress(payload) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]
                rsv = 4
            within = not fin
            out.append(client_frame(opcode, payload, fin=fin, rsv=rsv, mask=rng.randbytes(4)))
    return b"".join(out)


def pick(rng: Random, *, deflate: bool = False) -> bytes:
    """An input: frames, often with a few bytes changed, or bytes alone."""
    data = frames(rng, deflate=deflate)
    chance = rng.random()
    if chance < 0.05:
        return rng.randbytes(rng.randint(0, 40))
    if chance < 0.3 and data:
        changed = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(changed)) if rng.random() < 0.5 else 0
            changed[at] ^= 1 << rng.randrange(8)
        return bytes(changed)
    return data
