"""The worker processes: fork, give orders, take reports, reap."""

import contextlib

# The interpreter imports these at their first use, which may come before or after a fork: at a
# bind(2) with a name, and at the text of a worker on the scoreboard.
import encodings.idna
import encodings.latin_1  # noqa: F401
import os
import selectors
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import Protocol

from msgspec import Struct, field
from msgspec.structs import asdict

from prefork import logs
from prefork.capacity import CALL_RECORDS, records_of
from prefork.channel import (
    Channel,
    InboxStuckReport,
    InvalidReportError,
    Order,
    ReopenedReport,
    Report,
)
from prefork.config import Config
from prefork.logs import LogPipeEnds
from prefork.master.periodic import Periodic
from prefork.master.pool.plan import Worker, WorkerState
from prefork.master.processes.generation import Generation
from prefork.master.processes.stack_requests import StackRequests
from prefork.master.snapshot import CLOSED, ChildSnapshot
from prefork.scoreboard import CallRecord, Counters, Scoreboard, WorkerStats
from prefork.stack_dump import MasterStacks, WorkerStacks
from prefork.worker.boot.fork_protection import fork
from prefork.worker.boot.process import run_worker
from prefork.worker.boot.worker_args import WorkerArgs, WorkerContext
from prefork.worker.schedule.accept import WAKE


class Child(Struct, eq=False, weakref=True):
    """One worker's process, as the master holds it."""

    worker: Worker
    """The same process as the pool sees it."""
    generation: Generation
    channel: Channel
    forked_at: float
    """Monotonic seconds."""
    stacks: MasterStacks | None = None
    """Where its stacks are asked for and come, None if there was no descriptor to spare."""
    reported: set[type[Report]] = field(default_factory=set)
    """The types of its reports so far, of those that are sent once."""
    faulty: bool = False
    """It was killed for a report that could not be read."""
    reopened: int = 0
    """The number of the last ReopenOrder that it has carried out."""
    asgi: bool = False
    """It has found that its application is one of ASGI, if the configuration leaves that open."""

    @property
    def records(self) -> int:
        """Its thread records.  With the protocol "auto" that is known when it is ready."""
        config = self.generation.config
        protocol = "asgi" if self.asgi else config.server.protocol
        return records_of(protocol, config.workers.threads)

    @property
    def pid(self) -> int:
        return self.worker.pid

    @property
    def slot(self) -> int:
        return self.worker.slot

    @property
    def log_fields(self) -> dict[str, int]:
        """By which an event names it."""
        return {"slot": self.slot, "pid": self.pid, "generation": self.generation.number}


_BATCH = 64
"""Reports of one child that are read at once: one that never ends would keep the master from all
else.  A child that is dead cannot have sent more than a few."""

_PAUSE = 0.1
"""Seconds for which a child is not listened to after a whole batch: no worker has so much to say,
and a flood would cost the master as much CPU as the worker."""

_AT_ONCE = 256
"""Children that are reaped, or were stopped, and are looked at in one round: an application may
fork as fast as the master reaps, and stop and resume its own worker."""

_FAULTS = (
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS),
)
"""The signals of signal(7) that a process gets for a fault of its own, or sends itself."""

ReportHandler = Callable[[Child, Report], None]


class Death(Struct, frozen=True):
    """How a child ended; `how` is its wait status in words, `crashed`: a signal of its own fault
    ended it, such as SIGSEGV."""

    child: Child
    how: str
    sigkill: bool
    crashed: bool


class OtherChildren(Protocol):
    """The children that are no workers, or are not known as such yet."""

    def read_reports(self) -> None:
        """A child is dead that is not known as a worker: read what was reported before."""

    def died(self, pid: int, how: str, *, sigkill: bool) -> None:
        """A child was reaped that was no worker."""


class Children(Periodic):
    """All workers alive, by process id."""

    def __init__(
        self,
        name: str,
        selector: selectors.BaseSelector,
        scoreboard: Scoreboard,
        log: logs.Logs,
        *,
        forked: Callable[[int, int, Generation], Worker],
        report: ReportHandler,
        foreign: Callable[[Generation], Iterable[int]],
        log_pipes: Callable[[Config], LogPipeEnds] = lambda _: LogPipeEnds(),
    ) -> None:
        """name: the server's.
        forked: returns the pool's record of a worker, given process id, slot and generation.
        report: takes the reports of workers.
        foreign: descriptors that no process of a generation may keep.
        log_pipes: makes the pipes to which a process writes its log; raises OSError."""
        self._name = name
        self._selector = selector
        self._scoreboard = scoreboard
        self._log = log
        self._forked = forked
        self._report = report
        self._foreign = foreign
        self.log_pipes = log_pipes
        """What a process of a configuration writes its log to; raises OSError."""
        self._by_pid: dict[int, Child] = {}
        self._paused: dict[Child, float] = {}  # until when, in monotonic seconds
        self.more_dead = False
        """More children may be dead than were reaped at once."""
        self.stacks = StackRequests()
        """Requests for the stacks of the workers' threads."""

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._by_pid.values()))

    def find(self, pid: int) -> Child | None:
        return self._by_pid.get(pid)

    def calls(self, child: Child) -> list[CallRecord]:
        """What each thread of a worker is doing, from the scoreboard."""
        return self._scoreboard.calls(child.slot, child.records)

    def requests(self, child: Child) -> int:
        """The number of calls of the application that have ended in a worker."""
        return self._scoreboard.requests(child.slot, child.records)

    def counters(self, child: Child) -> Counters:
        """What a worker has done, alive or dead, until its slot is cleared for the next."""
        return self._scoreboard.counters(child.slot, child.records)

    def stats(self, child: Child) -> WorkerStats:
        """What a worker has written about itself as a whole."""
        return self._scoreboard.worker_stats(child.slot)

    def beat(self, child: Child) -> float:
        """Monotonic seconds at which a worker's event loop turned last; 0.0 if it has none."""
        return self._scoreboard.beat(child.slot)

    def pause(self, child: Child) -> tuple[float, float]:
        """When a worker's event loop did not turn for long: see `SlotReader.pause`."""
        return self._scoreboard.pause(child.slot)

    def clear_accept_flags(self, child: Child) -> None:
        """A worker does not run: siblings are not to yield to it before they accept."""
        self._scoreboard.clear_accept_flags(child.slot)

    def stopped(self) -> list[Child]:
        """The workers that a signal has stopped since the last call: SIGCHLD reports that, too."""
        found = []
        with contextlib.suppress(ChildProcessError):
            for _ in range(_AT_ONCE):
                stop = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG)
                if stop is None:
                    break
                if child := self._by_pid.get(stop.si_pid):
                    found.append(child)
        return found

    def worker_context(self, generation: Generation, log_pipes: LogPipeEnds) -> WorkerContext:
        """What a new process of this generation gets from the master."""
        return WorkerContext(
            generation=generation.number,
            name=self._name,
            master=os.getpid(),
            config=generation.config,
            listeners=tuple(generation.listeners),
            tls=generation.tls,
            scoreboard=self._scoreboard,
            logs=self._log,
            log_pipes=log_pipes,
        )

    def foreign(self, generation: Generation) -> tuple[int, ...]:
        """Descriptors that a process of this generation has to close."""
        return (*self._foreign(generation), *self.ends())

    def ends(self) -> list[int]:
        """The master's descriptors of its workers."""
        channels = [child.channel.fileno() for child in self._by_pid.values()]
        stacks = [child.stacks.descriptors() for child in self._by_pid.values() if child.stacks]
        return [*channels, *(fd for pair in stacks for fd in pair)]

    def clear_slot(self, slot: int, generation: Generation) -> None:
        """Makes a slot ready for its next worker."""
        self._scoreboard.clear(slot, max(CALL_RECORDS, generation.config.workers.threads))

    def spawn(self, slot: int, generation: Generation) -> None:
        """Forks a worker.  Raises OSError if the kernel has no room for another process."""
        self.clear_slot(slot, generation)
        ours, theirs = Channel.pair()
        stacks, its_stacks = MasterStacks.create() or (None, None)
        own = (ours.fileno(), *(stacks.descriptors() if stacks else ()))
        pipes = LogPipeEnds()
        try:
            pipes = self.log_pipes(generation.config)
            args = WorkerArgs(
                **asdict(self.worker_context(generation, pipes)),
                slot=slot,
                channel=theirs,
                stacks=its_stacks,
                foreign=(*self.foreign(generation), *own),
            )
            pid = fork(lambda: run_worker(args))
        except OSError:
            _close(ours, stacks)
            raise
        finally:
            _close(theirs, its_stacks)
            pipes.close()
        self.add(pid, slot, generation, ours, stacks)

    def add(
        self,
        pid: int,
        slot: int,
        generation: Generation,
        channel: Channel,
        stacks: MasterStacks | None,
    ) -> None:
        """Adds a worker that was forked, and takes its reports from this channel."""
        worker = self._forked(pid, slot, generation)
        self._watch(Child(worker, generation, channel, monotonic(), stacks))
        self._scoreboard.only_worker = len(self._by_pid) == 1

    def _watch(self, child: Child) -> None:
        self._by_pid[child.pid] = child
        self._listen(child)

    def _listen(self, child: Child) -> None:
        self._selector.register(child.channel, selectors.EVENT_READ, partial(self._readable, child))

    def snapshot(self) -> tuple[ChildSnapshot, ...]:
        """All workers, for the next master."""
        return tuple(
            ChildSnapshot(
                pid=child.pid,
                slot=child.slot,
                generation=child.generation.number,
                fd=child.channel.fileno(),
                forked_at=child.forked_at,
                stacks=child.stacks.memfd if child.stacks else CLOSED,
                ask=child.stacks.request if child.stacks else CLOSED,
                asgi=child.asgi,
            )
            for child in self
        )

    def restore(self, state: ChildSnapshot, generation: Generation, worker: Worker) -> Child:
        """A worker of the master before; what it reported meanwhile waits in its channel."""
        os.set_inheritable(state.fd, False)
        channel = Channel.from_fd(state.fd)
        stacks = None if state.stacks == CLOSED else MasterStacks(state.stacks, state.ask)
        for fd in stacks.descriptors() if stacks else ():
            os.set_inheritable(fd, False)
        child = Child(worker, generation, channel, state.forked_at, stacks, asgi=state.asgi)
        self._watch(child)
        return child

    def send(self, child: Child, order: Order, fds: tuple[int, ...] = ()) -> None:
        """Sends an order, and wakes the worker to read it.

        A worker just before accept4(2) misses the signal: orders that matter are repeated until
        they are confirmed.
        """
        child.channel.send(order, fds)
        self.signal(child, WAKE)

    def nudge_acceptors(self) -> None:
        """A worker accepts no more: others with an event loop look at their listeners.

        The kernel wakes one worker for a connection (EPOLLEXCLUSIVE, epoll_ctl(2)).  If that was
        the one that is gone now, nobody else would be woken before the next connection.
        """
        for child in self:
            if child.worker.state is WorkerState.READY and self.beat(child):
                self.signal(child, WAKE)

    def signal(self, child: Child, number: int) -> None:
        # Its process id can't be another's: it is ours until it is reaped.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)

    def _readable(self, child: Child, _: int) -> None:
        if not self._read(child, self._report):
            self._unwatch(child)
            self._paused[child] = monotonic() + _PAUSE

    @property
    def due(self) -> float | None:
        return min(self._paused.values(), default=None)

    def run(self, now: float) -> None:
        """Listens again to the children whose pause is over."""
        for child, until in list(self._paused.items()):
            if until <= now:
                del self._paused[child]
                self._listen(child)

    def _read(self, child: Child, report_to: ReportHandler) -> bool:
        """Whether all that has come was read."""
        for _ in range(_BATCH):
            try:
                report = child.channel.receive_report()
            except EOFError:
                self._unwatch(child)  # it is dying, or has closed its end: reaping shows it
                return True
            except InvalidReportError as problem:
                self._unwatch(child)
                self._kill_faulty(child, str(problem))
                return True
            if report is None:
                return True
            if isinstance(report, ReopenedReport):
                child.reopened = report.number
            elif self._is_news(child, report):
                report_to(child, report)
        return False

    def _is_news(self, child: Child, report: Report) -> bool:
        """Most reports are sent once; each that is repeated would be a line in the log."""
        if type(report) in child.reported:
            return False
        if not isinstance(report, InboxStuckReport):
            child.reported.add(type(report))
        return True

    def _unwatch(self, child: Child) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.channel)

    def _release(self, child: Child) -> None:
        """Closes all descriptors of a dead worker."""
        self._unwatch(child)
        self._paused.pop(child, None)
        self.stacks.worker_gone(child)
        _close(child.channel, child.stacks)
        child.stacks = None

    def _kill_faulty(self, child: Child, problem: str) -> None:
        """What a worker sends that is no report is the end of that worker, and of nothing else."""
        child.faulty = True
        logs.event(
            "error",
            "worker killed",
            **child.log_fields,
            reason=f"it sent a report that cannot be read: {problem}",
        )
        self.signal(child, signal.SIGKILL)

    def read_reports(self, child: Child, report: ReportHandler | None = None) -> None:
        """Reads what a child has sent before now; `report` takes it in place of the usual one."""
        self._read(child, report or self._report)

    def reap(self, *others: OtherChildren) -> list[Death]:
        """Reaps the dead children, up to `_AT_ONCE`: SIGCHLD comes once for several (waitpid(2)).

        The last reports of a child are read before it is reaped: until then no other process can
        get its process id.
        """
        deaths = []
        for _ in range(_AT_ONCE):
            if (pid := _dead()) is None:
                self.more_dead = False
                break
            if pid not in self._by_pid:
                for other in others:
                    other.read_reports()
            _, status = os.waitpid(pid, 0)
            child = self._by_pid.get(pid)
            if child is None:  # a zygote, a helper of ours, or an orphan that was given to us
                for other in others:
                    other.died(pid, _how(status), sigkill=_is_sigkill(status))
                continue
            self.read_reports(child)
            del self._by_pid[pid]
            self._release(child)
            # SIGKILL is no fault of the application (out of memory, by hand), unless it is ours.
            sigkill = _is_sigkill(status) and not child.faulty
            crashed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in _FAULTS
            deaths.append(Death(child, _how(status), sigkill, crashed))
        else:
            self.more_dead = True
        if deaths:
            self._scoreboard.only_worker = len(self._by_pid) == 1
        return deaths


def _close(channel: Channel, stacks: MasterStacks | WorkerStacks | None) -> None:
    channel.close()
    if stacks is not None:
        stacks.close()


def _dead() -> int | None:
    """The process id of a child that is dead and not reaped (waitid(2)), or None."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found else None


def _is_sigkill(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
