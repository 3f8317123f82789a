"""Handover: a worker passes a connection to a sibling.

No connection waits for a busy worker while a sibling is idle.  The descriptor travels as SCM_RIGHTS
(unix(7)), with what was read of an unfinished request beside it, into the *inbox* of the sibling's
slot: a SOCK_SEQPACKET pair of which the master holds both ends, too.  So nothing is lost when a
receiver dies: the master reads the inbox of each slot in which no worker serves, and passes its
connections on (prefork.master.processes.inboxes).  Each worker has an inbox of its own, and they do
not share a common one: a thread that blocks on a common inbox cannot be got off it when its worker
becomes busy.

The rules:

- A connection is claimed (`ConnectionPoller.claim`, or taken out of a deque) before it is sent: one
  dict operation, so that two threads never serve it.  It is taken out of the epoll before it is
  sent or closed: a closed descriptor that another process shares leaves events that cannot be
  deleted.
- A worker says on the scoreboard what kind of connections it receives: of the same listeners, the
  same protocol, the same version of the message.  It receives none while it stops, or is short of
  descriptors: recvmsg(2) drops descriptors for which the table has no room.  What was sent before a
  sender saw that stays in the inbox, and the master is asked to pass it on.
- If an inbox is full (EAGAIN), the next sibling is tried; if none has room, the sender keeps the
  connection.
- A worker that does not run (stopped, or a thread holds the interpreter in C code) looks idle.  So
  a connection is sent only to a sibling that is shown to run: it has taken all that was sent to it,
  or has read its inbox a moment ago.  If it does not answer within 20 ms, the master is asked to
  take back what lies in its inbox; the master leaves a *probe* there, a packet without a
  descriptor, so that the inbox is not empty before its worker runs again.
- A connection may move if it is fresh, between two requests, or in the middle of a request of which
  at most 64 KiB have come.  The receiver's reader reads these bytes anew: the state of a reader
  is not sent.

Still racy: between two calls a busy worker looks idle, and an idle one may become busy before it
reads its inbox.  Its watcher then sends the connection on, up to HOPS times: it is served late, but
served.  Lost is what a worker that is killed had taken out of its inbox, like every connection
that it held, and what is in an inbox when the master is killed.
"""

import array
import contextlib
import os
from binascii import crc32
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Annotated, Any

import msgspec

from prefork import linux, logs
from prefork.logs.rate_limit import RateLimit
from prefork.scoreboard import Scoreboard, SlotReader
from prefork.unpatched import socket
from prefork.worker.schedule.descriptor_limit import descriptor_limit

VERSION = 3
"""Of `HandoverMessage`; a worker receives no other version."""

HOPS = 3
"""How often a connection is handed over before its receiver keeps it."""

UNREAD = 64 * 1024
"""Bytes of an unfinished request that may move with its connection."""

ANSWER = 0.02
"""Seconds within which a worker that runs reads its inbox."""

_PROOF = 0.1
"""Seconds for which a look into its inbox shows that a worker runs, though more lies there."""

_PROBE = b"?"
"""A packet without a descriptor: a worker that reads it runs."""

_PACKET_MAX = UNREAD + 16 * 1024

_NO_LIMIT = 1 << 31

_BATCH = 64
"""Packets that are read at once and are no connections."""

_LOST = RateLimit(1.0)


_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1 << 40)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]

PeerAddress = Any
"""The peer's address as accept(2) gave it: the socket module has no type for it."""


class HandoverMessage(msgspec.Struct, array_like=True):
    """What is sent beside a descriptor."""

    listener: int
    """Inode of the listener's socket: the same in all processes, and in each generation."""
    peer: PeerAddress
    """None for a connection from which something was read."""
    client: tuple[str, str]
    """Address and port of the client, possibly as a proxy gave them; empty before a read."""
    data: bytes
    """What was read of an unfinished request."""
    since: _Seconds
    """Monotonic seconds at which that request began."""
    deadline: _Seconds
    """Monotonic seconds, 0 for none: of an idle connection."""
    answered: bool
    """A request on it was answered before."""
    continued: bool
    """100 (Continue) was sent for the unfinished request."""
    served: _Count = 0
    """Requests that were answered on it."""
    hops: _Count = 0
    """How often it was handed over."""

    def __post_init__(self) -> None:
        """Makes a peer what it was before it was encoded.

        Raises ValueError for what is none: the application of a sibling may have written it.
        """
        if isinstance(self.peer, list):
            host, *numbers = self.peer
            if (
                len(numbers) not in (1, 3)
                or not isinstance(host, str)
                or {*map(type, numbers)} != {int}
            ):
                raise ValueError("not an address of IP")
            self.peer = (host, *numbers)
        elif not isinstance(self.peer, str | bytes | tuple | None):
            raise ValueError("not an address")


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(HandoverMessage).decode


def kind_of(protocol: str, listeners: Iterable[socket.socket]) -> int:
    """The kind of connections that a worker receives, as a number above 0.

    It is equal for workers that can serve for each other.  A CRC is enough to tell a few
    generations apart, and `hashlib` would load OpenSSL.
    """
    inodes = sorted(inode_of(sock) for sock in listeners)
    text = repr((VERSION, protocol, inodes)).encode()
    return crc32(text) + 1


def inode_of(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def send(inbox: socket.socket, packet: bytes, fd: int) -> bool:
    """Puts a connection into an inbox; returns False if that has no room now."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (fd,)))]
    try:
        inbox.sendmsg([packet], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        # EAGAIN; ETOOMANYREFS: too many of our descriptors are in flight; ENOBUFS, ...
        return False
    return True


def send_probe(inbox: socket.socket) -> None:
    """Leaves a probe in an inbox.  A full inbox needs none."""
    with contextlib.suppress(OSError):
        inbox.send(_PROBE, socket.MSG_DONTWAIT)


def is_answered(inbox: socket.socket) -> bool:
    """Everything that was sent into an inbox was taken out (`inbox`: the end to send into)."""
    try:
        return not linux.not_acknowledged(inbox.fileno())
    except OSError:  # not this kernel: then nothing is known
        return True


def is_read(scoreboard: SlotReader, slot: int, inbox: socket.socket) -> bool:
    """The worker of a slot is shown to run: it reads its inbox."""
    return is_answered(inbox) or monotonic() - scoreboard.inbox_read_at(slot) < _PROOF


def receive(inbox: socket.socket) -> tuple[bytes, int] | None:
    """(packet, descriptor) of the next connection in an inbox, None if it is empty."""
    for _ in range(_BATCH):
        try:
            data, ancillary, _, _ = inbox.recvmsg(
                _PACKET_MAX, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return None
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS and len(payload) == 4:
                return data, array.array("i", payload)[0]
        if not data:
            return None  # the end: all senders have closed it
        if data == _PROBE:
            continue
        # The spare descriptors are there to prevent this.
        report_lost("no descriptor left to receive it")
    return None  # for now: one who sends packets without descriptors does not keep us here


def report_lost(reason: str) -> None:
    """Logs that a connection was lost; once a second, since the application of a worker may write
    to the inboxes of its neighbours."""
    if _LOST.due():
        logs.event("error", "connection lost", reason=reason)


class Handover:
    """One worker's side of the handover."""

    def __init__(self, scoreboard: Scoreboard, slot: int, threads: int) -> None:
        self.inbox: socket.socket | None = None
        """Where connections come in; None until the master has sent it."""
        self.fd_limit = _NO_LIMIT
        """A descriptor of this number or above says that few are left."""
        self.no_descriptor_left = False
        """There was no descriptor for what is in the inbox."""
        self._scoreboard = scoreboard
        self._slot = slot
        self._threads = threads
        self._kind = 0
        self._siblings: dict[int, socket.socket] = {}  # never changed, only replaced
        self._first = 0
        self._receiving = False
        self._unanswered: dict[int, float] = {}

    # Orders of the master (main thread, or its signal handler).

    def set_inboxes(
        self, kind: int, slots: Sequence[int], fds: Sequence[int], *, own: bool
    ) -> None:
        """Takes the inboxes of siblings, by slot, and with `own` first the one of this worker."""
        socks = [socket.socket(fileno=fd) for fd in fds]
        for sock in socks:
            sock.settimeout(None)  # of the application (socket.setdefaulttimeout), if it has one
        if own and socks:
            self._kind = kind
            self.inbox = socks.pop(0)
        # Descriptors for which recvmsg(2) had no room are missing at the end.
        self._siblings = {**dict(zip(slots, socks, strict=False)), **self._siblings}

    def start_receiving(self) -> None:
        """From now on siblings may send (main thread)."""
        if self.inbox is not None:
            self._receiving = True
            self.check_descriptors()

    def stop_receiving(self) -> None:
        """From now on no sibling begins to send (any thread, or a signal handler)."""
        self._receiving = False
        if self._kind:
            self._scoreboard.stop_receiving(self._slot)

    def master_gone(self) -> None:
        """The master is dead, so inboxes have no owner and all workers stop (any thread)."""
        self._siblings = {}
        self.stop_receiving()

    # Descriptors.

    @property
    def receiving_paused(self) -> bool:
        """This worker would receive connections if it had descriptors to spare."""
        return self._receiving and not self._scoreboard.handover_kind(self._slot)

    def pause_receiving(self) -> None:
        """Receives nothing for now: a descriptor at `fd_limit` was seen, or none is left."""
        if self._receiving:
            self._scoreboard.stop_receiving(self._slot)

    def check_descriptors(self) -> None:
        """Receives connections if there are descriptors to spare, and otherwise none."""
        assert self.inbox is not None
        limit = descriptor_limit()
        self.fd_limit = _NO_LIMIT if limit is None else limit
        try:
            # The kernel gives the lowest number that is free (open(2)).
            probe = os.dup(self.inbox.fileno())
        except OSError:
            probe = self.fd_limit
        else:
            os.close(probe)
        if probe >= self.fd_limit:
            self._scoreboard.stop_receiving(self._slot)
        elif self._receiving:
            self._scoreboard.start_receiving(self._slot, self._kind, self._threads)
            if not self._receiving:  # a signal handler came between
                self._scoreboard.stop_receiving(self._slot)

    # Siblings.

    @property
    def has_no_sibling(self) -> bool:
        """No sibling is known."""
        return not self._siblings

    @property
    def is_only_worker(self) -> bool:
        """No other worker accepts at the same listeners.

        One that is about to is announced before, by a signal.
        """
        return self.inbox is not None and self._scoreboard.only_worker

    @property
    def has_receiver(self) -> bool:
        """A sibling receives what this worker serves; false at the end of the server."""
        return not self._scoreboard.draining and bool(self._receivers())

    @property
    def expects_receiver(self) -> bool:
        """A sibling will probably receive what this worker has: its successor may still boot."""
        return bool(self._siblings) and not self._scoreboard.draining

    @property
    def has_idle_receiver(self) -> bool:
        """A sibling with a free thread receives what this worker serves."""
        kind, board = self._kind, self._scoreboard
        return bool(kind) and any(
            board.is_idle(slot, kind) for slot in self._siblings if slot != self._slot
        )

    def count_waiting(self, listener: int) -> int:
        """How many idle siblings wait in accept4 on a listener."""
        kind = self._kind
        if not kind:
            return 0
        siblings = [slot for slot in self._siblings if slot != self._slot]
        return self._scoreboard.count_waiting(siblings, kind, listener)

    def least_held(self) -> int | None:
        """The number of connections of the sibling that holds the fewest; None if none is known."""
        board = self._scoreboard
        return min((board.held(slot) for slot in self._receivers()), default=None)

    def work_done(self) -> tuple[tuple[int, float], dict[int, tuple[int, float]]]:
        """(requests, seconds in the application) so far, of this worker and of its siblings."""
        board, kind = self._scoreboard, self._kind
        slots = [slot for slot in self._siblings if board.handover_kind(slot) == kind]

        def of(slot: int) -> tuple[int, float]:
            counters = board.counters(slot, self._threads)
            return counters.requests, counters.seconds

        return of(self._slot), {slot: of(slot) for slot in slots}

    def _receivers(self) -> list[int]:
        """The slots of siblings that receive what this worker serves."""
        kind, board = self._kind, self._scoreboard
        if not kind:
            return []
        siblings = [slot for slot in self._siblings if slot != self._slot]
        return [slot for slot in siblings if board.handover_kind(slot) == kind]

    # Sending.

    def send(
        self, message: HandoverMessage, fd: int, *, only_idle: bool, slot: int | None = None
    ) -> bool:
        """Sends a connection to a sibling; returns False if none receives it.

        With `only_idle` to an idle sibling, otherwise to any, an idle one before a busy one; with a
        `slot` only to the sibling there.  The descriptor stays open here.
        """
        if slot is not None:
            return self._send_to(slot, message, fd)
        slots = self._receivers()
        if not slots:
            return False
        self._first = first = (self._first + 1) % len(slots)  # not always the same first
        slots = slots[first:] + slots[:first]
        kind, board = self._kind, self._scoreboard
        idle = [slot for slot in slots if board.is_idle(slot, kind)]
        busy = [] if only_idle else [slot for slot in slots if slot not in idle]
        if not idle and not busy:
            return False
        try:
            packet = _encode(message)
        except UnicodeEncodeError:
            return False
        return any(self._put(slot, packet, fd) for slot in (*idle, *busy))

    def _send_to(self, slot: int, message: HandoverMessage, fd: int) -> bool:
        """Sends a connection to one sibling; returns False if that does not receive it."""
        inbox, board = self._siblings.get(slot), self._scoreboard
        if inbox is None or board.handover_kind(slot) != self._kind:
            return False
        return self._put(slot, _encode(message), fd)

    def _put(self, slot: int, packet: bytes, fd: int) -> bool:
        inbox = self._siblings.get(slot)  # none if the master has just died
        if inbox is None or not is_read(self._scoreboard, slot, inbox):
            return False
        if not send(inbox, packet, fd):
            return False
        self._unanswered.setdefault(slot, monotonic())
        return True

    @property
    def awaits_answer(self) -> bool:
        """A sibling has not taken yet what this worker sent, as far as is known."""
        return bool(self._unanswered)

    def silent_siblings(self, now: float) -> list[int]:
        """The slots of siblings that have not read their inbox within `ANSWER` seconds after this
        worker sent something (watcher)."""
        silent = []
        for slot, since in list(self._unanswered.items()):
            inbox = self._siblings.get(slot)
            if inbox is None or is_answered(inbox):
                del self._unanswered[slot]
            elif (read := self._scoreboard.inbox_read_at(slot)) > since:
                self._unanswered[slot] = read
            elif now - since >= ANSWER:
                silent.append(slot)
        return silent

    def silence_reported(self, slot: int) -> None:
        """The master takes care of what lies in this sibling's inbox."""
        self._unanswered.pop(slot, None)

    # Receiving.

    def receive(self) -> tuple[HandoverMessage, int] | None:
        """The next connection from the inbox; None if that is empty, or `no_descriptor_left`."""
        assert self.inbox is not None
        self._scoreboard.inbox_read(self._slot, monotonic())
        for _ in range(_BATCH):
            if not self._has_descriptor() or (received := receive(self.inbox)) is None:
                return None
            packet, fd = received
            if fd >= self.fd_limit:
                self.pause_receiving()
            try:
                message = _decode(packet)
                if not linux.is_stream_socket(fd):
                    raise ValueError("the descriptor is no stream socket")
            except Exception as problem:
                # No worker of ours writes such a message, but its application might: bytes that
                # end in any exception of a decoder (RecursionError, too), or another file.
                linux.close_received(fd)
                report_lost(f"unreadable: {type(problem).__name__}")
                continue
            message.hops += 1
            return message, fd
        return None

    def _has_descriptor(self) -> bool:
        # The application may have taken all descriptors since the last look. (It may still take
        # the last one between this look and recvmsg.)
        assert self.inbox is not None
        try:
            os.close(os.dup(self.inbox.fileno()))
        except OSError:
            self.no_descriptor_left = True
            self.pause_receiving()
        else:
            self.no_descriptor_left = False
        return not self.no_descriptor_left

    def after_fork_in_child(self) -> None:
        """In a child that the application has forked: closes the inboxes."""
        for sock in (self.inbox, *self._siblings.values()):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.close()
