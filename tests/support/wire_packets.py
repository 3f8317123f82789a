"""Packets for the tests of `prefork wire`: a client and a server that take turns."""

from typing import Any

from prefork.wire.conversations import Conversations, Step
from prefork.wire.packet import Endpoint, Flags, Packet

CLIENT = Endpoint("127.0.0.1", 50000)
SERVER = Endpoint("127.0.0.1", 8000)
BASE = {True: 4_294_967_290, False: 77}
"""Initial sequence numbers; the client's soon passes 2**32."""

NAMES = {"S": Flags.SYN, "A": Flags.ACK, "F": Flags.FIN, "R": Flags.RST, "P": Flags.PSH}


def packet(
    from_client: bool,
    flags: str,
    seq: int,
    ack: int | None = None,
    length: int = 0,
    *,
    at: int = 0,
    window: int = 100,
    client: Endpoint = CLIENT,
    sack: tuple[tuple[int, int], ...] = (),
    **more: Any,
) -> Packet:
    """`flags` by their letters; numbers count from 0."""
    ends = (client, SERVER) if from_client else (SERVER, client)
    mine, other = BASE[from_client], BASE[not from_client]
    bits = Flags(0)
    for letter in flags:
        bits |= NAMES[letter]
    if ack is not None:
        bits |= Flags.ACK
    return Packet(
        at=at,
        source=ends[0],
        target=ends[1],
        flags=bits,
        seq=(mine + seq) % 2**32,
        ack=(other + (ack or 0)) % 2**32 if ack is not None else 0,
        window=window,
        length=length,
        sack=tuple(((other + a) % 2**32, (other + b) % 2**32) for a, b in sack),
        **more,
    )


def c(flags: str, seq: int, ack: int | None = None, length: int = 0, **more: Any) -> Packet:
    """From the client."""
    return packet(True, flags, seq, ack, length, **more)


def s(flags: str, seq: int, ack: int | None = None, length: int = 0, **more: Any) -> Packet:
    """From the server."""
    return packet(False, flags, seq, ack, length, **more)


HANDSHAKE = [c("S", 0), s("S", 0, 1), c("", 1, 1)]


def talk(*packets: Packet, port: int | None = 8000) -> list[Step]:
    conversations = Conversations(port)
    steps = [conversations.add(one) for one in packets]
    return [step for step in steps if step is not None]


def meanings(*packets: Packet) -> list[str]:
    return [step.meaning for step in talk(*packets)]
