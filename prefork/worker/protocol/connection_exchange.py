"""What has a connection while an application does: one request, or another protocol.

A worker with an event loop turns the events of a connection over to its exchange, from the moment
at which a request is read until the response is complete (prefork.worker.service.asgi_call), or
until the end of the connection if the request was for another protocol (RFC 9110 section 7.8).
"""

from typing import Protocol

from prefork.worker.protocol.connection_state import ConnectionState


class Exchange(Protocol):
    """The side of the application, as its connection sees it."""

    @property
    def state(self) -> ConnectionState:
        """CALL, RECEIVE or SEND; UPGRADED for another protocol."""

    @property
    def events(self) -> int:
        """The events of epoll(7) that it waits for, beside the end of what the client sends; 0 for
        none."""

    def deadline(self, now: float) -> float:
        """Monotonic seconds at which `overdue` is to be called, 0 for never; asked for in the state
        UPGRADED only, since the table knows the others."""

    def ready(self, now: float) -> bool:
        """The socket is ready: to be read, or to be written to.

        Returns whether the connection is sure to wait for the same as before.
        """

    def client_left(self) -> None:
        """The client has sent its last byte, or (`broken`) the connection is lost."""

    def overdue(self, now: float) -> None:
        """The deadline has passed."""

    def stop(self, by: float, *, reload: bool) -> None:
        """The worker is on its way out; the exchange should be over at `by`, in monotonic seconds.

        `reload`: other workers go on with the service."""
