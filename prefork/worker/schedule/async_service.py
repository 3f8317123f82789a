"""What the event loop of a worker needs of a service."""

from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

from prefork.worker.schedule.service_interface import Service


class AsyncService(Service, Protocol):
    """A service whose calls go on between two turns: prefork.worker.service.asgi_service."""

    changed: Callable[[], None]
    """Set by the loop: to be called when something has happened outside of a turn."""

    @property
    def held(self) -> int:
        """Open connections."""

    @property
    def bounded(self) -> bool:
        """There is a bound for the calls at a time: it is always False, or always True."""

    @property
    def full(self) -> bool:
        """There are as many calls as there may be: no further request is read."""

    @property
    def holds_back(self) -> bool:
        """There are connections that were held back."""

    def release_held_back(self) -> None:
        """Reads of connections that were held back as many as there is room for."""

    @property
    def look_every(self) -> float:
        """Seconds from one call of `expire_late` to the next, while calls run."""

    def expire_late(self, now: float) -> None:
        """Gives up the calls that take too long."""

    def shut_down(self) -> Coroutine[Any, Any, object]:
        """The last call has ended: the application shuts down."""

    def quit(self) -> Coroutine[Any, Any, None]:
        """The server stops at once: calls are cancelled, and the application shuts down."""

    @property
    def calls(self) -> Collection[object]:
        """Calls whose task runs."""
