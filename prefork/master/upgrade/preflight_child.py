"""The child's side of a preflight: the new code tries what it would have to do as the master.

It reads the real snapshot and boots a canary on the real listeners: a worker, forked by a zygote if
the configuration wants one, that is ordered to retire as soon as it is ready.  A worker accepts
nothing before it has the order to serve, so no client notices.  Listeners that a new configuration
adds are opened here and passed to the master, so that no connection is lost meanwhile.
"""

import os
import random
import selectors
import signal
import socket
import traceback
from time import monotonic

import setproctitle

from prefork import __version__, logs, system_errors
from prefork.capacity import WORKER_SLOTS
from prefork.channel import FailedReport, ReadyReport, Report, RetireOrder
from prefork.config import ConfigError, Source
from prefork.listeners import Listener, ListenError
from prefork.master.pool.plan import Worker
from prefork.master.pool.pool import Pool
from prefork.master.pool.roster import EXIT_GRACE
from prefork.master.processes.children import Child, Children, Death
from prefork.master.processes.generation import Generation, prepare
from prefork.master.processes.log_writer import LogWriter
from prefork.master.processes.zygotes import Zygotes
from prefork.master.rollout.file_watcher import WatchError, require_watcher
from prefork.master.snapshot import (
    PreflightPassed,
    PreflightRefused,
    PreflightStarted,
    SnapshotError,
    encode_verdict,
)
from prefork.master.upgrade.exec import Adopted, ExecArgs, adopt, listener_state, receive
from prefork.scoreboard import Scoreboard, ScoreboardError

_STAGES = 3
"""With a zygote, three things may take a boot timeout each: the zygote, its fork, the worker."""


def run_preflight(source: Source, handover: ExecArgs, watch: bool) -> int:
    """Tries everything, reports the verdict to the master, and returns an exit status."""
    assert handover.report is not None
    os.set_inheritable(handover.report, False)
    with socket.socket(fileno=handover.report) as report:
        verdict: PreflightPassed | PreflightRefused
        opened: list[Listener] = []
        try:
            if watch:
                require_watcher()
            verdict = _try(source, adopt(receive(handover.fd)), report, opened)
        except (
            *(SnapshotError, ScoreboardError, ConfigError, ListenError, logs.LogError, WatchError),
        ) as problem:
            verdict = PreflightRefused(str(problem))
        except OSError as problem:
            verdict = PreflightRefused(system_errors.explain(problem))
        except BaseException:
            verdict = PreflightRefused(traceback.format_exc().rstrip())
        if isinstance(verdict, PreflightRefused):
            for listener in opened:
                listener.release()
            opened.clear()
        fds = [listener.fileno() for listener in opened]
        socket.send_fds(report, [encode_verdict(verdict)], fds)
    return 0 if isinstance(verdict, PreflightPassed) else 1


def _try(
    source: Source, adopted: Adopted, report: socket.socket, opened: list[Listener]
) -> PreflightPassed | PreflightRefused:
    """Boots a canary; the listeners that are new are added to `opened`."""
    state = adopted.state
    name = adopted.serving.config.server.name
    setproctitle.setproctitle(f"prefork: upgrade [{name}]")
    log = logs.configure(adopted.serving.config.log)
    logs.set_role("preflight")
    settings = {number: each.settings for number, each in adopted.generations.items()}
    pool = Pool(random.Random())
    pool.restore(state.pool, settings)
    pool.advance(monotonic())
    generation = prepare(source, state.number + 1, adopted.held)
    # The master has an inherited one as well.
    opened += [each for each in generation.held if each not in adopted.held and not each.inherited]
    log.prepare(generation.config.log)
    workers = generation.config.workers
    patience = workers.boot_timeout * (_STAGES if workers.preload else 1)
    report.send(encode_verdict(PreflightStarted(__version__, patience)))
    foreign = {*state.descriptors(), report.fileno()}
    foreign -= {listener.fileno() for listener in generation.listeners}
    taken = {child.slot for child in state.children}
    slot = next(slot for slot in range(WORKER_SLOTS) if slot not in taken)
    failure = _Canary(name, log, foreign).boot(slot, generation)
    return (
        PreflightRefused(failure)
        if failure is not None
        else PreflightPassed(tuple(map(listener_state, opened)))
    )


class _Canary:
    """The one worker, and its zygote if the configuration wants one."""

    def __init__(self, name: str, log: logs.Logs, foreign: set[int]) -> None:
        """`foreign`: descriptors that are the master's alone."""
        self._selector = selectors.DefaultSelector()
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(woken, selectors.EVENT_READ, lambda _: os.read(woken, 4096))
        own = {self._selector.fileno(), woken, wake}
        self._log_writer = LogWriter(
            *(name, log),
            lambda: {*foreign, *own, *self._children.ends(), *self._zygotes.descriptors()},
        )
        self._children = Children(
            name,
            self._selector,
            Scoreboard(),
            log,
            forked=self._forked,
            report=self._report,
            foreign=lambda _: {*foreign, *own, *self._log_writer.descriptors()},
            log_pipes=self._log_writer.pipes,
        )
        self._zygotes = Zygotes(self._selector, self._children, self._not_spawned)
        self._timeout = 0.0
        self._deadline: float | None = None
        self._ready = self._gone = False
        self._failure: str | None = None
        # All other signals stay blocked: only the master ends us.
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    def boot(self, slot: int, generation: Generation) -> str | None:
        """Boots the canary and retires it; returns why it does not get ready, or None."""
        workers = generation.config.workers
        self._timeout = workers.boot_timeout
        try:
            (self._zygotes if workers.preload else self._children).spawn(slot, generation)
        except OSError as error:
            return f"fork failed: {error.strerror}"
        while self._failure is None and not self._gone:
            self._wait()
            self._zygotes.run(monotonic())
            self._log_writer.run(monotonic())
            self._expire(monotonic())
            for death in self._children.reap(self._zygotes, self._log_writer):
                self._died(death)
        self._kill()
        self._zygotes.keep_only(())
        self._log_writer.close()
        return self._failure

    def _wait(self) -> None:
        times = [time for time in self._deadlines() if time is not None]
        patience = max(min(times) - monotonic(), 0.0) if times else None
        for key, mask in self._selector.select(patience):
            key.data(mask)

    def _deadlines(self) -> list[float | None]:
        return [self._deadline, self._zygotes.due, self._log_writer.due]

    def _forked(self, pid: int, slot: int, generation: Generation) -> Worker:
        now = monotonic()
        self._deadline = now + self._timeout if self._timeout else None
        return Worker(slot, pid, generation.number, generation.settings, 0, now, self._deadline)

    def _not_spawned(self, _: Generation, slots: list[int], reason: str) -> None:
        if slots:
            self._failure = self._failure or reason

    def _report(self, child: Child, report: Report) -> None:
        if isinstance(report, FailedReport):
            self._failure = report.reason
        elif isinstance(report, ReadyReport):
            self._ready = True
            self._children.send(child, RetireOrder())
            # It has nothing to serve; only the hooks of the application still run.
            self._deadline = monotonic() + EXIT_GRACE

    def _expire(self, now: float) -> None:
        if self._deadline is None or now < self._deadline:
            return
        self._deadline = None
        if self._ready:
            self._kill()
        else:
            self._failure = f"not ready within {self._timeout:g} s"

    def _kill(self) -> None:
        for child in self._children:
            self._children.signal(child, signal.SIGKILL)

    def _died(self, death: Death) -> None:
        self._gone = True
        if not self._ready and self._failure is None:
            self._failure = f"a worker died before it was ready: {death.how}"
