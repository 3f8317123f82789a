"""The master: one thread, one wait, and between two waits everything that there is to do.

A signal, a worker's word, a command on the control socket and the next deadline all end the same
wait.  Every step may be repeated safely, so that it does not matter what comes twice, late or not
at all.
"""

import gc
import random
import selectors
import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from time import monotonic

import setproctitle

from prefork import __version__, channel, logs
from prefork.listeners import Listener
from prefork.master.control_server import ControlServer
from prefork.master.daemon import Starter
from prefork.master.observe.listen_queues import QueueWatch
from prefork.master.observe.metrics import page
from prefork.master.observe.metrics_server import MetricsServer
from prefork.master.observe.notify import Notify
from prefork.master.observe.slow_log import SlowLog
from prefork.master.observe.timeouts import Timeouts
from prefork.master.observe.upkeep import Upkeep
from prefork.master.pool import plan
from prefork.master.pool.ledger import Ledger, Restart, begin
from prefork.master.pool.plan import WorkerState
from prefork.master.pool.pool import Pool
from prefork.master.processes.children import Child, Children
from prefork.master.processes.generation import Generation
from prefork.master.processes.inboxes import Inboxes
from prefork.master.processes.zygotes import Zygotes
from prefork.master.rollout.draining import Drains
from prefork.master.rollout.reload import Reloads
from prefork.master.signals import Commands
from prefork.master.upgrade.exec import Adopted, MasterParts
from prefork.scoreboard import SLOTS, Scoreboard

FIRST_BOOT_FAILED = 3
"""Exit status of a server whose first generation could not boot."""

_OVERSLEPT = 1.0
"""Seconds beyond the planned wait that say: this process, or the machine, stood still."""


class Master:
    """Runs one server until it is told to stop.

    Raises ControlError where the control socket can't be had.
    """

    def __init__(
        self,
        reloads: Reloads,
        log: logs.Logs,
        control_path: Path,
        *,
        watch: bool = False,
        starter: Starter | None = None,
        adopted: Adopted | None = None,
    ) -> None:
        """`watch`: reload whenever a file of the application or the configuration changes.
        `starter`: who waits for the start of a daemon.
        `adopted`: from a master that this one replaces, in the same process."""
        self._reloads = reloads
        self._log = log
        self._name = reloads.serving.config.server.name
        self._adopted = adopted
        self._born = adopted.state.born if adopted else monotonic()
        self._status = 0
        self._settling: list[int] = []
        self._stopped = False
        self._selector = selectors.EpollSelector()
        self._control = ControlServer(
            self._selector,
            control_path,
            lambda request, reply: self._commands.obey(request, reply),
            adopted=adopted.state.control if adopted else None,
        )
        self._scoreboard = adopted.scoreboard if adopted else Scoreboard()
        self._ledger = Ledger.adopt(adopted.state.ledger) if adopted else begin()
        reloads.ended = self._ledger.reloaded
        self._pool = Pool(random.Random(), max_slots=SLOTS)
        self._children = Children(
            self._name,
            self._selector,
            self._scoreboard,
            log,
            born=self._welcome,
            hear=self._hear,
            foreign=self._foreign_descriptors,
        )
        self._zygotes = Zygotes(self._selector, self._children, self._not_spawned)
        self._inboxes = Inboxes(self._selector, self._scoreboard, self._children)
        self._timeouts = Timeouts(self._pool, self._children, self._ledger)
        self._slow = SlowLog(self._children, self._pool)
        self._upkeep = Upkeep(
            self._pool, self._children, self._ledger, lambda: reloads.serving.listeners
        )
        parts = MasterParts(
            *(self._born, reloads, self._pool, self._children, self._zygotes, self._inboxes),
            *(self._control, self._scoreboard, self._ledger),
            daemon=adopted.state.daemon if adopted else starter is not None,
        )
        self._queues = QueueWatch(
            lambda: reloads.serving.listeners,
            lambda: reloads.serving.config.server.backlog_warning,
        )
        self._metrics = MetricsServer(self._selector, partial(page, parts))
        self._commands = Commands(self._selector, parts, log, watch=watch)
        self._notify = Notify(parts, upgrading=self._commands.upgrading, starter=starter)
        self._drains = Drains()
        self._wake_at: float | None = None

    def run(self) -> int:
        """The loop. Returns the exit status."""
        self._begin()
        while not self._stopped or self._zygotes:
            self._wait()
            self._bury()
            self._timeouts.look()
            self._slow.look()
            self._children.stacks.look()
            self._metrics.look()
            self._queues.look(monotonic())
            self._upkeep.look()
            self._act(self._pool.plan(monotonic()))
            self._notify.look(monotonic())
            self._commands.upgrade()
        self._control.close()
        self._commands.close()
        self._metrics.close()
        self._reloads.pidfile.close()
        for listener in self._reloads.held:
            listener.close(unlink=True)
        logs.event("info", "stopped")
        self._log.close()
        return self._status

    def _begin(self) -> None:
        setproctitle.setproctitle(f"prefork: master [{self._name}]")
        self._commands.listen()
        # What is here now is shared with all workers for as long as nobody writes to it.
        gc.collect()
        gc.freeze()
        if self._adopted:
            self._take_over(self._adopted)
        else:
            first = self._reloads.serving
            for listener in first.listeners:
                logs.event("info", "listening", address=listener.name)
            self._pool.start(first.number, first.settings, monotonic())
        self._metrics.follow(self._reloads.serving.metrics)
        self._act(self._pool.plan(monotonic()))

    def _take_over(self, adopted: Adopted) -> None:
        """After an exec: what runs is ours, and is then replaced as by any reload."""
        state = adopted.state
        settings = {number: each.settings for number, each in adopted.generations.items()}
        self._pool.adopt(state.pool, settings)
        for child in state.children:
            self._take_in(self._children.take_over(child, adopted.generations[child.generation]))
        for zygote in state.zygotes:
            self._zygotes.take_over(zygote, adopted.generations[zygote.generation])
        self._inboxes.take_over(state.inboxes)
        signal.pthread_sigmask(signal.SIG_SETMASK, state.mask)  # what came meanwhile comes now
        self._ledger.upgraded("success")
        logs.event("info", "upgraded", was=state.prefork, version=__version__)
        for listener in adopted.opened:
            logs.event("info", "listening", address=listener.name)
        self._bury()  # SIGCHLD may have been heard by the master before
        self._commands.resume(state.clients, self._control, state.prefork)

    def _take_in(self, child: Child) -> None:
        """A worker of the master before."""
        worker = self._pool.find(child.pid)
        if worker is not None:
            child.killed = worker.killed
            if worker.state is WorkerState.READY:
                self._upkeep.ready(child)

    # Wait, and take what has come.

    def _wait(self) -> None:
        before = monotonic()
        planned = self._patience(before)
        for key, mask in self._selector.select(planned):
            key.data(mask)
        now = monotonic()
        if planned is not None and now - before > planned + _OVERSLEPT:
            self._pool.overslept(now - before - planned)
            self._commands.overslept(now - before - planned)
            self._zygotes.overslept(now - before - planned)
            self._timeouts.overslept(now + _OVERSLEPT)
        self._control.expire(now)
        self._zygotes.expire(now)
        self._commands.step(now)

    def _patience(self, now: float) -> float | None:
        """Seconds that the loop may wait; None where only an event can change anything."""
        times = (
            self._wake_at,
            self._control.next_deadline(),
            self._commands.next_deadline(),
            self._zygotes.next_deadline(),
            self._timeouts.look_at,
            self._slow.look_at,
            self._children.stacks.look_at,
            self._metrics.look_at,
            self._queues.look_at,
            self._upkeep.look_at,
            self._notify.look_at,
        )
        soonest = min((time for time in times if time is not None), default=None)
        return None if soonest is None else max(soonest - now, 0.0)

    def _hear(self, child: Child, report: channel.Report) -> None:
        if child.killed:
            return  # what it said just before that changes nothing any more
        now = monotonic()
        number = child.generation.number
        if isinstance(report, channel.ReadyReport):
            logs.event("info", "worker ready", slot=child.slot, pid=child.pid, generation=number)
            self._pool.ready(child.pid, now)
            if self._pool.current == number:
                self._reloads.commit(number)
                self._commands.follow()
                self._metrics.follow(self._reloads.serving.metrics)
                self._queues.look_again()
            worker = self._pool.find(child.pid)
            if worker is not None and worker.state is WorkerState.READY:
                self._inboxes.admit(child)
                self._children.tell(child, channel.ServeOrder())
            self._upkeep.ready(child)
        elif isinstance(report, channel.LeavingReport):
            logs.event("info", "worker leaving", slot=child.slot, pid=child.pid, generation=number)
            self._pool.leaving(child.pid, now)
            self._settle()
        elif isinstance(report, channel.CrowdedReport):
            self._inboxes.relieve(child)
        elif isinstance(report, channel.FailedReport):
            on_trial = number == self._pool.candidate
            self._pool.failed(child.pid, report.why, now)
            # On trial, or at the first boot, the end of the generation is told, with this cause.
            if self._pool.ever_ready and not on_trial:
                logs.event(
                    "error",
                    "worker failed to boot",
                    slot=child.slot,
                    pid=child.pid,
                    generation=number,
                    traceback=report.why,
                )

    def _bury(self) -> None:
        for death in self._children.reap(self._zygotes):
            child = death.child
            self._inboxes.vacate(child)
            worker = self._pool.find(child.pid)
            expected = worker is None or (
                worker.state is WorkerState.RETIRING and not death.sigkill
            )
            # A kill of ours was announced then, with its reason; the end of a generation is told
            # with its cause.
            quiet = expected or (
                worker is not None and (worker.killed or worker.generation == self._pool.candidate)
            )
            calls = [call for call in self._children.calls(child) if call.started]
            logs.event(
                "info" if quiet and not calls else "error",
                "worker exited" if expected else "worker died",
                slot=child.slot,
                pid=child.pid,
                generation=child.generation.number,
                how=death.how,
                **({"during": "; ".join(call.line for call in calls)} if calls else {}),
            )
            self._ledger.bury(self._children.counters(child))
            if reason := self._restart(worker, expected):
                self._ledger.restarted(reason)
            self._pool.died(child.pid, death.how, monotonic(), sigkill=death.sigkill)

    def _restart(self, worker: plan.Worker | None, expected: bool) -> Restart | None:
        """Why a dead worker has to be replaced; None where it is not, or was counted before."""
        if worker is None or self._pool.stopping:
            return None
        if not expected:
            if worker.state is WorkerState.RETIRING:  # it was killed on its way out
                return None
            return "boot_failed" if worker.state is WorkerState.BOOTING else "crashed"
        replaced = worker.generation < (self._pool.current or 0) and worker.worn is None
        return "reload" if replaced and worker.state is WorkerState.RETIRING else None

    # Carry out the plan.

    def _act(self, todo: plan.Plan) -> None:
        in_use = self._listeners_in_use()
        for action in todo.actions:
            match action:
                case plan.SpawnAction(slot, number):
                    self._spawn(slot, self._reloads.find(number))
                case plan.RetireAction(pid) | plan.StopAction(pid):
                    self._send_off(pid, in_use)
                case plan.QuitAction(pid):
                    if child := self._children.find(pid):
                        self._children.signal(child, signal.SIGQUIT)
                case plan.KillAction(pid, slot, why):
                    self._kill(pid, slot, why)
        for outcome in todo.outcomes:
            self._conclude(outcome)
        self._settle()
        self._zygotes.keep(self._pool.growing)
        now = monotonic()
        self._reloads.let_go(self._listeners_in_use() | self._drains.under_way(now))
        self._drains.forget((child.generation for child in self._children), now)
        self._wake_at = now if todo.actions else todo.wake_at

    def _spawn(self, slot: int, generation: Generation) -> None:
        parent = self._zygotes if generation.config.workers.preload else self._children
        try:
            parent.spawn(slot, generation)
        except OSError as error:
            why = f"fork failed: {error.strerror}"
            logs.event("error", "fork failed", slot=slot, reason=error.strerror)
            self._pool.spawn_failed(slot, generation.number, why, monotonic())

    def _welcome(self, child: Child) -> None:
        """A worker was forked, here or by a zygote."""
        number = child.generation.number
        self._timeouts.look_again()
        self._slow.look_again()
        logs.event("debug", "worker forked", slot=child.slot, pid=child.pid, generation=number)
        self._pool.spawned(child.slot, number, child.pid, monotonic())

    def _not_spawned(self, generation: Generation, slots: list[int], why: str) -> None:
        """A zygote could not fork these workers."""
        number = generation.number
        if self._pool.ever_ready and number in self._pool.growing:
            logs.event("error", "spawn failed", generation=number, slots=slots, traceback=why)
        for slot in slots:
            self._pool.spawn_failed(slot, number, why, monotonic())

    def _send_off(self, pid: int, in_use: set[Listener]) -> None:
        """Tells a worker to leave, and to serve the queues that nobody else will.

        The pool asks again until the worker is heard to leave: while the end of a listener is
        being prepared, its workers serve on.
        """
        child = self._children.find(pid)
        if child is None:
            return
        patience = child.generation.config.workers.graceful_timeout
        drained = []
        ready = True
        for number, listener in enumerate(child.generation.listeners):
            # The queue of an inherited one is served by whoever passed it on.
            if listener not in in_use and not listener.inherited:
                if listener.fileno() < 0 and listener not in self._drains:
                    continue  # closed before this worker heard of its end: nothing to prepare
                drained.append(number)
                ready = self._drains.over(listener, monotonic(), patience) and ready
        if ready:
            order = channel.StopOrder(tuple(drained)) if drained else channel.RetireOrder()
            self._children.tell(child, order)

    def _kill(self, pid: int, slot: int, why: str) -> None:
        child = self._children.find(pid)
        if child is None:
            return
        worker = self._pool.find(pid)
        if worker is not None and worker.order is None:
            # One that overslept its boot may have become ready just now. (If it does after this
            # look, nothing is lost: it accepts nothing before it was told to serve.)
            self._children.listen(child)
            if worker.order is not None:
                return
        number = child.generation.number
        logs.event("warning", "worker killed", slot=slot, pid=pid, generation=number, why=why)
        child.killed = True
        self._children.signal(child, signal.SIGKILL)

    def _conclude(self, outcome: plan.Outcome) -> None:
        match outcome:
            case plan.FirstBootFailed(why):
                logs.event("error", "first boot failed", traceback=why)
                self._status = FIRST_BOOT_FAILED
                self._notify.failed(self._status, why)
            case plan.Settled(number):
                self._settling.append(number)
            case plan.Stalled(number, why):
                self._reloads.stalled(number, why)
            case plan.Abandoned(number, why):
                self._reloads.failed(number, why)
            case plan.Superseded(number):
                self._reloads.failed(number, "a later reload took its place", "superseded")
            case plan.Stopped():
                self._stopped = True

    def _settle(self) -> None:
        """Tells of a generation once no older worker accepts any more, and not just when it was
        told to: whoever has seen a reload succeed gets no answer of the old code."""
        for number in self._settling:
            accepting = any(
                worker.generation < number and not (worker.leaving or worker.killed)
                for worker in self._pool.members()
            )
            if not accepting:
                self._settling.remove(number)
                self._reloads.settled(number)
                return

    def _listeners_in_use(self) -> set[Listener]:
        """Those that connections are still accepted from, by workers that stay."""
        if self._pool.stopping:
            metrics = self._reloads.serving.metrics
            return {metrics} if metrics is not None else set()
        living = [
            child.generation
            for child in self._children
            if (worker := self._pool.find(child.pid)) and worker.state is not WorkerState.RETIRING
        ]
        return self._reloads.in_use(living)

    def _foreign_descriptors(self, generation: Generation) -> Iterable[int]:
        """What no worker of a generation may hold: it would outlive us in there."""
        others = set(self._reloads.held) - set(generation.listeners)
        return (
            *(listener.fileno() for listener in others),
            *self._zygotes.descriptors(),
            *self._inboxes.descriptors(),
            *self._commands.descriptors(),
            *self._metrics.descriptors(),
            *self._control.descriptors(),
            *self._notify.descriptors(),
            *self._reloads.pidfile.descriptors(),
            self._selector.fileno(),
        )
