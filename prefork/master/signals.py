"""What an operator asks for, by signal, over the control socket or by a file that has changed.

Signal handlers do nothing: the interpreter writes each signal's number into a pipe
(signal.set_wakeup_fd), and it is obeyed when the loop reads it there.
"""

import contextlib
import errno
import os
import selectors
import signal
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING

from prefork import channel, control, logs
from prefork.master.control_server import ControlServer, Reply
from prefork.master.observe.recycler import recycle
from prefork.master.observe.status_report import status
from prefork.master.periodic import Periodic
from prefork.master.processes.children import Child
from prefork.master.rollout.reload import ReloadClient
from prefork.master.snapshot import WaitingClientsSnapshot
from prefork.master.upgrade.exec import MasterParts
from prefork.master.upgrade.upgrade import Upgrades

if TYPE_CHECKING:
    from prefork.master.rollout.file_watcher import FileWatcher

_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1),
    *(signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGCHLD),
)


class Commands(Periodic):
    """Obeys, or says why not; a stop that has to wait for its time is begun by `run`."""

    def __init__(
        self, selector: selectors.BaseSelector, parts: MasterParts, log: logs.Logs, *, watch: bool
    ) -> None:
        """`watch`: reload whenever a file of the application or the configuration changes."""
        self._parts = parts
        self._pool = parts.pool
        self._reloads = parts.reloads
        self._log = log
        self._stopping = False
        self._stop_at: float | None = None
        self.upgrades = Upgrades(selector, parts, self.reload, self._execute)
        self._signals, self._signal_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        selector.register(self._signals, selectors.EVENT_READ, self._take_signals)
        self._watcher: FileWatcher | None = None
        if watch:
            from prefork.master.rollout import file_watcher as files

            name = parts.reloads.serving.config.server.name
            self._watcher = files.FileWatcher(selector, name, lambda: self.reload(None))

    def listen(self) -> None:
        """From now on, signals are heard."""
        signal.set_wakeup_fd(self._signal_writer, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        self.follow()

    def follow(self) -> None:
        """The generation that serves has changed: its files are the ones to watch."""
        if self._watcher is not None:
            self._watcher.follow(self._reloads.serving.loaded)

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()

    def descriptors(self) -> Iterable[int]:
        """All that are open here, for a forked child to close."""
        return (
            *(self._signals, self._signal_writer),
            *(self._watcher.descriptors() if self._watcher is not None else ()),
        )

    # What takes longer.

    @property
    def due(self) -> float | None:
        """When the workers are to stop, after the delay in which balancers go elsewhere."""
        return self._stop_at

    def run(self, now: float) -> None:
        """Begins the stop that is due."""
        if self._stop_at is not None and now >= self._stop_at:
            self._stop_now(now)

    def _execute(self) -> None:
        """Goes over to the new code, unless a signal that came meanwhile cancels that."""
        # Those still to come are kept by the kernel until the new code unblocks them.
        old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._take_signals(0)
        if self.upgrades.passed:
            if self._watcher is not None:
                self._watcher.close()  # it reports changes through a pipe of ours
            self.upgrades.replace(old)
            self.follow()
        signal.pthread_sigmask(signal.SIG_SETMASK, old)

    def resume(self, clients: WaitingClientsSnapshot, control: ControlServer, was: str) -> None:
        """After an exec: replaces what runs, as any reload does, and answers whoever waits."""
        self.reload(self.upgrades.resume(clients, control, was))
        self._pool.carry_over_size()

    # Signals.

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
                self.stop(now)
            case signal.SIGINT | signal.SIGQUIT:
                self._pool.stop(now, graceful=False)
                self.upgrades.cancel("the server is stopping")
            case signal.SIGHUP:
                self.reload(None)
            case signal.SIGUSR1:
                self._reopen()
            case signal.SIGTTIN:
                self._pool.grow(1)
            case signal.SIGTTOU:
                self._pool.grow(-1)
            case signal.SIGWINCH if not _has_terminal():
                self._pool.withdraw()
                self.upgrades.cancel("all workers were withdrawn")
            case signal.SIGUSR2:
                self._ask_for_upgrade()

    # Commands.

    def obey(self, request: control.Command, reply: Reply) -> None:
        """Does what a control client asks for; the answer comes now or later."""
        match request:
            case control.StatusCommand():
                reply.ok(**status(self._parts))
            case control.RetireCommand(slot):
                self._retire(slot, reply)
            case control.StackCommand(slot):
                self._stack(slot, reply)
            case control.ReloadCommand():
                self.reload(reply)
            case control.UpgradeCommand():
                self._ask_for_upgrade(reply)
            case control.ReopenCommand():
                problem = self._reopen()
                reply.fail(problem) if problem else reply.ok()
            case control.ScaleCommand(count):
                try:
                    self._pool.scale(count)
                except ValueError as error:
                    reply.fail(str(error))
                else:
                    reply.ok(target=self._pool.target)
            case control.StopCommand():
                if not self._stopping:
                    self.stop(monotonic())
                reply.ok_until_exit()

    def _worker(self, slot: int) -> Child:
        """Raises ControlError."""
        children = self._parts.children
        for child in children:
            if child.slot == slot:
                return child
        slots = ", ".join(map(str, sorted(child.slot for child in children))) or "none"
        raise control.ControlError(f"no worker has slot {slot}; there are {slots}")

    def _retire(self, slot: int, reply: Reply) -> None:
        child = self._worker(slot)
        if recycle(self._pool, self._parts.ledger, child, "by_hand", "by hand"):
            reply.ok()
        else:
            reply.fail(f"the worker in slot {slot} is not one that serves, or leaves already")

    def _stack(self, slot: int, reply: Reply) -> None:
        child = self._worker(slot)

        def answer(stack: str) -> None:
            if stack:
                reply.ok(pid=child.pid, stack=stack)
            else:
                why = "is it stopped, or waiting for a disk?"
                reply.fail(f"worker {child.pid} has not written its stacks: {why}")

        self._parts.children.stacks.request(child, answer)

    def stop(self, now: float) -> None:
        """Gracefully the first time, after the delay in which balancers go elsewhere; then now."""
        delay = self._reloads.serving.config.workers.drain_delay
        if self._stopping:
            self._pool.stop(now, graceful=False)
        elif delay:
            logs.event("info", "draining", seconds=delay)
            self._parts.scoreboard.draining = True
            self._stop_at = now + delay
        else:
            self._stop_now(now)
        self._stopping = True
        self.upgrades.cancel("the server is stopping")

    def _stop_now(self, now: float) -> None:
        self._parts.scoreboard.draining = True
        self._stop_at = None
        self._pool.stop(now, graceful=True)

    def reload(self, waiting: ReloadClient | None) -> None:
        if self._stopping:
            if waiting is not None:
                waiting.fail("the server is stopping")
            return
        if self.upgrades.defer(waiting):
            return
        generation = self._reloads.begin(waiting)
        if generation is not None:
            self._pool.start(generation.number, generation.settings)

    def _ask_for_upgrade(self, client: Reply | None = None) -> None:
        if not (self._stopping or self._pool.stopping):
            self.upgrades.request(client)
        elif client is not None:
            client.fail("the server is stopping")

    def _reopen(self) -> str | None:
        """New files in place of those that were moved away, here and in all workers.

        Returns why that can't be; the files so far then stay in use.
        """
        try:
            paths, fds = self._log.reopen()
        except logs.LogError as error:
            logs.event("error", "log files not reopened", reason=str(error))
            return str(error)
        for child in self._parts.children:
            if fds:
                self._parts.children.send(child, channel.ReopenOrder(paths), fds)
        if fds:
            self._parts.zygotes.reopen(paths, fds)
        logs.event("info", "log files reopened")
        return None


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4)): it sends WINCH on resize.

    True, too, where it can't be told for want of descriptors: workers rather stay than go.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return True
