"""Upgrade in place (USR2): new interpreter, new code, the same process and the same sockets.

An upgrade is a transaction around an exec(2) of the master.  A child of the new code tries
everything first (prefork.master.upgrade.preflight), while the loop goes on.  If it has passed, the
master executes the new code, which takes over listeners, workers and clients, and then replaces the
workers by an ordinary reload.  A failure before that leaves everything as it was.

There is one transaction at a time.  An upgrade waits until the canary of a reload under way is
ready or has failed; a second upgrade comes after the first.  A reload that comes during a preflight
waits for it: the upgrade, if it passes, loads everything anew, and the reload is answered with it.
"""

import selectors
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct, field

from prefork import __version__, logs
from prefork.master.control_server import ControlServer, Reply
from prefork.master.periodic import Periodic
from prefork.master.rollout.reload import ReloadClient
from prefork.master.snapshot import SnapshotError, WaitingClientsSnapshot
from prefork.master.upgrade.exec import MasterParts, directory_of, execute, snapshot
from prefork.master.upgrade.preflight import Preflight


class WaitingClients(Struct):
    """All clients that wait for one generation: after an upgrade, one reload answers them all."""

    was: str = ""
    """The version before the upgrade."""
    upgrades: list[Reply] = field(default_factory=list)
    reloads: list[Reply] = field(default_factory=list)

    def ok(self, **fields: Any) -> None:
        for reply in self.reloads:
            reply.ok(**fields)
        for reply in self.upgrades:
            reply.ok(**fields, was=self.was, version=__version__)

    def fail(self, error: str, **fields: Any) -> None:
        for reply in (*self.reloads, *self.upgrades):
            reply.fail(error, **fields)

    def add(self, waiting: ReloadClient) -> None:
        """Another client waits for the same generation from now on."""
        if isinstance(waiting, WaitingClients):
            self.upgrades += waiting.upgrades
            self.reloads += waiting.reloads
        elif isinstance(waiting, Reply):
            self.reloads.append(waiting)


class Upgrades(Periodic):
    """The upgrade under way, and the one that was requested next."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        parts: MasterParts,
        reload: Callable[[ReloadClient], None],
        execute: Callable[[], None],
    ) -> None:
        """`reload` is called for one that waited for an upgrade that failed, and `execute` once
        everything is ready for `replace`."""
        self._selector = selector
        self._parts = parts
        self._reload = reload
        self._execute = execute
        self._clients = WaitingClients()
        self._preflight: Preflight | None = None
        self._reload_wanted = False
        self._again = False
        self._next: list[Reply] = []

    # Requests.

    def request(self, client: Reply | None = None) -> None:
        """An upgrade begins with the next `run` that can."""
        self._again = True
        if client is not None:
            self._next.append(client)
            if self._preflight is not None or not self._parts.pool.between_transactions:
                client.progress("waits for the reload or upgrade under way")

    def defer(self, waiting: ReloadClient | None) -> bool:
        """Whether a reload has to wait for the preflight under way; it is then kept here."""
        if self._preflight is None:
            return False
        self._reload_wanted = True
        if isinstance(waiting, Reply):
            waiting.progress("waits for the upgrade under way")
        if waiting is not None:
            self._clients.add(waiting)
        return True

    def cancel(self, reason: str) -> None:
        """The server stops, or all workers were withdrawn: no upgrade is wanted any more."""
        if self._preflight is not None:
            self._parts.ledger.upgraded("failed")
            logs.event("error", "upgrade failed", reason=reason)
            self._end()
        self._clients.fail(reason)
        for reply in self._next:
            reply.fail(reason)
        self._clients, self._next = WaitingClients(), []
        self._again = self._reload_wanted = False

    # The transaction.

    def run(self, now: float) -> None:
        """Begins or ends a preflight; and if one has passed, this code does not come back."""
        if self._preflight is not None:
            self._preflight.expire(now)
            if self._preflight.failure is not None:
                self._fail(self._preflight.failure)
        if self._preflight is None and self._again and self._parts.pool.between_transactions:
            self._begin()
        if self.passed:
            self._execute()

    @property
    def trying(self) -> bool:
        """Whether a preflight is under way."""
        return self._preflight is not None

    @property
    def passed(self) -> bool:
        """Whether everything is ready for `replace`."""
        tried = self._preflight is not None and self._preflight.opened is not None
        return tried and self._parts.pool.between_transactions

    def replace(self, mask: Iterable[int]) -> None:
        """Executes the new code, with all signals blocked; returns only if that failed.

        `mask`: the signals that were blocked before.
        """
        assert self._preflight is not None
        try:
            directory = directory_of(self._parts.reloads.source)
            state = snapshot(
                self._parts, self._preflight.opened or (), self._clients_snapshot(), map(int, mask)
            )
            logs.event("info", "executing the new code", version=self._preflight.version)
            execute(state, directory)
        except (OSError, SnapshotError) as error:
            self._fail(f"the new code cannot be executed: {error}")

    @property
    def due(self) -> float | None:
        """The deadline of the preflight."""
        return self._preflight.deadline if self._preflight is not None else None

    def overslept(self, seconds: float) -> None:
        """The preflight slept too."""
        if self._preflight is not None and self._preflight.deadline is not None:
            self._preflight.deadline += seconds

    def descriptors(self) -> list[int]:
        """All that are open here, for a forked child to close."""
        return self._preflight.descriptors() if self._preflight is not None else []

    def _begin(self) -> None:
        self._again = False
        self._clients = WaitingClients(__version__, self._next)
        self._next = []
        reloads = self._parts.reloads
        try:
            self._preflight = Preflight(
                self._selector,
                snapshot(self._parts),
                directory_of(reloads.source),
                reloads.serving.config.workers.boot_timeout,
            )
        except (OSError, SnapshotError) as error:
            return self._fail(f"the preflight cannot be started: {error}")
        logs.event("info", "upgrade started", preflight=self._preflight.pid)

    def _fail(self, reason: str) -> None:
        self._end()
        self._parts.ledger.upgraded("failed")
        logs.event("error", "upgrade failed", reason=reason)
        clients, self._clients = self._clients, WaitingClients()
        serving = self._parts.reloads.serving.number
        WaitingClients(upgrades=clients.upgrades).fail(reason, serving=serving)
        if self._reload_wanted:
            self._reload_wanted = False
            self._reload(WaitingClients(reloads=clients.reloads))

    def _end(self) -> None:
        if self._preflight is not None:
            self._preflight.close()
            self._preflight = None

    # Over the exec.

    def _clients_snapshot(self) -> WaitingClientsSnapshot:
        everybody = WaitingClients()
        # A client that waits for a rollout that has not settled waits for the next one.
        for waiting in (self._clients, *self._parts.reloads.waiting):
            everybody.add(waiting)
        return WaitingClientsSnapshot(
            upgrades=_numbers(everybody.upgrades),
            reloads=_numbers(everybody.reloads),
            again=self._again,
            next=_numbers(self._next),
        )

    def resume(
        self, state: WaitingClientsSnapshot, control: ControlServer, was: str
    ) -> WaitingClients:
        """Finds the clients again in the new master; returns those that wait for its first
        generation."""
        self._again = state.again
        self._next = _replies(control, state.next)
        return WaitingClients(
            was, _replies(control, state.upgrades), _replies(control, state.reloads)
        )


def _numbers(replies: Iterable[Reply]) -> tuple[int, ...]:
    """The descriptors of the connections that are still open."""
    return tuple(number for reply in replies if (number := reply.fileno()) >= 0)


def _replies(control: ControlServer, numbers: Iterable[int]) -> list[Reply]:
    return [reply for number in numbers if (reply := control.reply(number)) is not None]
