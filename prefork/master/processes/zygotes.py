"""The master's side of zygotes: at most one for each generation, and the workers asked of it.

A zygote imports the application once and forks workers on request (prefork.worker.boot.zygote); the
kernel makes them the master's children.  So a spawn is answered later than it is asked for: when
the worker has reported its process id, or when the last end of its channel is closed.  A worker may
die before it has reported anything, so its channel stands for its slot, not its process id.

A zygote lives for as long as its generation may need another worker.  One that dies is replaced at
once and no worker notices; one that dies young is replaced by the next spawn, at the pool's pace,
so that nothing spins.
"""

import contextlib
import os
import selectors
import signal
from collections.abc import Callable, Collection
from time import monotonic

from msgspec import Struct, field

from prefork import linux, logs
from prefork.channel import (
    BornReport,
    Channel,
    FailedReport,
    ForkOrder,
    InvalidReportError,
    ReadyReport,
    ReopenedReport,
)
from prefork.logs import LogPipeEnds
from prefork.master.periodic import Periodic
from prefork.master.pool.roster import PROBATION
from prefork.master.processes.children import Children
from prefork.master.processes.generation import Generation
from prefork.master.snapshot import ZygoteSnapshot
from prefork.stack_dump import MasterStacks
from prefork.worker.boot.fork_protection import fork
from prefork.worker.boot.zygote import ZygoteArgs, run_zygote

_BATCH = 64
"""Reports of one zygote that are read at once; it sends two in its life."""

_UNEXPECTED = "the worker sent another report before its process id"

NotSpawned = Callable[[Generation, list[int], str], None]


class PendingWorker(Struct, eq=False):
    """A worker that was asked for and has not reported its process id."""

    slot: int
    zygote: "Zygote"
    channel: Channel
    stacks: MasterStacks | None
    deadline: float | None
    reopened: int = 0

    @property
    def generation(self) -> Generation:
        return self.zygote.generation


class Zygote(Struct, eq=False):
    """One zygote's process, from its fork until it was reaped."""

    pid: int
    generation: Generation
    channel: Channel
    deadline: float | None
    """When it is killed unless it is ready."""
    ready_at: float | None = None
    waiting: list[int] = field(default_factory=list)
    """Slots that are to get a worker, one after the other."""
    pending: PendingWorker | None = None
    ending: bool = False
    """It is no longer wanted or is dead, so that its death is no news."""
    faulty: bool = False
    """It was killed for a report that could not be read."""
    reopened: int = 0
    """The number of the last ReopenOrder that it has carried out."""


class Zygotes(Periodic):
    """All zygotes alive, and the workers that they are about to fork."""

    def __init__(
        self, selector: selectors.BaseSelector, children: Children, not_spawned: NotSpawned
    ) -> None:
        """`not_spawned` takes spawns that failed: the generation, the slots and the reason.  There
        are no slots if a zygote could not be replaced and no spawn waited for it."""
        self._selector = selector
        self._children = children
        self._not_spawned = not_spawned
        self._by_pid: dict[int, Zygote] = {}
        self._in_service: dict[int, Zygote] = {}  # by the number of their generation
        self._pending: dict[int, PendingWorker] = {}  # by slot

    def __len__(self) -> int:
        return len(self._by_pid)

    def descriptors(self) -> list[int]:
        """All that are open here, for a forked child to close."""
        channels = [each.channel.fileno() for each in self.all()]
        stacks = [each.stacks.descriptors() for each in self._pending.values() if each.stacks]
        return [*channels, *(fd for pair in stacks for fd in pair)]

    def all(self) -> list[Zygote | PendingWorker]:
        """The zygotes and the workers that they have just forked."""
        return [*self._by_pid.values(), *self._pending.values()]

    # From one master to the next.

    def snapshot(self) -> tuple[ZygoteSnapshot, ...]:
        """Those in service, for the next master; it need not know one that ends."""
        return tuple(
            ZygoteSnapshot(
                pid=each.pid,
                generation=number,
                fd=each.channel.fileno(),
                deadline=each.deadline,
                ready_at=each.ready_at,
            )
            for number, each in self._in_service.items()
        )

    def restore(self, state: ZygoteSnapshot, generation: Generation) -> None:
        """A zygote of the master before; it and the workers that it forks run the old code."""
        os.set_inheritable(state.fd, False)
        channel = Channel.from_fd(state.fd)
        self._watch(Zygote(state.pid, generation, channel, state.deadline, state.ready_at))

    # What the master wants.

    def spawn(self, slot: int, generation: Generation) -> None:
        """Asks for a worker; the answer goes to `Children.add` or to `not_spawned`.

        Raises OSError if the zygote itself has to be forked and that fails.
        """
        zygote = self._in_service.get(generation.number) or self._start(generation)
        zygote.waiting.append(slot)
        self._ask_next(zygote)

    def keep_only(self, generations: Collection[int]) -> None:
        """Ends the zygotes of all other generations: they will be asked for no more workers."""
        for number, zygote in list(self._in_service.items()):
            if number not in generations:
                self._end(zygote, "it is no longer wanted")

    @property
    def due(self) -> float | None:
        """The first deadline of a boot."""
        pending: list[Zygote | PendingWorker] = [
            *self._in_service.values(),
            *self._pending.values(),
        ]
        return min((each.deadline for each in pending if each.deadline), default=None)

    def run(self, now: float) -> None:
        """Kills zygotes and workers that take longer than the boot timeout."""
        for pending in list(self._pending.values()):
            if pending.deadline and pending.deadline <= now:
                # Either may hang, the zygote or the worker; the worker will find its channel
                # closed.
                reason = _too_late(pending.zygote)
                self._fail(pending, reason)
                self._kill(pending.zygote, f"its worker was {reason}")
        for zygote in list(self._in_service.values()):
            if zygote.deadline and zygote.deadline <= now:
                reason = _too_late(zygote)
                self._kill(zygote, reason)
                self._end(zygote, reason)

    def overslept(self, seconds: float) -> None:
        """The zygotes and workers that boot stood still too."""
        for each in self.all():
            if each.deadline:
                each.deadline += seconds

    # What happened.

    def read_reports(self) -> None:
        """Reads what zygotes and pending workers have sent before now.

        A worker that has sent its process id may die before the master has read it: `Children`
        calls this before it reaps a process that it does not know.
        """
        for zygote in list(self._by_pid.values()):
            self._read(zygote)
        for pending in list(self._pending.values()):
            self._read_pending(pending)

    def died(self, pid: int, how: str, *, sigkill: bool) -> None:
        """A child was reaped that is no worker; it is a zygote if it is known here."""
        zygote = self._by_pid.pop(pid, None)
        if zygote is None:
            return
        self._close(zygote.channel)
        number = zygote.generation.number
        if zygote.ending:
            logs.event("info", "zygote exited", pid=pid, generation=number)
            return
        logs.event("error", "zygote died", pid=pid, generation=number, how=how)
        zygote.ending = True
        del self._in_service[number]
        self._replace(zygote, how, sigkill and not zygote.faulty)

    def _replace(self, zygote: Zygote, how: str, sigkill: bool) -> None:
        """As in the pool, SIGKILL proves nothing against an application that could be imported."""
        ready_at = zygote.ready_at
        if ready_at is None:
            reason = f"the zygote died before it was ready: {how}"
        elif sigkill or monotonic() - ready_at >= PROBATION:
            try:
                self._start(zygote.generation).waiting = zygote.waiting
                return
            except OSError as error:
                reason = _fork_failed(error)
        else:
            reason = f"the zygote died: {how}"
        self._not_spawned(zygote.generation, zygote.waiting, reason)

    # Zygotes.

    def _start(self, generation: Generation) -> Zygote:
        linux.become_subreaper()
        ours, theirs = Channel.pair()
        pipes = LogPipeEnds()
        try:
            pipes = self._children.log_pipes(generation.config)
            foreign = (*self._children.foreign(generation), ours.fileno())
            context = self._children.worker_context(generation, pipes)
            args = ZygoteArgs(context, theirs, foreign)
            pid = fork(lambda: run_zygote(args))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            pipes.close()
        return self._watch(Zygote(pid, generation, ours, _deadline(generation)))

    def _watch(self, zygote: Zygote) -> Zygote:
        self._by_pid[zygote.pid] = self._in_service[zygote.generation.number] = zygote
        self._selector.register(zygote.channel, selectors.EVENT_READ, lambda _: self._read(zygote))
        return zygote

    def _read(self, zygote: Zygote) -> None:
        number = zygote.generation.number
        try:
            for _ in range(_BATCH):
                report = zygote.channel.receive_report()
                if report is None:
                    return
                if isinstance(report, ReadyReport) and zygote.ready_at is None:
                    logs.event("info", "zygote ready", pid=zygote.pid, generation=number)
                    zygote.ready_at, zygote.deadline = monotonic(), None
                    self._ask_next(zygote)
                elif isinstance(report, ReopenedReport):
                    zygote.reopened = report.number
                elif isinstance(report, FailedReport):
                    self._end(zygote, report.reason)
            raise InvalidReportError("there is no end of its reports")
        except EOFError:
            # It is dying; if it is not, it is of no use any more. One that the application has
            # closed while it was imported is to say so in the log.
            self._unwatch(zygote.channel)
            if zygote.ready_at is not None:
                os.kill(zygote.pid, signal.SIGKILL)
        except InvalidReportError as problem:
            zygote.faulty = True
            self._unwatch(zygote.channel)
            self._kill(zygote, f"it sent a report that cannot be read: {problem}")

    def _end(self, zygote: Zygote, reason: str) -> None:
        """Ends a zygote that was in service; the spawns that wait for it fail."""
        if zygote.ending:
            return
        zygote.ending = True
        del self._in_service[zygote.generation.number]
        waiting, zygote.waiting = zygote.waiting, []
        # In the middle of an import it reads no order.  It has nothing to lose.
        os.kill(zygote.pid, signal.SIGKILL)
        self._not_spawned(zygote.generation, waiting, reason)

    def _kill(self, zygote: Zygote, reason: str) -> None:
        if zygote.pid in self._by_pid:
            number = zygote.generation.number
            logs.event("warning", "zygote killed", pid=zygote.pid, generation=number, reason=reason)
            os.kill(zygote.pid, signal.SIGKILL)

    # Workers.

    def _ask_next(self, zygote: Zygote) -> None:
        """One at a time: neither descriptors nor messages in flight grow with the pool."""
        if zygote.ready_at is None or zygote.pending or zygote.ending or not zygote.waiting:
            return
        slot = zygote.waiting.pop(0)
        pipes = LogPipeEnds()
        try:
            pipes = self._children.log_pipes(zygote.generation.config)
            ours, theirs = Channel.pair()
        except OSError as error:
            pipes.close()
            self._not_spawned(zygote.generation, [slot], _fork_failed(error))
            return
        self._children.clear_slot(slot, zygote.generation)
        stacks, its_stacks = MasterStacks.create() or (None, None)
        pending = PendingWorker(slot, zygote, ours, stacks, _deadline(zygote.generation))
        zygote.pending = self._pending[slot] = pending
        self._selector.register(ours, selectors.EVENT_READ, lambda _: self._read_pending(pending))
        # If it can't be sent, the last copy of their end is closed here, and ours shows it.
        its_fds = (its_stacks.memfd, its_stacks.request) if its_stacks else ()
        with contextlib.suppress(OSError):
            order = ForkOrder(slot, pipes.targets)
            zygote.channel.send(order, (theirs.fileno(), *its_fds, *pipes.fds))
        theirs.close()
        pipes.close()
        if its_stacks:
            its_stacks.close()

    def _read_pending(self, pending: PendingWorker) -> None:
        try:
            report = pending.channel.receive_report()
        except EOFError:
            report = FailedReport("the worker died before it had reported its process id")
        except InvalidReportError as problem:
            report = FailedReport(f"the worker sent a report that cannot be read: {problem}")
        if isinstance(report, BornReport):
            self._forked(pending, report.pid)
        elif report is not None:
            reason = report.reason if isinstance(report, FailedReport) else _UNEXPECTED
            self._fail(pending, reason)
        self._ask_next(pending.zygote)

    def _forked(self, pending: PendingWorker, pid: int) -> None:
        if not self._is_new_child(pid):
            self._fail(pending, f"the worker reported a process id that can't be its own: {pid}")
            return
        self._forget(pending)
        self._unwatch(pending.channel)
        generation = pending.zygote.generation
        self._children.add(pid, pending.slot, generation, pending.channel, pending.stacks)

    def _is_new_child(self, pid: int) -> bool:
        """Whether a reported process id may be trusted: code of the application has run in the
        process that sent it, and the master will send signals to it."""
        if pid <= 0 or pid in self._by_pid or self._children.find(pid):
            return False
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def _fail(self, pending: PendingWorker, reason: str) -> None:
        self._forget(pending)
        self._close(pending.channel)
        if pending.stacks:
            pending.stacks.close()
        self._not_spawned(pending.zygote.generation, [pending.slot], reason)

    def _forget(self, pending: PendingWorker) -> None:
        del self._pending[pending.slot]
        pending.zygote.pending = None

    def _unwatch(self, channel: Channel) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(channel)

    def _close(self, channel: Channel) -> None:
        self._unwatch(channel)
        channel.close()


def _deadline(generation: Generation) -> float | None:
    timeout = generation.config.workers.boot_timeout
    return monotonic() + timeout if timeout else None


def _too_late(zygote: Zygote) -> str:
    return f"not ready within {zygote.generation.config.workers.boot_timeout:g} s"


def _fork_failed(error: OSError) -> str:
    return f"fork failed: {error.strerror}"
