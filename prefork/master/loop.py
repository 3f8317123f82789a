"""The master: one thread, one wait, and between two waits everything that there is to do.

Signal handlers do nothing: the interpreter writes each signal's number into a pipe
(signal.set_wakeup_fd), and the loop reads it there, among the other things that can happen.  Every
step may be repeated safely, so that it does not matter what comes twice, late or not at all.
"""

import contextlib
import errno
import gc
import os
import random
import selectors
import signal
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

import msgspec
import setproctitle

from prefork import __version__, channel, control, logs
from prefork.control import PoolBounds, ServerStatus, WorkerStatus
from prefork.listeners import Listener
from prefork.master import plan
from prefork.master.children import Child, Children
from prefork.master.control import ControlServer, Reply
from prefork.master.draining import Drain
from prefork.master.generation import Generation
from prefork.master.limits import late_calls
from prefork.master.plan import State
from prefork.master.pool import Pool
from prefork.master.reload import Reloads, Waiting
from prefork.master.takeover import Adopted, Parts
from prefork.master.upgrade import Upgrades
from prefork.master.upkeep import Upkeep
from prefork.master.watch import Watcher
from prefork.master.zygote import Zygotes
from prefork.scoreboard import SLOTS, Call, Scoreboard

FIRST_BOOT_FAILED = 3
"""Exit status of a server whose first generation could not boot."""

_OVERSLEPT = 1.0
"""Seconds beyond the planned wait that say: this process, or the machine, stood still."""

_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1),
    *(signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGCHLD),
)


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
        adopted: Adopted | None = None,
    ) -> None:
        """`watch`: reload whenever a file of the application or the configuration changes.
        `adopted`: from a master that this one replaces, in the same process."""
        self._reloads = reloads
        self._log = log
        self._name = reloads.serving.config.server.name
        self._adopted = adopted
        self._born = adopted.state.born if adopted else monotonic()
        self._status = 0
        self._settling: list[int] = []
        self._stopping = False
        self._stop_at: float | None = None
        self._stopped = False
        self._announced = False
        self._selector = selectors.EpollSelector()
        self._control = ControlServer(
            self._selector,
            control_path,
            self._command,
            adopted=adopted.state.control if adopted else None,
        )
        self._scoreboard = adopted.scoreboard if adopted else Scoreboard()
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
        self._upkeep = Upkeep(
            self._pool, self._children, self._calls, lambda: reloads.serving.listeners
        )
        parts = Parts(
            *(self._born, reloads, self._pool, self._children, self._zygotes),
            *(self._control, self._scoreboard),
        )
        self._upgrades = Upgrades(self._selector, parts, self._reload)
        self._signals, self._signal_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._signals, selectors.EVENT_READ, self._take_signals)
        self._watcher = (
            Watcher(self._selector, self._name, lambda: self._reload(None)) if watch else None
        )
        self._drains: dict[Listener, Drain] = {}
        self._wake_at: float | None = None
        self._look_at = 0.0

    def run(self) -> int:
        """The loop. Returns the exit status."""
        self._begin()
        while not self._stopped or self._zygotes:
            self._wait()
            self._bury()
            self._look_for_late_calls()
            self._upkeep.look()
            self._act(self._pool.plan(monotonic()))
            self._upgrade()
        self._control.close()
        if self._watcher is not None:
            self._watcher.close()
        for listener in self._reloads.held:
            listener.close(unlink=True)
        logs.event("info", "stopped")
        self._log.close()
        return self._status

    def _begin(self) -> None:
        setproctitle.setproctitle(f"prefork: master [{self._name}]")
        signal.set_wakeup_fd(self._signal_writer, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        if self._watcher is not None:
            self._watcher.follow(self._reloads.serving.loaded)
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
        signal.pthread_sigmask(signal.SIG_SETMASK, state.mask)  # what came meanwhile comes now
        logs.event("info", "upgraded", was=state.prefork, version=__version__)
        for listener in adopted.opened:
            logs.event("info", "listening", address=listener.name)
        self._bury()  # SIGCHLD may have been heard by the master before
        self._reload(self._upgrades.resume(state.clients, self._control, state.prefork))
        self._pool.carry_over()

    def _take_in(self, child: Child) -> None:
        """A worker of the master before."""
        worker = self._pool.find(child.pid)
        if worker is not None:
            child.killed = worker.killed
            if worker.state is State.READY:
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
            self._upgrades.overslept(now - before - planned)
            self._zygotes.overslept(now - before - planned)
            self._look_at = now + _OVERSLEPT  # the workers' calls stood still too
        self._control.expire(now)
        self._zygotes.expire(now)
        if self._stop_at is not None and now >= self._stop_at:
            self._stop_now(now)

    def _patience(self, now: float) -> float | None:
        """Seconds that the loop may wait; None where only an event can change anything."""
        times = (
            self._wake_at,
            self._stop_at,
            self._control.next_deadline(),
            self._upgrades.next_deadline(),
            self._zygotes.next_deadline(),
            self._look_at or None,
            self._upkeep.look_at,
        )
        soonest = min((time for time in times if time is not None), default=None)
        return None if soonest is None else max(soonest - now, 0.0)

    def _take_signals(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while numbers := os.read(self._signals, 4096):
                for number in numbers:
                    self._signalled(signal.Signals(number))

    def _signalled(self, number: signal.Signals) -> None:
        now = monotonic()
        if number is signal.SIGCHLD:
            return  # the dead are looked for in each round
        logs.event("info", "signal received", signal=number.name)
        match number:
            case signal.SIGTERM:
                self._stop(now)
            case signal.SIGINT | signal.SIGQUIT:
                self._pool.stop(now, graceful=False)
                self._upgrades.cancel("the server is stopping")
            case signal.SIGHUP:
                self._reload(None)
            case signal.SIGUSR1:
                self._reopen()
            case signal.SIGTTIN:
                self._pool.grow(1, now)
            case signal.SIGTTOU:
                self._pool.grow(-1, now)
            case signal.SIGWINCH if not _has_terminal():
                self._pool.withdraw(now)
                self._upgrades.cancel("all workers were withdrawn")
            case signal.SIGUSR2:
                self._ask_for_upgrade()

    def _hear(self, child: Child, report: channel.Report) -> None:
        if child.killed:
            return  # what it said just before that changes nothing any more
        now = monotonic()
        number = child.generation.number
        if isinstance(report, channel.Ready):
            logs.event("info", "worker ready", slot=child.slot, pid=child.pid, generation=number)
            self._pool.ready(child.pid, now)
            if self._pool.current == number:
                self._reloads.commit(number)
                if self._watcher is not None:
                    self._watcher.follow(self._reloads.serving.loaded)
            worker = self._pool.find(child.pid)
            if worker is not None and worker.state is State.READY:
                self._children.tell(child, channel.Serve())
            self._upkeep.ready(child)
        elif isinstance(report, channel.Leaving):
            logs.event("info", "worker leaving", slot=child.slot, pid=child.pid, generation=number)
            self._pool.leaving(child.pid, now)
            self._settle()
        elif isinstance(report, channel.Failed):
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
            worker = self._pool.find(child.pid)
            expected = worker is None or (worker.state is State.RETIRING and not death.sigkill)
            # A kill of ours was announced then, with its reason; the end of a generation is told
            # with its cause.
            quiet = expected or (
                worker is not None and (worker.killed or worker.generation == self._pool.candidate)
            )
            calls = [call for call in self._calls(child) if call.started]
            logs.event(
                "info" if quiet and not calls else "error",
                "worker exited" if expected else "worker died",
                slot=child.slot,
                pid=child.pid,
                generation=child.generation.number,
                how=death.how,
                **({"during": "; ".join(call.line for call in calls)} if calls else {}),
            )
            self._pool.died(child.pid, death.how, monotonic(), sigkill=death.sigkill)

    # Requests over their timeout.

    def _look_for_late_calls(self) -> None:
        now = monotonic()
        if self._look_at and now < self._look_at:
            return
        looks = []
        for child in self._children:
            timeout = child.generation.config.workers.request_timeout
            if timeout:
                late, look = late_calls(self._calls(child), timeout, now)
                looks.append(look)
                worker = self._pool.find(child.pid)
                if late and worker is not None and worker.state is State.READY:
                    self._expire(child, late, now)
        self._look_at = min(looks, default=0.0)

    def _expire(self, child: Child, late: list[Call], now: float) -> None:
        for call in late:
            logs.event(
                "error",
                "request timed out",
                slot=child.slot,
                pid=child.pid,
                generation=child.generation.number,
                request=call.line,
                elapsed=round(now - call.started, 3),
            )
        self._children.tell(child, channel.Expire())
        self._pool.expired(child.pid, now)

    def _calls(self, child: Child) -> list[Call]:
        return self._scoreboard.calls(child.slot, child.generation.config.workers.threads)

    # Carry out the plan.

    def _act(self, todo: plan.Plan) -> None:
        in_use = self._listeners_in_use()
        for action in todo.actions:
            match action:
                case plan.Spawn(slot, number):
                    self._spawn(slot, self._reloads.find(number))
                case plan.Retire(pid) | plan.Stop(pid):
                    self._send_off(pid, in_use)
                case plan.Quit(pid):
                    if child := self._children.find(pid):
                        self._children.signal(child, signal.SIGQUIT)
                case plan.Kill(pid, slot, why):
                    self._kill(pid, slot, why)
        for outcome in todo.outcomes:
            self._conclude(outcome)
        self._settle()
        self._zygotes.keep(self._pool.growing)
        now = monotonic()
        under_way = {listener for listener, drain in self._drains.items() if not drain.over(now)}
        self._reloads.let_go(self._listeners_in_use() | under_way)
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
        self._look_at = 0.0  # its timeout may be shorter than the others'
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
        drained = []
        ready = True
        for number, listener in enumerate(child.generation.listeners):
            # The queue of an inherited one is served by whoever passed it on.
            if listener not in in_use and not listener.inherited:
                if listener.fileno() < 0 and listener not in self._drains:
                    continue  # closed before this worker heard of its end: nothing to prepare
                drained.append(number)
                ready = self._drain(listener, child.generation).over(monotonic()) and ready
        if ready:
            order = channel.Stop(tuple(drained)) if drained else channel.Retire()
            self._children.tell(child, order)

    def _drain(self, listener: Listener, generation: Generation) -> Drain:
        if listener not in self._drains:
            patience = generation.config.workers.graceful_timeout
            self._drains[listener] = Drain(listener, monotonic(), patience)
        return self._drains[listener]

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
            case plan.Settled(number):
                self._settling.append(number)
            case plan.Abandoned(number, why):
                self._reloads.failed(number, why)
            case plan.Superseded(number):
                self._reloads.failed(number, "a later reload took its place")
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
            return set()
        living = [
            child.generation
            for child in self._children
            if (worker := self._pool.find(child.pid)) and worker.state is not State.RETIRING
        ]
        return self._reloads.in_use(living)

    def _foreign_descriptors(self, generation: Generation) -> Iterable[int]:
        """What no worker of a generation may hold: it would outlive us in there."""
        others = set(self._reloads.held) - set(generation.listeners)
        return (
            *(listener.fileno() for listener in others),
            *self._zygotes.descriptors(),
            *(self._signals, self._signal_writer, self._selector.fileno()),
            *self._control.descriptors(),
            *self._upgrades.descriptors(),
            *(self._watcher.descriptors() if self._watcher is not None else ()),
        )

    # Commands, by signal or over the control socket.

    def _command(self, request: control.Request, reply: Reply) -> None:
        match request:
            case control.Status():
                reply.ok(**msgspec.structs.asdict(self.status()))
            case control.Reload():
                self._reload(reply)
            case control.Upgrade():
                self._ask_for_upgrade(reply)
            case control.Reopen():
                problem = self._reopen()
                reply.fail(problem) if problem else reply.ok()
            case control.Scale(count):
                try:
                    self._pool.scale(count, monotonic())
                except ValueError as error:
                    reply.fail(str(error))
                else:
                    reply.ok(target=self._pool.target)
            case control.Stop():
                if not self._stopping:
                    self._stop(monotonic())
                reply.ok_until_exit()

    def _stop(self, now: float) -> None:
        """Gracefully the first time, after the delay in which balancers go elsewhere; then now."""
        delay = self._reloads.serving.config.workers.drain_delay
        if self._stopping:
            self._pool.stop(now, graceful=False)
        elif delay:
            logs.event("info", "draining", seconds=delay)
            self._scoreboard.draining = True
            self._stop_at = now + delay
        else:
            self._stop_now(now)
        self._stopping = True
        self._upgrades.cancel("the server is stopping")

    def _stop_now(self, now: float) -> None:
        self._scoreboard.draining = True
        self._stop_at = None
        self._pool.stop(now, graceful=True)

    def _reload(self, waiting: Waiting | None) -> None:
        if self._stopping:
            if waiting is not None:
                waiting.fail("the server is stopping")
            return
        if self._upgrades.defer(waiting):
            return
        generation = self._reloads.begin(waiting)
        if generation is not None:
            self._pool.start(generation.number, generation.settings, monotonic())

    def _ask_for_upgrade(self, client: Reply | None = None) -> None:
        if not (self._stopping or self._pool.stopping):
            self._upgrades.ask(client)
        elif client is not None:
            client.fail("the server is stopping")

    def _upgrade(self) -> None:
        """Starts or ends a preflight; and where one has passed, this code does not come back."""
        self._upgrades.step(monotonic())
        if self._upgrades.passed:
            # Those still to come are kept by the kernel until the new code unblocks them.
            old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self._take_signals(0)
            if self._upgrades.passed:
                if self._watcher is not None:
                    self._watcher.close()  # it tells of changes through a pipe of ours
                self._upgrades.replace(old)
                if self._watcher is not None:
                    self._watcher.follow(self._reloads.serving.loaded)
            signal.pthread_sigmask(signal.SIG_SETMASK, old)

    def _reopen(self) -> str | None:
        """New files in place of those that were moved away, here and in all workers.

        Returns why that can't be; the files so far then stay in use.
        """
        try:
            paths, fds = self._log.reopen()
        except logs.LogError as error:
            logs.event("error", "log files not reopened", reason=str(error))
            return str(error)
        for child in self._children:
            if fds:
                self._children.tell(child, channel.Reopen(paths), fds)
        if fds:
            self._zygotes.reopen(paths, fds)
        logs.event("info", "log files reopened")
        return None

    def status(self) -> ServerStatus:
        now = monotonic()
        bounds = self._pool.bounds
        workers = []
        for worker in self._pool.members():
            child = self._children.find(worker.pid)
            requests = sum(call.requests for call in self._calls(child)) if child else 0
            busy = child is not None and any(call.started for call in self._calls(child))
            state = "busy" if busy and worker.state is State.READY else worker.state.value
            workers.append(
                WorkerStatus(
                    slot=worker.slot,
                    pid=worker.pid,
                    generation=worker.generation,
                    state=state,
                    requests=requests,
                    age=round(now - child.born, 3) if child else 0.0,
                )
            )
        return ServerStatus(
            name=self._name,
            pid=os.getpid(),
            version=__version__,
            generation=self._reloads.serving.number,
            uptime=round(now - self._born, 3),
            listeners=[listener.name for listener in self._reloads.serving.listeners],
            target=self._pool.target,
            bounds=PoolBounds(min=bounds.min, max=bounds.max, spare=bounds.spare)
            if bounds
            else None,
            reloading=self._pool.rollout is not None,
            workers=workers,
        )


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4)): it sends WINCH on resize.

    True, too, where it can't be told for want of descriptors: workers rather stay than go.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return True
