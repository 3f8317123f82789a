"""The operations on a running server: stop, reload, upgrade, scale; new log files.

A signal (`signals`), a command on the control socket (`control_commands`) or a changed file asks
for one.  An operation that takes time goes on in the `run` of a part of the master.
"""

import selectors
import signal
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

from prefork import logs
from prefork.master.control_server import ControlServer, Reply
from prefork.master.observe.lost_files import LostFiles
from prefork.master.periodic import Periodic
from prefork.master.processes.log_reopening import LogReopening
from prefork.master.rollout.reload import ReloadClient
from prefork.master.snapshot import WaitingClientsSnapshot
from prefork.master.upgrade.exec import MasterParts
from prefork.master.upgrade.upgrade import Upgrades

if TYPE_CHECKING:
    from prefork.master.rollout.file_watcher import FileWatcher


class Operations(Periodic):
    """Starts operations, or refuses them; begins a graceful stop after `workers.drain_delay`."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        parts: MasterParts,
        log: logs.Logs,
        take_signals: Callable[[], None],
        *,
        watch: bool,
    ) -> None:
        """`take_signals`: handles the signals that have arrived by now.
        `watch`: reload whenever a file of the application or the configuration changes."""
        self._parts = parts
        self._pool = parts.pool
        self._reloads = parts.reloads
        self.reopening = LogReopening(log, parts.children, parts.zygotes, parts.log_writer)
        self._take_signals = take_signals
        self._stopping = False
        self._stop_at: float | None = None
        self.upgrades = Upgrades(selector, parts, self.reload, self._execute)
        self.files = LostFiles(selector, parts, self.renew_listeners)
        self._watcher: FileWatcher | None = None
        if watch:
            from prefork.master.rollout import file_watcher

            name = parts.reloads.serving.config.server.name
            self._watcher = file_watcher.FileWatcher(selector, name, lambda: self.reload(None))

    def watch_files(self) -> None:
        """Watches the files of the serving generation; to be called when that has changed."""
        if self._watcher is not None:
            self._watcher.follow(self._reloads.serving.loaded)

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()

    def descriptors(self) -> Iterable[int]:
        return self._watcher.descriptors() if self._watcher is not None else ()

    # Stop.

    def stop(self, now: float) -> None:
        """Stops the server gracefully; a second call stops it at once.

        The workers serve on for `workers.drain_delay`, in which load balancers choose other
        servers.
        """
        delay = self._reloads.serving.config.workers.drain_delay
        if self._stopping:
            self._pool.stop(now, graceful=False)
        elif delay:
            logs.event("info", "draining", seconds=delay)
            self._parts.scoreboard.draining = True
            self._stop_at = now + delay
        else:
            self._begin_stop(now)
        self._stopping = True
        self.upgrades.cancel("the server is stopping")

    def ensure_stop(self) -> None:
        """Stops the server gracefully, unless a stop is under way."""
        if not self._stopping:
            self.stop(monotonic())

    def quit(self, now: float) -> None:
        """Stops the server at once."""
        self._pool.stop(now, graceful=False)
        self.upgrades.cancel("the server is stopping")

    @property
    def due(self) -> float | None:
        """The end of `workers.drain_delay`."""
        return self._stop_at

    def run(self, now: float) -> None:
        """Begins the graceful stop that is due."""
        if self._stop_at is not None and now >= self._stop_at:
            self._begin_stop(now)

    def _begin_stop(self, now: float) -> None:
        self._parts.scoreboard.draining = True
        self._stop_at = None
        self._pool.stop(now, graceful=True)

    # Reload and upgrade.

    def reload(self, client: ReloadClient | None) -> None:
        """Begins a reload; `client` gets its result."""
        if self._stopping:
            if client is not None:
                client.fail("the server is stopping")
            return
        self.files.look(attempt=True)
        if self.upgrades.defer(client):
            return
        generation = self._reloads.begin(client)
        if generation is not None:
            self._pool.start(generation.number, generation.settings)

    def renew_listeners(self) -> None:
        """Begins to replace listeners that have lost their file, if nothing else is under way."""
        free = self._pool.between_transactions and not self._reloads.under_way
        if free and not (self._stopping or self.upgrades.trying or self._pool.withdrawn):
            generation = self._reloads.begin(same=True)
            if generation is not None:
                self._pool.start(generation.number, generation.settings)

    def upgrade(self, client: Reply | None = None) -> None:
        """Begins an upgrade as soon as no reload or upgrade is under way; `client` gets its
        result."""
        if not (self._stopping or self._pool.stopping):
            self.files.look(attempt=True)
            self.upgrades.request(client)
        elif client is not None:
            client.fail("the server is stopping")

    def _execute(self) -> None:
        """Executes the new code, unless a signal that has arrived meanwhile cancels the upgrade."""
        # The kernel keeps later signals until the new code unblocks them.
        old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._take_signals()
        # The new code would not know who waits for new log files.
        if self.upgrades.passed and not self.reopening.under_way:
            if self._watcher is not None:
                self._watcher.close()  # it reports changes through a pipe of this process
            self.upgrades.replace(old)
            self.watch_files()
        signal.pthread_sigmask(signal.SIG_SETMASK, old)

    def resume(self, clients: WaitingClientsSnapshot, control: ControlServer, was: str) -> None:
        """After an exec: replaces the workers as any reload does, and answers waiting clients.

        was: the version of prefork before.
        """
        self.reload(self.upgrades.resume(clients, control, was))
        self._pool.carry_over_size()

    # The number of workers.

    def scale(self, count: int) -> int:
        """Sets the number of workers until the next reload; returns it.

        Raises ValueError with the reason if that is not possible.
        """
        self._pool.scale(count)
        return self._pool.target

    def grow(self, by: int) -> None:
        """Changes the number of workers until the next reload."""
        self._pool.grow(by)

    def withdraw(self) -> None:
        """Retires all workers and keeps the sockets; a reload brings workers back."""
        self._pool.withdraw()
        self.upgrades.cancel("all workers were withdrawn")
