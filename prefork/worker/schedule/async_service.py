"""What the event loop of a worker needs of a service."""

from collections.abc import Callable
from typing import Protocol

from prefork.worker.schedule.service_interface import Service


class AsyncService(Service, Protocol):
    """A service whose calls go on between two turns: prefork.worker.service.asgi_service."""

    changed: Callable[[], None]
    """Set by the loop: to be called when something has happened outside of a turn."""

    @property
    def held(self) -> int:
        """Open connections."""

    async def shut_down(self) -> None:
        """The last call has ended: the application shuts down."""

    @property
    def calls(self) -> int:
        """Calls whose task runs."""
