"""Reload as a transaction: a generation is prepared and tried, and then stays or is dropped.

A failure before its first worker is ready leaves everything as it was.  A reload that comes during
another supersedes it.
"""

from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct

from prefork import logs, system_errors
from prefork.apps import given_application
from prefork.config import ConfigError, Source, changes, sandbox
from prefork.listeners import Listener, ListenError
from prefork.master.periodic import Periodic
from prefork.master.pidfile import PidFile, PidFileError
from prefork.master.pool.ledger import Ledger, Result
from prefork.master.processes.generation import Generation, prepare, renew

_GIVEN = (
    "the application was given as an object, so its code stays as it is: `prefork upgrade` renews"
    " it, or serve it by name"
)


class ReloadClient(Protocol):
    """A client of the control socket that waits for the end of a reload."""

    def ok(self, **fields: object) -> None: ...

    def fail(self, error: str, **fields: object) -> None: ...


class _UnderWay(Struct):
    generation: Generation
    changed: list[str]
    waiting: ReloadClient | None


class Reloads(Periodic):
    """The generation that serves, those under way, and the listeners of all of them."""

    def __init__(
        self,
        source: Source,
        log: logs.Logs,
        pidfile: PidFile,
        first: Generation,
        ledger: Ledger,
    ) -> None:
        self._source = source
        self._log = log
        self.pidfile = pidfile
        self.begun = 0
        """The number of reloads so far, also of those that failed at once."""
        self._first = self._number = first.number
        self._under_way = {first.number: _UnderWay(first, [], None)}
        self._held = first.held
        self.serving = first
        """The generation whose configuration is in force."""
        self._ledger = ledger

    @classmethod
    def resume(
        cls,
        source: Source,
        log: logs.Logs,
        pidfile: PidFile,
        serving: Generation,
        ledger: Ledger,
        held: Iterable[Listener],
        number: int,
    ) -> "Reloads":
        """The reloads after an exec; `number` is that of the newest generation so far."""
        reloads = cls(source, log, pidfile, serving, ledger)
        reloads._under_way.clear()
        reloads._held = list(held)
        reloads._number = number
        return reloads

    @property
    def source(self) -> Source:
        return self._source

    @property
    def number(self) -> int:
        """The number of the newest generation so far."""
        return self._number

    @property
    def under_way(self) -> bool:
        """Whether a generation is on trial, or its predecessor's workers still accept."""
        return bool(self._under_way)

    @property
    def waiting(self) -> list[ReloadClient]:
        """The clients that wait for a rollout under way."""
        return [each.waiting for each in self._under_way.values() if each.waiting is not None]

    @property
    def held(self) -> list[Listener]:
        """All listeners that the master has open."""
        return list(self._held)

    def find(self, number: int) -> Generation:
        """The generation of a worker that is to be forked."""
        if number == self.serving.number:
            return self.serving
        return self._under_way[number].generation

    def begin(
        self, waiting: ReloadClient | None = None, *, same: bool = False
    ) -> Generation | None:
        """Reads the configuration and opens the listeners that it adds; None if that failed.

        same: keeps the configuration; only listeners whose file was lost are opened anew.
        """
        self.begun += 1
        number = self._number + 1
        cause = {"reason": "the file of a listener was lost"} if same else {}
        logs.event("info", "reload started", generation=number, **cause)
        generation = None
        try:
            generation = (
                renew(self.serving, number, self._held)
                if same
                else prepare(self._source, number, self._held)
            )
            self.pidfile.prepare(generation.config.process.pidfile)
            self._log.prepare(generation.config.log)
        except (ConfigError, ListenError, PidFileError, logs.LogError, OSError) as error:
            reason = system_errors.explain(error) if isinstance(error, OSError) else str(error)
            self._ledger.reloaded("failed")
            logs.event("error", "reload failed", generation=number, reason=reason)
            if generation is not None:
                self._release(set(generation.held) - set(self._held))
            if waiting is not None:
                waiting.fail(reason, serving=self.serving.number)
            return None
        self._number = number
        for listener in generation.held:
            if listener not in self._held:
                logs.event("info", "listening", address=listener.name)
                self._held.append(listener)
        changed = changes(self.serving.config, generation.config)
        if generation.config.server.app == given_application.NAME:
            logs.event("warning", "application not renewed", generation=number, reason=_GIVEN)
            changed.append(_GIVEN)
        self._under_way[number] = _UnderWay(generation, changed, waiting)
        return generation

    def commit(self, number: int) -> None:
        """The first worker of a generation is ready: from here on this generation serves."""
        if number == self.serving.number:
            return
        self.serving = self._under_way[number].generation
        self._log.reconfigure(self.serving.config.log)
        self.pidfile.commit()
        for listener in self.serving.listeners:
            try:
                listener.apply(self.serving.options)
            except ListenError as error:
                logs.event("error", "listener not adjusted", reason=str(error))

    def let_workers_block(self) -> None:
        """Makes the listeners blocking again after a generation with event loops, whose workers
        made them non-blocking: that flag is the same in all processes (open(2)).

        Not before its last worker has stopped to accept: it would block its event loop.
        """
        for listener in self.serving.listeners:
            listener.sock.setblocking(True)

    def settled(self, number: int) -> None:
        """All workers of a generation are ready, and no older one accepts any more."""
        done = self._under_way.pop(number, None)
        if done is None:
            return
        if number != self._first:
            self._ledger.reloaded("success")
        logs.event("info", "generation settled", generation=number, changes=len(done.changed))
        for key, reason in sandbox.missing(done.generation.config.process).items():
            logs.event("warning", "sandbox incomplete", key=key, reason=reason)
        if done.waiting is not None:
            done.waiting.ok(generation=number, changes=done.changed)

    def stalled(self, number: int, reason: str) -> None:
        """A generation serves beside the one before it, and its other workers fail to boot."""
        stuck = self._under_way.get(number)
        if stuck is None:
            return
        if number != self._first:  # that one is no reload, and each failure is logged by itself
            logs.event("error", "reload stalled", generation=number, reason=reason)
        if stuck.waiting is not None:
            stuck.waiting.fail(
                f"generation {number} serves beside the one before it, but its other workers fail;"
                f" they are tried again\n{reason}"
            )
            stuck.waiting = None

    def failed(
        self, number: int, reason: str, result: Result = "failed", serves_on: bool = True
    ) -> None:
        """A generation was abandoned, or superseded by another.

        serves_on: the server goes on with the one that serves; it does not stop."""
        lost = self._under_way.pop(number, None)
        if lost is None:
            return
        if not self._under_way:
            self.pidfile.prepare(self.serving.config.process.pidfile)
        if number != self._first:  # that one is no reload: it was stopped as it began
            self._ledger.reloaded(result)
            logs.event("error", "reload failed", generation=number, reason=reason)
        if lost.waiting is not None:
            lost.waiting.fail(reason, **({"serving": self.serving.number} if serves_on else {}))

    def descriptors(self) -> list[int]:
        """Of all listeners, and of the pidfile."""
        return [*(each.fileno() for each in self._held), *self.pidfile.descriptors()]

    def close(self) -> None:
        """Removes the pidfile and the sockets in the file system."""
        self.pidfile.close()
        for listener in self._held:
            listener.close(unlink=True)

    # Listeners.

    def in_use(self, living: Iterable[Generation]) -> set[Listener]:
        """The listeners of the `living` generations, the serving one and those under way."""
        ours = [self.serving, *(each.generation for each in self._under_way.values())]
        metrics = {each.metrics for each in ours if each.metrics is not None}
        listening = (listener for each in (*living, *ours) for listener in each.listeners)
        return {*listening, *metrics}

    def close_unused(self, in_use: set[Listener]) -> None:
        """Closes all other listeners here; the workers that drain them keep theirs open."""
        gone = [listener for listener in self._held if listener not in in_use]
        if gone:
            self._held = [listener for listener in self._held if listener in in_use]
            self._release(gone)

    def _release(self, listeners: Iterable[Listener]) -> None:
        for listener in listeners:
            logs.event("info", "listener closed", address=listener.name)
            listener.release()
