"""The master: one thread and one wait; all that there is to do is done between two waits.

A signal, a worker's report, a command on the control socket and the next deadline all end the same
wait.  Then each part of the master does what is due (prefork.master.periodic).
"""

import gc
import selectors
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from time import monotonic

import setproctitle

from prefork import __version__, logs
from prefork.master.control_commands import ControlCommands
from prefork.master.control_server import ControlServer
from prefork.master.daemon import Starter
from prefork.master.observe.autoscaler import Autoscaler
from prefork.master.observe.blocked_loops import BlockedLoops
from prefork.master.observe.listen_queues import QueueWatch
from prefork.master.observe.listener_watch import ListenerWatch
from prefork.master.observe.liveness import Liveness
from prefork.master.observe.metrics import page
from prefork.master.observe.metrics_server import MetricsServer
from prefork.master.observe.notify import Notify
from prefork.master.observe.recycler import Recycler
from prefork.master.observe.slow_log import SlowLog
from prefork.master.observe.timeouts import Timeouts
from prefork.master.operations import Operations
from prefork.master.periodic import Periodic
from prefork.master.pool.ledger import Ledger
from prefork.master.processes.children import Child
from prefork.master.processes.generation import Generation
from prefork.master.processes.log_writer import LogWriter
from prefork.master.reaper import Reaper
from prefork.master.rollout.reload import Reloads
from prefork.master.signals import SignalPipe
from prefork.master.supervisor import Supervisor
from prefork.master.upgrade.exec import Adopted, MasterParts
from prefork.scoreboard import Scoreboard

FIRST_BOOT_FAILED = 3
"""Exit status of a server whose first generation could not boot."""

_OVERSLEPT = 1.0
"""Seconds beyond the planned wait that show that this process, or the machine, stood still."""


class Master:
    """Runs one server until it is stopped.

    Raises ControlError if the control socket can't be had.
    """

    def __init__(
        self,
        reloads: Reloads,
        ledger: Ledger,
        log: logs.Logs,
        control_path: Path,
        *,
        watch: bool = False,
        starter: Starter | None = None,
        adopted: Adopted | None = None,
    ) -> None:
        """`watch`: reload whenever a file of the application or the configuration changes.
        `starter`: the shell that waits for the start of a daemon.
        `adopted`: from a master that this one replaces, in the same process."""
        self._reloads = reloads
        self._ledger = ledger
        self._log = log
        self._adopted = adopted
        self._status = 0
        self._selector = selectors.EpollSelector()
        scoreboard = adopted.scoreboard if adopted else Scoreboard()
        self._control = ControlServer(
            self._selector, control_path, adopted=adopted.state.control if adopted else None
        )
        self._log_writer = LogWriter(reloads.serving.config.server.name, log, self._all_descriptors)
        self._supervisor = supervisor = Supervisor(
            *(self._selector, scoreboard, log, reloads, self, self._foreign_descriptors),
            self._log_writer,
        )
        pool, children, zygotes = supervisor.pool, supervisor.children, supervisor.zygotes
        self._signals = SignalPipe(self._selector, adopted.state if adopted else None)
        parts = MasterParts(
            started_at=adopted.state.started_at if adopted else monotonic(),
            reloads=reloads,
            pool=pool,
            children=children,
            zygotes=zygotes,
            inboxes=supervisor.inboxes,
            log_writer=self._log_writer,
            control=self._control,
            scoreboard=scoreboard,
            ledger=ledger,
            daemon=adopted.state.daemon if adopted else starter is not None,
            ends_with_terminal=self._signals.ends_with_terminal,
        )
        self._operations = Operations(self._selector, parts, log, self._signals.take, watch=watch)
        self._control.serve(ControlCommands(self._operations, parts).handle)
        self._reaper = Reaper(pool, children, zygotes, self._log_writer, supervisor.inboxes, ledger)
        self._timeouts = Timeouts(pool, children, ledger)
        self._liveness = Liveness(
            *(pool, children, supervisor.inboxes, ledger),
            lambda: reloads.serving.listeners,
        )
        self._slow_log = SlowLog(children)
        self._blocked_loops = BlockedLoops(children, ledger)
        self._metrics = MetricsServer(self._selector, partial(page, parts))
        self._queues = QueueWatch(
            lambda: reloads.serving.listeners,
            lambda: reloads.serving.config.server.backlog_warning,
        )
        self._listener_watch = ListenerWatch(lambda: reloads.serving, lambda: pool.stopping)
        self._recycler = Recycler(pool, children, ledger)
        self._autoscaler = Autoscaler(pool, children, lambda: reloads.serving.listeners)
        self._notify = Notify(parts, self._operations.upgrades, starter=starter)
        self._periodic: tuple[Periodic, ...] = (
            self._signals,  # first: a worker that has ended may have been sent the same signal
            self._reaper,  # before the others, so that they see no dead worker
            self._control,
            zygotes,
            self._operations,
            self._operations.reopening,
            self._timeouts,
            self._liveness,
            self._slow_log,
            self._blocked_loops,
            children,
            children.stacks,
            self._metrics,
            self._queues,
            self._listener_watch,
            self._recycler,
            self._autoscaler,
            supervisor,  # after all parts that change the pool
            self._operations.files,
            self._notify,  # after the plan, of which it sends the outcome
            self._operations.upgrades,  # between two plans, since it may not come back
            supervisor.inboxes,
            self._log_writer,  # after all that forks
            reloads,
        )
        """The order is that of each round, and of the end."""

    def run(self) -> int:
        """The loop. Returns the exit status."""
        self._begin()
        while not self._supervisor.stopped or self._supervisor.zygotes:
            self._wait()
            for part in self._periodic:
                part.run(monotonic())
        self._log_writer.start_for_last_lines()
        for part in self._periodic:
            part.close()
        logs.event("info", "stopped")
        self._log.close()
        return self._status

    def _begin(self) -> None:
        first = self._reloads.serving
        setproctitle.setproctitle(f"prefork: master [{first.config.server.name}]")
        self._signals.listen(self._operations)
        self._operations.watch_files()
        # All memory of this moment is shared with the workers until a process writes to it.
        gc.collect()
        gc.freeze()
        if self._adopted:
            self._take_over(self._adopted)
        else:
            for listener in first.listeners:
                logs.event("info", "listening", address=listener.name)
            self._supervisor.pool.start(first.number, first.settings)
        self._metrics.follow(self._reloads.serving.metrics)
        self._supervisor.run(monotonic())

    def _take_over(self, adopted: Adopted) -> None:
        """After an exec: the processes are ours, and are then replaced as by any reload."""
        state = adopted.state
        self._supervisor.restore(state, adopted.generations)
        self._signals.unblock(state.mask)  # pending ones arrive now
        self._ledger.upgraded("success")
        logs.event("info", "upgraded", was=state.prefork, version=__version__)
        for listener in adopted.opened:
            logs.event("info", "listening", address=listener.name)
        if state.log_writer is not None:
            self._log_writer.restore(state.log_writer)
        self._reaper.run(monotonic())  # the master before may have taken the SIGCHLD
        self._operations.resume(state.clients, self._control, state.prefork)

    def _wait(self) -> None:
        """Waits until a part is due or an event comes, and dispatches the events."""
        before = monotonic()
        times = [due for part in self._periodic if (due := part.due) is not None]
        planned = max(min(times) - before, 0.0) if times else None
        for key, mask in self._selector.select(planned):
            key.data(mask)  # the callback that the descriptor was registered with
        late = monotonic() - before - planned if planned is not None else 0.0
        if late > _OVERSLEPT:
            for part in self._periodic:
                part.overslept(late)

    def _foreign_descriptors(self, generation: Generation) -> Iterable[int]:
        """The descriptors that no worker of a generation may keep open: they would outlive us."""
        own = {listener.fileno() for listener in generation.listeners}
        held = {fd for part in self._periodic for fd in part.descriptors()}
        return (*(held - own), self._selector.fileno())

    def _all_descriptors(self) -> Iterable[int]:
        """All that are the master's, for a process that needs none of them."""
        held = {fd for part in self._periodic for fd in part.descriptors()}
        return {*held, *self._supervisor.children.ends(), self._selector.fileno()}

    # The events of the supervisor.

    def worker_forked(self) -> None:
        self._timeouts.worker_forked()
        self._slow_log.worker_forked()

    def worker_ready(self, child: Child) -> None:
        self._recycler.worker_ready(child)
        self._blocked_loops.worker_ready(child)
        self._autoscaler.worker_ready(monotonic())

    def worker_silent(self, child: Child) -> None:
        self._liveness.suspect(child)

    def serving_worker_ready(self) -> None:
        self._operations.watch_files()
        self._metrics.follow(self._reloads.serving.metrics)
        self._queues.generation_changed()

    def first_boot_failed(self, reason: str) -> None:
        self._status = FIRST_BOOT_FAILED
        self._notify.failed(self._status, reason)
