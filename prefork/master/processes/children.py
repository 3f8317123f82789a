"""The worker processes: fork, give orders, take reports, reap."""

import contextlib
import os
import selectors
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import Protocol

from msgspec import Struct
from msgspec.structs import asdict

from prefork import logs
from prefork.channel import Channel, Order, Report, StacksReport
from prefork.master.pool.plan import Worker
from prefork.master.processes.generation import Generation
from prefork.master.processes.stack_requests import StackRequests
from prefork.master.snapshot import ChildSnapshot
from prefork.scoreboard import CallRecord, Counters, Scoreboard, WorkerStats
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
    stacks: StacksReport = StacksReport()
    """Where its stacks are asked for and come, once the worker has reported that."""

    @property
    def pid(self) -> int:
        return self.worker.pid

    @property
    def slot(self) -> int:
        return self.worker.slot


ReportHandler = Callable[[Child, Report], None]


class Death(Struct, frozen=True):
    """How a child ended; `how` is its wait status in words."""

    child: Child
    how: str
    sigkill: bool


class OtherChildren(Protocol):
    """The children that are no workers, or are not known as such yet."""

    def read_reports(self) -> None:
        """A child is dead that is not known as a worker: read what was reported before."""

    def died(self, pid: int, how: str, *, sigkill: bool) -> None:
        """A child was reaped that was no worker."""


class Children:
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
    ) -> None:
        """name: the server's.
        forked: returns the pool's record of a worker, given process id, slot and generation.
        report: takes the reports of workers.
        foreign: descriptors that no process of a generation may keep."""
        self._name = name
        self._selector = selector
        self._scoreboard = scoreboard
        self._log = log
        self._forked = forked
        self._report = report
        self._foreign = foreign
        self._by_pid: dict[int, Child] = {}
        self.stacks = StackRequests()
        """Requests for the stacks of the workers' threads."""

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._by_pid.values()))

    def find(self, pid: int) -> Child | None:
        return self._by_pid.get(pid)

    def calls(self, child: Child) -> list[CallRecord]:
        """What each thread of a worker is doing, from the scoreboard."""
        return self._scoreboard.calls(child.slot, child.generation.config.workers.threads)

    def requests(self, child: Child) -> int:
        """The number of calls of the application that have ended in a worker."""
        return self._scoreboard.requests(child.slot, child.generation.config.workers.threads)

    def counters(self, child: Child) -> Counters:
        """What a worker has done, alive or dead, until its slot is cleared for the next."""
        return self._scoreboard.counters(child.slot, child.generation.config.workers.threads)

    def stats(self, child: Child) -> WorkerStats:
        """What a worker has written about itself as a whole."""
        return self._scoreboard.worker_stats(child.slot)

    def clear_accept_flags(self, child: Child) -> None:
        """A worker does not run: siblings are not to yield to it before they accept."""
        self._scoreboard.clear_accept_flags(child.slot)

    def stopped(self) -> list[Child]:
        """The workers that a signal has stopped since the last call: SIGCHLD reports that, too."""
        found = []
        with contextlib.suppress(ChildProcessError):
            while stop := os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG):
                if child := self._by_pid.get(stop.si_pid):
                    found.append(child)
        return found

    def worker_context(self, generation: Generation) -> WorkerContext:
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
        )

    def foreign(self, generation: Generation) -> tuple[int, ...]:
        """Descriptors that a process of this generation has to close."""
        channels = (child.channel.fileno() for child in self._by_pid.values())
        stacks = (fd for child in self._by_pid.values() for fd in _open(child.stacks))
        return (*self._foreign(generation), *channels, *stacks)

    def clear_slot(self, slot: int, generation: Generation) -> None:
        """Makes a slot ready for its next worker."""
        self._scoreboard.clear(slot, generation.config.workers.threads)

    def spawn(self, slot: int, generation: Generation) -> None:
        """Forks a worker.  Raises OSError if the kernel has no room for another process."""
        self.clear_slot(slot, generation)
        ours, theirs = Channel.pair()
        try:
            args = WorkerArgs(
                **asdict(self.worker_context(generation)),
                slot=slot,
                channel=theirs,
                foreign=(*self.foreign(generation), ours.fileno()),
            )
            pid = fork(lambda: run_worker(args))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.add(pid, slot, generation, ours)

    def add(self, pid: int, slot: int, generation: Generation, channel: Channel) -> None:
        """Adds a worker that was forked, and takes its reports from this channel."""
        worker = self._forked(pid, slot, generation)
        self._watch(Child(worker, generation, channel, monotonic()))
        self._scoreboard.only_worker = len(self._by_pid) == 1

    def _watch(self, child: Child) -> None:
        self._by_pid[child.pid] = child
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
                stacks=child.stacks.memfd,
                ask=child.stacks.ask,
            )
            for child in self
        )

    def restore(self, state: ChildSnapshot, generation: Generation, worker: Worker) -> Child:
        """A worker of the master before; what it reported meanwhile waits in its channel."""
        os.set_inheritable(state.fd, False)
        channel = Channel.from_fd(state.fd)
        stacks = StacksReport(state.stacks, state.ask)
        child = Child(worker, generation, channel, state.forked_at, stacks)
        for fd in _open(stacks):
            os.set_inheritable(fd, False)
        self._watch(child)
        return child

    def send(self, child: Child, order: Order, fds: tuple[int, ...] = ()) -> None:
        """Sends an order, and wakes the worker to read it.

        A worker just before accept4(2) misses the signal: orders that matter are repeated until
        they are confirmed.
        """
        child.channel.send(order, fds)
        self.signal(child, WAKE)

    def signal(self, child: Child, number: int) -> None:
        # Its process id can't be another's: it is ours until it is reaped.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)

    def _readable(self, child: Child, _: int) -> None:
        self._read(child, self._report)

    def _read(self, child: Child, report_to: ReportHandler) -> None:
        try:
            while (report := child.channel.receive_report()) is not None:
                if isinstance(report, StacksReport):
                    self._keep_stacks(child, report)
                else:
                    report_to(child, report)
        except EOFError:
            # It is dying, or has closed its end; reaping shows which.
            with contextlib.suppress(KeyError):
                self._selector.unregister(child.channel)

    def _keep_stacks(self, child: Child, stacks: StacksReport) -> None:
        for fd in _open(child.stacks):  # the application can use the channel, too
            os.close(fd)
        child.stacks = stacks

    def read_reports(self, child: Child, report: ReportHandler | None = None) -> None:
        """Reads what a child has sent before now; `report` takes it in place of the usual one."""
        self._read(child, report or self._report)

    def reap(self, others: OtherChildren) -> list[Death]:
        """Reaps all dead children: SIGCHLD comes once for several (waitpid(2)).

        The last reports of a child are read before it is reaped: until then no other process can
        get its process id.
        """
        deaths = []
        while (pid := _dead()) is not None:
            if pid not in self._by_pid:
                others.read_reports()
            _, status = os.waitpid(pid, 0)
            child = self._by_pid.get(pid)
            if child is None:  # a zygote, a helper of ours, or an orphan that was given to us
                others.died(pid, _how(status), sigkill=_is_sigkill(status))
                continue
            self.read_reports(child)
            del self._by_pid[pid]
            with contextlib.suppress(KeyError):
                self._selector.unregister(child.channel)
            child.channel.close()
            self.stacks.worker_gone(child)
            self._keep_stacks(child, StacksReport())
            deaths.append(Death(child, _how(status), _is_sigkill(status)))
        if deaths:
            self._scoreboard.only_worker = len(self._by_pid) == 1
        return deaths


def _open(stacks: StacksReport) -> tuple[int, ...]:
    return (stacks.memfd, stacks.ask) if stacks.memfd >= 0 else ()


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
