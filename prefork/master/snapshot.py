"""The snapshot that one master leaves to the next over exec(2): pure structs, to bytes and back.

Everything is numbers and text: the descriptors, which stay open under their numbers, and what the
process knew about them.  Times are seconds of the monotonic clock, which goes on over an exec.
"""

import msgspec

from prefork import __version__
from prefork.config import Config
from prefork.pool_bounds import PoolBounds
from prefork.unix_socket import Inode

VERSION = 6
"""The version of the snapshot.  It rises with every change that the other side would misread: in
these structs, and in the messages of prefork.channel, since workers of the old code report to the
new master.  A new key of the configuration is no such change: an unknown key is skipped, and a
missing one has its default."""

CLOSED = -1
"""In place of a descriptor that is closed."""


class SnapshotError(Exception):
    """A snapshot cannot be written or restored; the text is one line."""


class ListenerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A listener: the address asked for, and its socket, or CLOSED."""

    address: str
    fd: int
    inherited: bool
    inode: Inode | None
    nonblocking: bool = False


class GenerationSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A generation with living workers, or the one that serves; `listeners` are indices."""

    number: int
    config: Config
    origins: dict[str, str]
    file: str | None
    listeners: tuple[int, ...]
    metrics: int | None


class ChildSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's process: its channel, when it was forked, and the descriptors by which its stacks
    come (a memfd) and are requested (a pipe); both CLOSED if it has none."""

    pid: int
    slot: int
    generation: int
    fd: int
    forked_at: float = msgspec.field(name="born")
    stacks: int
    ask: int
    asgi: bool = False


class ZygoteSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A zygote in service: its channel, its deadline, and since when it is ready."""

    pid: int
    generation: int
    fd: int
    deadline: float | None
    ready_at: float | None


class InboxSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The inbox of a slot: both its ends, and the kind of the connections in it."""

    slot: int
    reader: int
    writer: int
    kind: int


class LogWriterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The process that writes the logs, 0 for none, and (number, target, descriptor) of the pipes
    from which it reads."""

    pid: int
    pipes: tuple[tuple[int, str, int], ...] = ()


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the pool sees it; see `prefork.master.pool.plan.Worker`."""

    pid: int
    slot: int
    generation: int
    round: int
    since: float
    deadline: float | None
    state: str
    leaving: bool
    killed: bool
    retire: bool
    """It has the order to leave."""
    reason: str = msgspec.field(name="why")
    """Of its kill, if it does not leave in time."""
    due_for_recycling: float | None = msgspec.field(name="worn")


class PoolSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The pool between two transactions: no canary, no pending spawn, not stopping."""

    current: int
    target: int
    bounds: PoolBounds | None
    withdrawn: bool
    failures: int
    round: int
    not_before: float
    workers: tuple[WorkerSnapshot, ...]


class ControlConnectionSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A client of the control socket, in the middle of its request or of its answer."""

    fd: int
    input: bytes
    output: bytes
    busy: bool
    closing: bool


class LedgerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The counts that are not on the scoreboard; see `prefork.master.pool.ledger`."""

    cells: tuple[int, ...]
    bytes: int
    seconds: float
    queued: int
    waited: float
    displaced: int = 0
    timed_out: int = 0
    loop_blocks: int = 0
    restarts: dict[str, int]
    reloads: dict[str, int]
    upgrades: dict[str, int]
    timeouts: int
    overflows_before: int


class ControlSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The control socket and its clients."""

    path: str
    fd: int
    inode: Inode | None
    connections: tuple[ControlConnectionSnapshot, ...]


class PidFileSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The pidfile in use; the lock on it stays the process's."""

    path: str
    fd: int


class WaitingClientsSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The clients that wait, by the descriptor of their connection."""

    upgrades: tuple[int, ...] = ()
    reloads: tuple[int, ...] = ()
    """Clients of reloads that the upgrade replaces: it loads everything anew."""
    again: bool = False
    """Another upgrade was requested since this one began."""
    next: tuple[int, ...] = ()


class MasterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A whole master."""

    version: int = VERSION
    prefork: str = __version__
    started_at: float = msgspec.field(name="born")
    number: int
    """The number of the newest generation so far."""
    serving: int
    generations: tuple[GenerationSnapshot, ...]
    listeners: tuple[ListenerSnapshot, ...]
    children: tuple[ChildSnapshot, ...]
    zygotes: tuple[ZygoteSnapshot, ...]
    inboxes: tuple[InboxSnapshot, ...] = ()
    log_writer: LogWriterSnapshot | None = None
    pool: PoolSnapshot
    ledger: LedgerSnapshot
    control: ControlSnapshot
    clients: WaitingClientsSnapshot = WaitingClientsSnapshot()
    scoreboard: int
    pidfile: PidFileSnapshot | None = None
    daemon: bool = False
    """The server was started as one."""
    ends_with_terminal: bool = False
    """It was started on a terminal, and SIGHUP was not ignored."""
    mask: tuple[int, ...] = ()
    """Signals that were blocked when the server was started."""

    def descriptors(self) -> set[int]:
        """All that have to stay open over the exec."""
        return {
            *(listener.fd for listener in self.listeners),
            *(fd for child in self.children for fd in (child.fd, child.stacks, child.ask)),
            *(zygote.fd for zygote in self.zygotes),
            *(fd for inbox in self.inboxes for fd in (inbox.reader, inbox.writer)),
            *(fd for _, _, fd in (self.log_writer.pipes if self.log_writer else ())),
            *(connection.fd for connection in self.control.connections),
            *(self.control.fd, self.scoreboard),
            *((self.pidfile.fd,) if self.pidfile is not None else ()),
        } - {CLOSED}


class _Header(msgspec.Struct):
    version: int
    prefork: str


# msgpack, since JSON has no infinity (`PoolSnapshot.not_before`) and no bytes.  No decoder is kept:
# to make one takes a millisecond at each start, and few servers are upgraded.

# A DecodeError of msgspec is a ValueError; for text that is not UTF-8, msgspec 0.21 lets the
# UnicodeDecodeError through, which is another.
_UNREADABLE = (ValueError, RecursionError)


def encode(state: MasterSnapshot) -> bytes:
    """The snapshot as bytes.  Raises SnapshotError for a path that is not UTF-8."""
    try:
        return msgspec.msgpack.encode(state)
    except UnicodeEncodeError as error:
        raise SnapshotError(f"{error.object!r} is not UTF-8 and cannot be handed over") from None


def decode(data: bytes) -> MasterSnapshot:
    """The snapshot in these bytes.  Raises SnapshotError for another version, or other bytes."""
    try:
        header = msgspec.msgpack.decode(data, type=_Header)
        if header.version != VERSION:
            raise SnapshotError(
                f"prefork {header.prefork} hands over its state in version {header.version}, and"
                f" prefork {__version__} reads version {VERSION}: restart the server instead"
            )
        return msgspec.msgpack.decode(data, type=MasterSnapshot)
    except _UNREADABLE as error:
        raise SnapshotError(f"the state that was handed over cannot be read: {error}") from None


# The verdicts of a preflight for the master that started it, a packet each.


class PreflightStarted(msgspec.Struct, tag="started", frozen=True):
    """It has read the snapshot and boots a canary; `patience`: seconds for that, 0: no limit."""

    prefork: str
    patience: float


class PreflightRefused(msgspec.Struct, tag="refused", frozen=True):
    """The upgrade can't be done; `why` is a line, or a traceback."""

    why: str


class PreflightPassed(msgspec.Struct, tag="passed", frozen=True):
    """The canary was ready.  `opened`: new listeners; their descriptors come with the message."""

    opened: tuple[ListenerSnapshot, ...] = ()


Verdict = PreflightStarted | PreflightRefused | PreflightPassed

VERDICT_LIMIT = 64 * 1024
"""Bytes of one verdict."""


def encode_verdict(verdict: Verdict) -> bytes:
    if isinstance(verdict, PreflightRefused):
        # Four bytes a character at most; the end of a traceback names the error.
        verdict = PreflightRefused(verdict.why[-VERDICT_LIMIT // 8 :])
    return msgspec.msgpack.encode(verdict)


def decode_verdict(data: bytes) -> Verdict:
    """Raises SnapshotError."""
    try:
        return msgspec.msgpack.decode(data, type=Verdict)
    except _UNREADABLE as error:
        raise SnapshotError(f"the preflight's verdict cannot be read: {error}") from None
