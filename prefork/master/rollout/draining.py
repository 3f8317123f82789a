"""The end of a listener, without a lost connection.

A connection that comes between the last accept(2) and the close is reset.  So new ones have to be
kept away first: the kernel drops the SYN of new handshakes (the client's kernel tries again a
second later, and may find another listener), the workers accept and serve on while handshakes are
under way, and only then they drain the queue until it is empty, and the socket is closed.

A Unix socket has no handshake: shutting it for reading refuses new connects and keeps the queue.
"""

import errno
import socket
from collections.abc import Iterable

from prefork import linux, logs
from prefork.listeners import Listener
from prefork.master.processes.generation import Generation

HANDSHAKES = 8.0
"""Seconds for handshakes under way: their SYN-ACK timer fires after 1, 3 and 7 s (tcp(7))."""

_UNFILTERED = 1.0
"""Seconds without the filter, when new ones never stop coming: the first of these timers."""


class Drain:
    """A listener that no worker will serve any more."""

    def __init__(self, listener: Listener, now: float, graceful_timeout: float) -> None:
        """From here on no new handshake starts, if this process has the right to filter them.

        `graceful_timeout`: seconds for all of the stop, 0 for no limit.
        """
        self._listener = listener
        self._closed = False
        patience = 0.0
        if listener.is_tcp:
            patience = HANDSHAKES if self._refuse_handshakes() else _UNFILTERED
            # Connections that wait in the kernel for their first byte come into the queue as well.
            listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
        self._began = now
        self._deadline = now + (min(patience, graceful_timeout) if graceful_timeout else patience)

    def _refuse_handshakes(self) -> bool:
        try:
            linux.drop_new_handshakes(self._listener.sock)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            logs.event(
                "warning",
                "listener drained without a filter",
                address=self._listener.name,
                reason="no CAP_NET_ADMIN: a connection that comes at the very end may be reset",
            )
            return False
        return True

    def finish(self, now: float) -> bool:
        """Whether the queue may be drained until it is empty: no handshake is under way.

        From then on, an accept on the empty queue does not block, in any process.
        """
        if not self._closed:
            if now < self._deadline and self._under_way(now):
                return False
            self._closed = True
            if self._listener.is_tcp:
                self._listener.sock.setblocking(False)
            else:
                self._listener.sock.shutdown(socket.SHUT_RD)
        return True

    def _under_way(self, now: float) -> bool:
        try:
            return linux.handshakes_under_way(self._listener.sock)
        except OSError:  # unknown: wait as long as without the filter
            return now < self._began + _UNFILTERED


class Drains:
    """All listeners that are being drained."""

    def __init__(self) -> None:
        self._drains: dict[Listener, Drain] = {}

    def __contains__(self, listener: Listener) -> bool:
        return listener in self._drains

    def drain(self, listener: Listener, now: float, graceful_timeout: float) -> bool:
        """Begins to drain a listener, unless that was done; returns what `Drain.finish` does.

        The arguments are those of `Drain`.
        """
        if listener not in self._drains:
            self._drains[listener] = Drain(listener, now, graceful_timeout)
        return self._drains[listener].finish(now)

    def under_way(self, now: float) -> set[Listener]:
        """The listeners on which handshakes are still under way."""
        return {listener for listener, drain in self._drains.items() if not drain.finish(now)}

    def forget(self, generations: Iterable[Generation], now: float) -> None:
        """Forgets the listeners that are drained and belong to none of these generations."""
        if self._drains:
            known = {listener for each in generations for listener in each.listeners}
            kept = known | self.under_way(now)
            self._drains = {each: drain for each, drain in self._drains.items() if each in kept}
