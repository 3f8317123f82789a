"""The supervisor carries out the plans of the pool, and passes the reports of workers to it.

It owns the worker processes.  Every step may be repeated safely, so that it does not matter if a
report comes twice, late or not at all.
"""

import random
import selectors
import signal
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Protocol

from prefork import channel, logs, system_errors
from prefork.capacity import WORKER_SLOTS
from prefork.listeners import Listener
from prefork.master.periodic import Periodic
from prefork.master.pool import plan
from prefork.master.pool.plan import Worker, WorkerState
from prefork.master.pool.pool import Pool
from prefork.master.processes.children import Child, Children
from prefork.master.processes.generation import Generation
from prefork.master.processes.inboxes import Inboxes
from prefork.master.processes.log_writer import LogWriter
from prefork.master.processes.zygotes import Zygotes
from prefork.master.rollout.draining import Drains
from prefork.master.rollout.reload import Reloads
from prefork.master.rollout.slow_clients import SlowClients
from prefork.master.snapshot import MasterSnapshot
from prefork.scoreboard import Scoreboard


class SupervisorEvents(Protocol):
    """What the supervisor reports to the other parts of the master, at once."""

    def worker_forked(self) -> None:
        """A worker is about to boot."""

    def worker_ready(self, child: Child) -> None:
        """A worker has booted, and was ordered to serve if the pool still wants it."""

    def worker_silent(self, child: Child) -> None:
        """A worker does not take what is in its inbox: it may not run."""

    def serving_worker_ready(self) -> None:
        """A worker of the generation that serves is ready: another generation may serve now."""

    def first_boot_failed(self, reason: str) -> None:
        """No worker was ever ready: the server is about to stop."""


class Supervisor(Periodic):
    """Forks, orders and kills workers."""

    due: float | None = None

    def __init__(
        self,
        selector: selectors.BaseSelector,
        scoreboard: Scoreboard,
        log: logs.Logs,
        reloads: Reloads,
        events: SupervisorEvents,
        foreign: Callable[[Generation], Iterable[int]],
        log_writer: LogWriter,
    ) -> None:
        """`foreign`: descriptors that no worker of a generation may keep."""
        self._reloads = reloads
        self._events = events
        self.pool = Pool(random.Random(), max_slots=WORKER_SLOTS)
        self.children = Children(
            reloads.serving.config.server.name,
            selector,
            scoreboard,
            log,
            forked=self._forked,
            report=self._report_of_living,
            foreign=foreign,
            log_pipes=log_writer.pipes,
        )
        self.zygotes = Zygotes(selector, self.children, self._not_spawned)
        self.inboxes = Inboxes(selector, scoreboard, self.children, events.worker_silent)
        self.stopped = False
        """The pool has stopped, and no worker is left."""
        self._slow_clients = SlowClients(self.pool, self.children)
        self._drains = Drains()
        self._settling: list[int] = []
        self._scoreboard = scoreboard
        self._terminated: list[int] = []

    def restore(self, state: MasterSnapshot, generations: dict[int, Generation]) -> None:
        """Takes over all processes of the master before, after an exec."""
        settings = {number: each.settings for number, each in generations.items()}
        self.pool.restore(state.pool, settings)
        for child_state in state.children:
            worker = self.pool.find(child_state.pid)
            assert worker is not None  # both are of the same snapshot
            generation = generations[child_state.generation]
            child = self.children.restore(child_state, generation, worker)
            if worker.state is WorkerState.READY:
                self._events.worker_ready(child)
        for zygote in state.zygotes:
            self.zygotes.restore(zygote, generations[zygote.generation])
        self.inboxes.restore(state.inboxes)

    def run(self, now: float) -> None:
        """Carries out the plan of the pool."""
        self._replace_terminated(now)
        self._slow_clients.run(now)
        todo = self.pool.advance(now)
        in_use = self._listeners_in_use()
        for action in todo.actions:
            match action:
                case plan.SpawnAction(slot, number):
                    self._spawn(slot, self._reloads.find(number))
                case plan.RetireAction(pid) | plan.StopAction(pid):
                    self._order_to_leave(pid, in_use)
                case plan.QuitAction(pid):
                    if child := self.children.find(pid):
                        self.children.signal(child, signal.SIGQUIT)
                case plan.KillAction(pid, slot, reason):
                    self._kill(pid, slot, reason)
        for outcome in todo.outcomes:
            self._take_outcome(outcome)
        self._report_settled()
        self.zygotes.keep_only(self.pool.spawning)
        now = monotonic()
        self._reloads.close_unused(self._listeners_in_use() | self._drains.under_way(now))
        self._drains.forget((child.generation for child in self.children), now)
        self.due = now if todo.actions else todo.wake_at

    def _replace_terminated(self, now: float) -> None:
        """Replaces workers that have asked to leave, unless the server stops.

        By now the master has handled its own signals.
        """
        for pid in self._terminated:
            if not self._scoreboard.draining:
                self.pool.replace_now(pid, now)
        self._terminated.clear()

    def overslept(self, seconds: float) -> None:
        """The workers stood still too, or their reports could not be read."""
        self.pool.overslept(seconds)

    # What the processes report.

    def _forked(self, pid: int, slot: int, generation: Generation) -> Worker:
        """A worker was forked, here or by a zygote."""
        self._events.worker_forked()
        logs.event("debug", "worker forked", slot=slot, pid=pid, generation=generation.number)
        worker = self.pool.spawned(slot, generation.number, pid, monotonic())
        assert worker is not None  # each spawn is asked for once and answered once
        return worker

    def _not_spawned(self, generation: Generation, slots: list[int], reason: str) -> None:
        """A zygote could not fork these workers."""
        number = generation.number
        if self.pool.ever_ready and number in self.pool.spawning:
            logs.event("error", "spawn failed", generation=number, slots=slots, traceback=reason)
        for slot in slots:
            self.pool.spawn_failed(slot, number, reason, monotonic())

    def _report_of_living(self, child: Child, report: channel.Report) -> None:
        if not child.worker.killed:  # a report from just before that changes nothing any more
            self._take_report(child, report)

    def _take_report(self, child: Child, report: channel.Report) -> None:
        now = monotonic()
        number = child.generation.number
        if isinstance(report, channel.ReadyReport):
            _note_ready(child, report)
            self.pool.ready(child.pid, now)
            if self.pool.current == number:
                self._reloads.commit(number)
                self._events.serving_worker_ready()
            if child.worker.state is WorkerState.READY:
                self.inboxes.register(child)
                self.children.send(child, channel.ServeOrder())
            self._events.worker_ready(child)
        elif isinstance(report, channel.TerminatedReport):
            self._terminated.append(child.pid)
        elif isinstance(report, channel.LeavingReport):
            logs.event("info", "worker leaving", slot=child.slot, pid=child.pid, generation=number)
            self.pool.leaving(child.pid, now)
            self.children.nudge_acceptors()
            self._report_settled()
        elif isinstance(report, channel.InboxStuckReport):
            if report.slot < 0:
                self.inboxes.reroute(child)
            else:
                self.inboxes.unanswered(report.slot)
        elif isinstance(report, channel.FailedReport):
            self._boot_failed(child, report.reason, now)

    def _boot_failed(self, child: Child, reason: str, now: float) -> None:
        number = child.generation.number
        on_trial = number == self.pool.candidate
        self.pool.boot_failed(child.pid, reason, now)
        # On trial, or at the first boot, the end of the generation is logged, with this cause.
        if self.pool.ever_ready and not on_trial:
            logs.event(
                "error",
                "worker failed to boot",
                slot=child.slot,
                pid=child.pid,
                generation=number,
                traceback=reason,
            )

    # The actions of a plan.

    def _spawn(self, slot: int, generation: Generation) -> None:
        parent = self.zygotes if generation.config.workers.preload else self.children
        try:
            parent.spawn(slot, generation)
        except OSError as error:
            reason = f"fork failed: {system_errors.explain(error)}"
            logs.event("error", "fork failed", slot=slot, reason=error.strerror)
            self.pool.spawn_failed(slot, generation.number, reason, monotonic())

    def _order_to_leave(self, pid: int, in_use: set[Listener]) -> None:
        """Orders a worker to leave, and to drain the queues that no other worker serves.

        The pool asks again until the worker confirms: while the end of a listener is being
        prepared, its workers serve on.
        """
        child = self.children.find(pid)
        if child is None:
            return
        patience = child.generation.config.workers.graceful_timeout
        drained = []
        ready = True
        for number, listener in enumerate(child.generation.listeners):
            # The queue of an inherited one is served by the process that passed it on.
            if listener not in in_use and not listener.inherited:
                if listener.fileno() < 0 and listener not in self._drains:
                    continue  # closed before this worker had the order: nothing to prepare
                drained.append(number)
                ready = self._drains.drain(listener, monotonic(), patience) and ready
        if ready:
            deadline = child.worker.deadline
            left = max(deadline - monotonic(), 0.001) if deadline is not None else 0.0
            if drained:
                self.children.send(child, channel.StopOrder(tuple(drained), left))
            else:
                self.children.send(child, channel.RetireOrder(left))
            self.children.signal(child, signal.SIGCONT)  # one that was stopped could not leave

    def _kill(self, pid: int, slot: int, reason: str) -> None:
        child = self.children.find(pid)
        if child is None:
            return
        if child.worker.order is None:
            # A worker that is late may have become ready just now.  (If it does so after this
            # look, nothing is lost: it accepts nothing before it has the order to serve.)
            self.children.read_reports(child, self._take_report)
            if child.worker.order is not None:
                return
        number = child.generation.number
        # At a first boot that failed, the kill of the others says nothing more.
        never_ready = self.pool.stopping and not self.pool.ever_ready
        level: logs.Level = "debug" if never_ready and child.worker.order is None else "warning"
        logs.event(level, "worker killed", slot=slot, pid=pid, generation=number, reason=reason)
        self.children.signal(child, signal.SIGKILL)

    # The outcomes of a plan.

    def _take_outcome(self, outcome: plan.Outcome) -> None:
        match outcome:
            case plan.FirstBootFailed(reason):
                logs.event("error", "first boot failed", traceback=reason)
                self._events.first_boot_failed(reason)
            case plan.Settled(number):
                self._settling.append(number)
            case plan.Stalled(number, reason):
                self._reloads.stalled(number, reason)
            case plan.Abandoned(number, reason):
                self._reloads.failed(number, reason, serves_on=self.pool.serves_on)
            case plan.Superseded(number):
                self._reloads.failed(number, "a later reload took its place", "superseded")
            case plan.Stopped():
                self.stopped = True

    def _report_settled(self) -> None:
        """Reports that a generation has settled once no older worker accepts any more.

        The order to leave is not enough: a client that has seen a reload succeed must get no
        answer of the old code.
        """
        for number in self._settling:
            accepting = any(
                worker.generation < number and not (worker.leaving or worker.killed)
                for worker in self.pool.members()
            )
            if not accepting:
                self._settling.remove(number)
                self._reloads.settled(number)
                with_loop = any(
                    self.children.beat(child)
                    for child in self.children
                    if child.worker.state is not WorkerState.RETIRING
                )
                if not (self.pool.stopping or with_loop):
                    self._reloads.let_workers_block()
                return  # the list has changed under the loop; the next one is reported next time

    def _listeners_in_use(self) -> set[Listener]:
        """The listeners from which workers that stay accept connections, and that of metrics."""
        if self.pool.stopping:
            metrics = self._reloads.serving.metrics
            return {metrics} if metrics is not None else set()
        living = [
            child.generation
            for child in self.children
            if child.worker.state is not WorkerState.RETIRING
        ]
        return self._reloads.in_use(living)


def _note_ready(child: Child, report: channel.ReadyReport) -> None:
    """Logs that a worker is ready, and remembers whether it has an event loop."""
    logs.event(
        "info",
        "worker ready",
        **child.log_fields,
        **({"loop": report.loop} if report.loop else {}),
    )
    if report.asgi:
        child.asgi = child.generation.config.server.protocol in ("auto", "asgi")
        child.generation.import_asgi_parts()
