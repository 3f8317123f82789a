"""From packets to connections: client and server, relative numbers, and the meaning of each packet.

Everything is inferred from the packets. A capture may begin within a connection, and miss packets.
"""

from dataclasses import dataclass, field

from prefork.quantity import quantity
from prefork.wire.packet import Endpoint, Flags, Packet

_CYCLE = 1 << 32
_HALF = 1 << 31
_REMEMBERED = 4096
"""The number of connections that are remembered."""


@dataclass(slots=True)
class Side:
    """The state of one direction of a connection, as far as it was seen."""

    base: int | None = None
    """The sequence number that is shown as 0."""
    next: int = 0
    """The number after the last one that was sent."""
    acked: int = 0
    """The number after the last one that the other side has acknowledged."""
    synced: bool = False
    fin: int | None = None
    """The number of its FIN."""
    window: int | None = None
    """The last window that it announced."""
    gap: tuple[int, int] = (0, 0)
    """The last range of numbers that was skipped."""
    probed: bool = False
    """Whether its last packet was a keep-alive or window probe."""

    def relative(self, number: int, near: int) -> int:
        """The number relative to `base`, also beyond 4 GiB: the value that is closest to `near`."""
        if self.base is None:
            # The capture began within the connection; data begins at 1.
            self.base = (number - 1) % _CYCLE
        apart = (number - self.base - near + _HALF) % _CYCLE - _HALF
        return near + apart


@dataclass(slots=True, frozen=True)
class Step:
    """One packet of a connection, with its meaning."""

    connection: "CapturedConnection"
    packet: Packet
    from_client: bool
    since: int
    """Nanoseconds since the last packet of the connection; 0 for the first one."""
    seq: int
    ack: int | None
    sack: tuple[tuple[int, int], ...]
    meaning: str


@dataclass(slots=True, eq=False)
class CapturedConnection:
    number: int
    client: Endpoint
    server: Endpoint
    began: int
    """Nanoseconds since 1970."""
    interface: str = ""
    last: int | None = None
    """The time of its last packet."""
    open: bool = False
    """Whether the whole handshake was seen."""
    reset: bool = False
    sides: dict[bool, Side] = field(default_factory=lambda: {True: Side(), False: Side()})
    """True: the side of the client; False: that of the server."""

    @property
    def ended(self) -> bool:
        """Whether it has ended: both FINs are acknowledged, or it was reset."""
        return self.reset or all(
            side.fin is not None and side.acked > side.fin for side in self.sides.values()
        )

    def add(self, packet: Packet) -> Step:
        """Adds the next packet, which belongs to this connection."""
        from_client = packet.source == self.client
        mine, other = self.sides[from_client], self.sides[not from_client]
        if packet.flags & Flags.SYN and mine.base is None:
            mine.base = packet.seq
        seq = mine.relative(packet.seq, mine.next)
        ack = other.relative(packet.ack, other.acked) if packet.flags & Flags.ACK else None
        meaning = self._explain(packet, from_client, seq, ack)
        self._advance(packet, from_client, seq, ack)
        since = 0 if self.last is None else packet.at - self.last
        self.last = packet.at
        sack = tuple(
            (other.relative(start, other.acked), other.relative(end, other.acked))
            for start, end in packet.sack
        )
        return Step(self, packet, from_client, since, seq, ack, sack, meaning)

    def begins_anew(self, packet: Packet) -> bool:
        """Whether this SYN opens another connection between the same two endpoints."""
        if not packet.flags & Flags.SYN or packet.flags & Flags.ACK:
            return False
        mine = self.sides[packet.source == self.client]
        return packet.seq != mine.base or not mine.synced

    def _explain(self, packet: Packet, from_client: bool, seq: int, ack: int | None) -> str:
        flags = packet.flags
        if flags & Flags.RST:
            return self._explain_reset(from_client)
        if flags & Flags.SYN:
            return self._explain_syn(packet, from_client)
        if from_client and not self.open and self.sides[False].synced and flags & Flags.ACK:
            return "handshake 3 of 3: open" + (", and data" if packet.length else "")
        parts = []
        if packet.length:
            parts.append(self._explain_data(packet, from_client, seq))
        if flags & Flags.FIN:
            parts.append(self._explain_fin(from_client))
        return ", ".join(parts) or self._explain_ack(packet, from_client, seq, ack)

    def _explain_reset(self, from_client: bool) -> str:
        mine, other = self.sides[from_client], self.sides[not from_client]
        if not from_client and other.synced and not mine.synced:
            return "refused: nobody listens on this port"
        if mine.fin is not None:
            return "reset: this side has closed, and reads no more"
        return "reset: cut off, what was not delivered is lost"

    def _explain_syn(self, packet: Packet, from_client: bool) -> str:
        again = self.sides[from_client].synced
        if packet.flags & Flags.ACK:
            return "handshake 2 of 3 again: no third yet" if again else "handshake 2 of 3: agreed"
        return "handshake 1 of 3 again: no answer yet" if again else "handshake 1 of 3: asks"

    def _explain_data(self, packet: Packet, from_client: bool, seq: int) -> str:
        mine = self.sides[from_client]
        if seq == mine.next or not mine.next:
            return "data"
        if seq > mine.next:
            return f"data after a gap of {quantity(seq - mine.next, 'byte')}"
        if mine.gap[0] <= seq < mine.gap[1]:
            return "data: fills the gap"
        if packet.length == 1 and seq == mine.next - 1 and mine.acked == mine.next:
            return "probe: still there?"
        return "data again: not acknowledged in time"

    def _explain_fin(self, from_client: bool) -> str:
        mine, other = self.sides[from_client], self.sides[not from_client]
        who = "client" if from_client else "server"
        if mine.fin is not None:
            return "end again: not acknowledged in time"
        return f"end: the {who} has no more to send" + (" either" if other.fin is not None else "")

    def _explain_ack(self, packet: Packet, from_client: bool, seq: int, ack: int | None) -> str:
        mine, other = self.sides[from_client], self.sides[not from_client]
        if not packet.length and mine.next and seq == mine.next - 1 and mine.fin is None:
            return "probe: still there?"
        if packet.window == 0:
            return "full: send no more for now"
        if mine.window == 0:
            return "room again: go on"
        if ack is None:
            return "nothing that TCP knows"
        if other.fin is not None and ack > other.fin:
            both = mine.fin is not None and mine.acked > mine.fin
            return "end acknowledged" + (": closed" if both else "")
        if other.probed:
            return "still there"
        if packet.sack:
            return "acknowledged again: a gap"
        if ack > other.acked:
            return "acknowledged"
        return "acknowledged again" if packet.window == mine.window else "room has changed"

    def _advance(self, packet: Packet, from_client: bool, seq: int, ack: int | None) -> None:
        mine, other = self.sides[from_client], self.sides[not from_client]
        flags = packet.flags
        probe = mine.next and seq == mine.next - 1 and packet.length <= 1 and not flags & Flags.FIN
        mine.probed = bool(probe)
        mine.window = packet.window
        if mine.next < seq and mine.next:
            mine.gap = (mine.next, seq)
        end = seq + packet.length
        if flags & Flags.SYN:
            mine.synced = True
            end += 1
        elif from_client and self.sides[False].synced and flags & Flags.ACK:
            self.open = True
        if flags & Flags.FIN:
            mine.fin = end
            end += 1
        if flags & Flags.RST:
            self.reset = True
        elif end > mine.next:
            mine.next = end
        if ack is not None and ack > other.acked:
            other.acked = ack


class Conversations:
    """The connections that were seen, distinguished by their two endpoints and their SYN."""

    def __init__(self, port: int | None) -> None:
        """`port`: that of the server, if it is known."""
        self._port = port
        # In the order of their beginning; the oldest ones are forgotten.
        self._current: dict[frozenset[Endpoint], CapturedConnection] = {}
        self.count = 0

    def add(self, packet: Packet) -> Step | None:
        """The step of a packet in its connection; None for a duplicate on another interface."""
        pair = frozenset((packet.source, packet.target))
        connection = self._current.get(pair)
        if connection is None or connection.begins_anew(packet):
            self._current.pop(pair, None)
            connection = self._current[pair] = self._begin(packet)
            if len(self._current) > _REMEMBERED:
                del self._current[next(iter(self._current))]
        elif packet.interface != connection.interface:
            # With all interfaces, a packet to a container is captured on each one that it passes.
            return None
        return connection.add(packet)

    def _begin(self, packet: Packet) -> CapturedConnection:
        self.count += 1
        client, server = packet.source, packet.target
        if self._is_from_server(packet):
            client, server = server, client
        return CapturedConnection(self.count, client, server, packet.at, packet.interface)

    def _is_from_server(self, packet: Packet) -> bool:
        if packet.flags & Flags.SYN:
            return bool(packet.flags & Flags.ACK)
        ports = (packet.source.port, packet.target.port)
        if self._port in ports and ports[0] != ports[1]:
            return ports[0] == self._port
        # The kernel assigns high ports to clients.
        return ports[0] < ports[1]
