"""Hand-over: a connection that one worker has and another one serves.

Nobody waits behind a busy worker while a sibling is idle.  The descriptor goes as SCM_RIGHTS
(unix(7)), what was read of an unfinished request beside it, into the *inbox* of the sibling's slot:
a SOCK_SEQPACKET pair, both ends of which the master holds, too.  So nothing is lost when a receiver
dies: the master listens to the inbox of each slot in which nobody serves, and passes on what is in
there (prefork.master.processes.inboxes).  Each worker has an inbox of its own, and not all of them
one in common: a thread that blocks on a common one can't be got off it when its worker becomes
busy.

The rules:

- A connection is claimed (Parking.claim, or taken out of a deque) before it is sent: one dict
  operation, so that two threads never serve it.  It is taken out of the epoll before it is sent
  or closed: a closed descriptor that is still shared leaves events that can't be deleted.
- A worker says on the scoreboard what kind of connections it takes: of the same listeners, the
  same protocol, the same version of this message.  It takes none while it leaves, or is short of
  descriptors: recvmsg(2) drops what the table has no room for.  What was sent before that was seen
  stays in the inbox, and the master is asked to pass it on.
- Where the inbox is full (EAGAIN) the next sibling is asked, and at last the sender keeps it.
- What moves is fresh, or between two requests, or in the middle of one of which at most
  64 KiB have come (`Conversation.parcel`).  Its bytes are read anew by the receiver's parser: the
  state of a parser can't be sent.

The race that is left: between two calls a busy worker looks idle, and an idle one may become busy
before it has looked into its inbox.  Its watcher then sends the connection on, up to HOPS times,
and it is served late, but served.  Lost is what a worker that is killed had taken out of its inbox,
as is every connection that it held, and what is in an inbox when the master is killed.
"""

import array
import contextlib
import os
import resource
import socket
from binascii import crc32
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from prefork import logs
from prefork.scoreboard import Scoreboard

VERSION = 3
"""Of `HandoverMessage`; a worker takes none of another."""

HOPS = 3
"""How often a connection is sent on before whoever has it keeps it."""

UNREAD = 64 * 1024
"""Bytes of an unfinished request that may move with its connection."""

_HEADROOM = 32
"""Descriptors that are left to the application when a worker takes no more connections."""

_LIMIT = UNREAD + 16 * 1024


class HandoverMessage(msgspec.Struct, array_like=True):
    """What goes beside a descriptor."""

    listener: int
    """Inode of the listener's socket: the same in all processes, and in each generation."""
    peer: Any
    """As accept(2) gave it; None for a connection that was read from."""
    client: tuple[str, str]
    """Of a connection that was read from: its client's address and port, by whoever named it."""
    data: bytes
    """What was read of an unfinished request."""
    since: float
    """Monotonic seconds at which that began."""
    deadline: float
    """Monotonic seconds, 0 for none: of an idle connection."""
    answered: bool
    """A request on it was answered before."""
    continued: bool
    """100 (Continue) was sent for the unfinished request."""
    served: int = 0
    """Requests that were answered on it."""
    hops: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(HandoverMessage).decode


def kind_of(protocol: str, listeners: Iterable[socket.socket]) -> int:
    """What a worker takes, as a number above 0; equal for workers that can serve for each other.

    A CRC is enough to tell a few generations apart, and `hashlib` brings OpenSSL along.
    """
    inodes = sorted(inode_of(sock) for sock in listeners)
    text = repr((VERSION, protocol, inodes)).encode()
    return crc32(text) + 1


def inode_of(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def send(inbox: socket.socket, parcel: bytes, fd: int) -> bool:
    """Puts a connection into an inbox; False where that has no room now."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (fd,)))]
    try:
        inbox.sendmsg([parcel], rights, socket.MSG_DONTWAIT)
    except OSError:
        # EAGAIN; ETOOMANYREFS: too many descriptors of ours are under way; ENOBUFS, ...
        return False
    return True


def receive(inbox: socket.socket) -> tuple[bytes, int] | None:
    """(parcel, descriptor) of the next connection in an inbox, None where it is empty."""
    while True:
        try:
            data, ancillary, _, _ = inbox.recvmsg(
                _LIMIT, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return None
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(payload) == 4:
                return data, array.array("i", payload)[0]
        if not data:
            return None  # the end: every sender is gone
        # Against this stands the headroom.
        logs.event("error", "connection lost", reason="no descriptor left to receive it")


class Handover:
    """One worker's side."""

    def __init__(self, scoreboard: Scoreboard, slot: int, threads: int) -> None:
        self.inbox: socket.socket | None = None
        """Where connections come in; None until the master has told."""
        self.brim = 1 << 31
        """A descriptor of this number says that there are few left."""
        self.stuck = False
        """There was no descriptor left for what is in the inbox."""
        self._scoreboard = scoreboard
        self._slot = slot
        self._threads = threads
        self._kind = 0
        self._siblings: dict[int, socket.socket] = {}  # never changed, only replaced
        self._turn = 0
        self._takes = False

    # What the master tells (main thread, or its signal handler).

    def learn(self, kind: int, slots: Sequence[int], fds: Sequence[int], *, own: bool) -> None:
        """Inboxes of siblings, by slot, and with `own` first the one of this worker."""
        socks = [socket.socket(fileno=fd) for fd in fds]
        if own and socks:
            self._kind = kind
            self.inbox = socks.pop(0)
        # What recvmsg(2) had no room for is missing at the end.
        self._siblings = {**dict(zip(slots, socks, strict=False)), **self._siblings}

    def open(self) -> None:
        """From now on others may send (main thread)."""
        if self.inbox is not None:
            self._takes = True
            self.look_for_room()

    def shut(self) -> None:
        """From now on nobody sends, but for who has just looked (any thread, or a handler)."""
        self._takes = False
        if self._kind:
            self._scoreboard.stop_receiving(self._slot)

    def end(self) -> None:
        """The master is gone: nobody looks after inboxes, and all workers leave (any thread)."""
        self._siblings = {}
        self.shut()

    @property
    def crowded(self) -> bool:
        """This worker would take connections if it had descriptors to spare."""
        return self._takes and not self._scoreboard.handover_kind(self._slot)

    def crowd(self) -> None:
        """A descriptor at the brim was seen."""
        if self._takes:
            self._scoreboard.stop_receiving(self._slot)

    def look_for_room(self) -> None:
        """Takes connections if there are descriptors to spare, and else none."""
        assert self.inbox is not None
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.brim = limit - _HEADROOM if limit != resource.RLIM_INFINITY else 1 << 31
        try:
            # The kernel gives the lowest number that is free (open(2)).
            probe = os.dup(self.inbox.fileno())
        except OSError:
            probe = self.brim
        else:
            os.close(probe)
        if probe >= self.brim:
            self._scoreboard.stop_receiving(self._slot)
        elif self._takes:
            self._scoreboard.start_receiving(self._slot, self._kind, self._threads)
            if not self._takes:  # a handler came between
                self._scoreboard.stop_receiving(self._slot)

    # Sending.

    @property
    def wanted(self) -> bool:
        """Somebody would take all that this worker has; false at the end of the server."""
        kind, board = self._kind, self._scoreboard
        return bool(
            kind
            and not board.draining
            and any(
                board.handover_kind(slot) == kind for slot in self._siblings if slot != self._slot
            )
        )

    @property
    def alone(self) -> bool:
        """No sibling is known."""
        return not self._siblings

    @property
    def single(self) -> bool:
        """Nobody else accepts where this worker does; who is about to is made known before, by a
        signal."""
        return self.inbox is not None and self._scoreboard.only_worker

    @property
    def expected(self) -> bool:
        """Somebody will probably take what this worker has: its successor may be just about to."""
        return bool(self._siblings) and not self._scoreboard.draining

    @property
    def sibling_idle(self) -> bool:
        kind, board = self._kind, self._scoreboard
        return bool(kind) and any(
            board.is_idle(slot, kind) for slot in self._siblings if slot != self._slot
        )

    def waiting(self, listener: int) -> int:
        """How many idle siblings wait in accept4 on a listener."""
        kind = self._kind
        if not kind:
            return 0
        siblings = [slot for slot in self._siblings if slot != self._slot]
        return self._scoreboard.count_waiting(siblings, kind, listener)

    def work_done(self) -> tuple[tuple[int, float], dict[int, tuple[int, float]]]:
        """(requests, seconds in the application) so far, of this worker and of its siblings."""
        board, kind = self._scoreboard, self._kind
        slots = [slot for slot in self._siblings if board.handover_kind(slot) == kind]

        def of(slot: int) -> tuple[int, float]:
            counters = board.counters(slot, self._threads)
            return counters.requests, counters.seconds

        return of(self._slot), {slot: of(slot) for slot in slots}

    def _send_to(self, slot: int, parcel: HandoverMessage, fd: int) -> bool:
        """Sends a connection to one sibling; False where that does not take it."""
        inbox = self._siblings.get(slot)
        if inbox is None or self._scoreboard.handover_kind(slot) != self._kind:
            return False
        return send(inbox, _encode(parcel), fd)

    def send(
        self, parcel: HandoverMessage, fd: int, *, only_idle: bool, slot: int | None = None
    ) -> bool:
        """Sends a connection to a sibling; False where none takes it.

        With `only_idle` to one that has nothing to do, else to whoever takes it, an idle one
        before a busy one; with a `slot` to the sibling there and no other.  The descriptor stays
        open here.
        """
        if slot is not None:
            return self._send_to(slot, parcel, fd)
        kind, board = self._kind, self._scoreboard
        if not kind:
            return False
        siblings = self._siblings
        slots = [
            slot for slot in siblings if slot != self._slot and board.handover_kind(slot) == kind
        ]
        if not slots:
            return False
        self._turn = turn = (self._turn + 1) % len(slots)  # not always the same first
        slots = slots[turn:] + slots[:turn]
        idle = [slot for slot in slots if board.is_idle(slot, kind)]
        others = [] if only_idle else [slot for slot in slots if slot not in idle]
        if not idle and not others:
            return False
        try:
            data = _encode(parcel)
        except UnicodeEncodeError:
            return False
        return any(send(siblings[slot], data, fd) for slot in (*idle, *others))

    # Receiving.

    def receive(self) -> tuple[HandoverMessage, int] | None:
        """The next connection from the inbox; None where that is empty, or `stuck`."""
        assert self.inbox is not None
        while self._has_room_for_one() and (packet := receive(self.inbox)) is not None:
            data, fd = packet
            if fd >= self.brim:
                self.crowd()
            try:
                parcel = _decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError) as problem:
                # No worker of ours writes such a thing, but its application might.
                os.close(fd)
                logs.event("error", "connection lost", reason=f"unreadable: {problem}")
                continue
            if isinstance(parcel.peer, list):
                parcel.peer = tuple(parcel.peer)
            parcel.hops += 1
            return parcel, fd
        return None

    def _has_room_for_one(self) -> bool:
        # The application may have taken all descriptors since the last look. (It may still take
        # the last one between this look and recvmsg.)
        assert self.inbox is not None
        try:
            os.close(os.dup(self.inbox.fileno()))
        except OSError:
            self.stuck = True
            self.crowd()
        else:
            self.stuck = False
        return not self.stuck

    def in_child(self) -> None:
        """In a child that the application has forked."""
        for sock in (self.inbox, *self._siblings.values()):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.close()
