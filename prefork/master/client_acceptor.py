"""The listening side of the sockets that the master itself serves: control and metrics.

The master must not wait for a client, and no client may cost it much.  So accept(2) does not block,
the number of clients is bounded, and each has a deadline.
"""

import selectors
import socket
from collections.abc import Callable
from time import monotonic
from typing import Generic, Protocol, TypeVar

_PAUSE = 1.0
"""Seconds without accept(2) after it failed for want of descriptors or memory."""


class AcceptedClient(Protocol):
    """`deadline`: monotonic seconds until which the client may let the master wait; None while the
    client waits for the master."""

    deadline: float | None

    def close(self) -> None:
        """Closes the connection and removes it from `ClientAcceptor.clients`."""


Client = TypeVar("Client", bound=AcceptedClient)


class ClientAcceptor(Generic[Client]):
    """Accepts on one listening socket and keeps the clients, at most `limit` of them.

    connected: called with each new connection, which does not block.  It adds a client to
        `clients`, after `make_room`, or closes the connection.
    paused: called with the reason when accept(2) fails for want of descriptors or memory; it is
        tried again a second later.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        limit: int,
        connected: Callable[[socket.socket], None],
        paused: Callable[[str | None], None],
    ) -> None:
        self.clients: list[Client] = []
        self._selector = selector
        self._limit = limit
        self._connected = connected
        self._paused = paused
        self._listener: socket.socket | None = None
        self._resume_at: float | None = None

    def listen(self, listener: socket.socket | None) -> None:
        """Accepts from this socket, and no more from the one before.

        The caller closes a socket, after it has called this with another or with None.
        """
        if self._listener is not None and self._resume_at is None:
            self._selector.unregister(self._listener)
        self._listener, self._resume_at = listener, None
        if listener is not None:
            listener.setblocking(False)
            self._watch(listener)

    def make_room(self) -> bool:
        """Whether one more client may be added.

        If there are too many, the one whose deadline comes first is closed.  Clients that wait for
        the master are never closed.
        """
        if len(self.clients) < self._limit:
            return True
        late = [(client.deadline, client) for client in self.clients if client.deadline is not None]
        if late:
            min(late, key=lambda each: each[0])[1].close()
        return bool(late)

    @property
    def due(self) -> float | None:
        """Monotonic seconds at which `run` has something to do."""
        deadlines = [client.deadline for client in self.clients] + [self._resume_at]
        return min((each for each in deadlines if each is not None), default=None)

    def run(self, now: float) -> None:
        """Closes the clients whose deadline has passed, and ends a pause."""
        for client in list(self.clients):
            if client.deadline is not None and client.deadline <= now:
                client.close()
        if self._resume_at is not None and self._resume_at <= now and self._listener is not None:
            self._resume_at = None
            self._watch(self._listener)

    def overslept(self, seconds: float) -> None:
        """Puts all deadlines off: a client may have sent in time what could not be read."""
        for client in self.clients:
            if client.deadline is not None:
                client.deadline += seconds

    def _watch(self, listener: socket.socket) -> None:
        self._selector.register(listener, selectors.EVENT_READ, lambda _: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client hung up before
        except OSError as error:
            # The connection stays in the queue: without a pause it would wake the master at once,
            # again and again.
            self._paused(error.strerror)
            self._selector.unregister(listener)
            self._resume_at = monotonic() + _PAUSE
            return
        sock.setblocking(False)
        self._connected(sock)
