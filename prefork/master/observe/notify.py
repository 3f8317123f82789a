"""Notifies systemd, and the shell that started a daemon, of the state of the server.

No event calls this.  Each round of the loop compares the state with what was sent last, so nothing
is sent twice or forgotten, and the rounds themselves feed the watchdog.
"""

import os
from collections.abc import Mapping
from time import CLOCK_MONOTONIC, clock_gettime_ns

from msgspec import Struct

from prefork import logs
from prefork.master.daemon import Starter
from prefork.master.periodic import Periodic
from prefork.master.pool.plan import WorkerState
from prefork.master.upgrade.exec import MasterParts
from prefork.master.upgrade.upgrade import Upgrades
from prefork.quantity import quantity
from prefork.systemd import Notifier, watchdog_interval

_STATUS_EVERY = 10.0
"""Seconds between two updates of the figures in STATUS=, if nothing else is sent."""

_EXTENSION = 30.0
"""Seconds by which a start, a reload or a stop extends its time.  The server's own limits end each
of them (boot_timeout, graceful_timeout), so it extends again for as long as the loop runs."""

_EXTEND_EVERY = 10.0


class _Figures(Struct, frozen=True):
    """What STATUS= shows."""

    generation: int
    target: int
    ready: int
    busy: int
    rate: float

    def __str__(self) -> str:
        return (
            f"generation {self.generation}, {self.ready} of {quantity(self.target, 'worker')}"
            f" ready, {self.busy} busy, {self.rate:.3g} requests/s"
        )


class Notify(Periodic):
    """What was sent, and what has to be sent next."""

    due: float | None = None

    def __init__(
        self,
        parts: MasterParts,
        upgrades: Upgrades,
        *,
        starter: Starter | None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`starter`: the shell of a daemon."""
        self._parts = parts
        self._upgrades = upgrades
        self._starter = starter
        self._manager: Notifier | None = None
        self._watchdog: float | None = None
        try:
            self._manager = Notifier.from_environment(environ)
            self._watchdog = watchdog_interval(environ, os.getpid())
        except ValueError as error:
            logs.event("warning", "service manager not notified", reason=str(error))
        self._sent = ""
        """The phase that was sent last: READY, RELOADING or STOPPING."""
        self._reloads = parts.reloads.begun
        self._ready_by: float | None = None
        self._fed = self._extended = self._shown = float("-inf")
        self._requests: dict[int, int] = {}

    def descriptors(self) -> list[int]:
        """All that are open here, for a forked child to close."""
        own = [self._manager.fileno()] if self._manager is not None else []
        return [*own, *(self._starter.descriptors() if self._starter is not None else ())]

    def failed(self, status: int, reason: str) -> None:
        """The server never got ready: it ends with this exit status."""
        if self._starter is not None:
            self._starter.failed(status, reason)
        if self._manager is not None:
            last = (reason.splitlines() or [""])[-1]  # a worker may give no reason at all
            self._manager.send(STATUS=f"first boot failed: {logs.printable(last)}")

    def run(self, now: float) -> None:
        """Sends what is new."""
        phase = self._phase(now)
        if phase in ("READY", "RELOADING") and self._starter is not None:
            self._starter.started()
        if self._manager is None:
            # The shell also waits for the last workers of a first generation.
            self.due = None if self._sent else self._ready_by
            self._sent = self._sent or phase
            return
        begun, self._reloads = self._reloads, self._parts.reloads.begun
        if phase == "READY" and self._sent == "READY" and begun != self._reloads:
            self._send("RELOADING", now)  # it began and failed within one round
        if phase != self._sent:
            self._send(phase, now)
        self._repeat(phase, now)

    def _phase(self, now: float) -> str:
        """What sd_notify(3) calls the state of the service; "" while it is starting."""
        pool, reloads = self._parts.pool, self._parts.reloads
        if pool.stopping or self._parts.scoreboard.draining:
            return "STOPPING" if self._sent or pool.ever_ready else ""
        if not self._sent:
            # A worker that cannot boot beside others that serve does not hold up the start.
            if not pool.ever_ready:
                return ""
            boot_timeout = reloads.serving.config.workers.boot_timeout
            self._ready_by = self._ready_by or now + boot_timeout
            return "READY" if not reloads.under_way or now >= self._ready_by else ""
        return "RELOADING" if reloads.under_way or self._upgrades.trying else "READY"

    def _send(self, phase: str, now: float) -> None:
        state: dict[str, str | int] = {phase: 1} if phase else {}
        if phase == "RELOADING":
            state["MONOTONIC_USEC"] = clock_gettime_ns(CLOCK_MONOTONIC) // 1000
        assert self._manager is not None
        if self._manager.send(**state, STATUS=self._status(phase, now)):
            self._sent = phase
            self._shown = now
            self._extended = float("-inf")  # the time for this begins now

    def _repeat(self, phase: str, now: float) -> None:
        """Sends what has to be repeated."""
        assert self._manager is not None
        looks = [self._shown + _STATUS_EVERY]
        if now >= looks[0]:
            self._manager.send(STATUS=self._status(phase, now))
            self._shown = now
            looks = [now + _STATUS_EVERY]
        if phase != "READY":
            if now >= self._extended + _EXTEND_EVERY:
                self._manager.send(EXTEND_TIMEOUT_USEC=int(_EXTENSION * 1e6))
                self._extended = now
            looks.append(self._extended + _EXTEND_EVERY)
        if self._ready_by is not None and not self._sent:
            looks.append(self._ready_by)
        if self._watchdog is not None:
            if now >= self._fed + self._watchdog / 2:
                self._manager.send(WATCHDOG=1)
                self._fed = now
            looks.append(self._fed + self._watchdog / 2)
        self.due = min(looks)

    def _status(self, phase: str, now: float) -> str:
        word = {"": "starting: ", "RELOADING": "reloading: ", "STOPPING": "stopping: "}
        return word.get(phase, "") + str(self._figures(now))

    def _figures(self, now: float) -> _Figures:
        parts = self._parts
        ready = busy = 0
        requests: dict[int, int] = {}
        for child in parts.children:
            calls = parts.children.calls(child)
            requests[child.pid] = parts.children.requests(child)
            ready += child.worker.state is WorkerState.READY
            busy += any(call.started for call in calls)
        # The last requests of a worker that is gone are missing here.
        new = sum(count - self._requests.get(pid, 0) for pid, count in requests.items())
        since, self._requests = self._shown, requests
        return _Figures(
            generation=parts.reloads.serving.number,
            target=parts.pool.target,
            ready=ready,
            busy=busy,
            rate=max(new, 0) / (now - max(since, parts.started_at)) if now > since else 0.0,
        )
