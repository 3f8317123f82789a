"""The end of a listener, without a connection lost.

Between the last accept and the close, a connection that has just come would be reset.  So nothing
new may come first: the kernel is told to drop the SYN of new handshakes (the client's kernel tries
again a second later, against whoever listens then), those under way are waited for while workers
accept and serve on, and only then the queue is drained to empty and the socket closed.

A Unix socket has no handshake: shutting it for reading refuses new connects and keeps the queue.
"""

import errno
import socket
from collections.abc import Iterable

from prefork import linux, logs
from prefork.listeners import Listener
from prefork.master.processes.generation import Generation

HANDSHAKES = 8.0
"""Seconds for handshakes under way: their SYN-ACK timer comes after 1, 3 and 7 s (tcp(7))."""

_UNFILTERED = 1.0
"""Seconds without the filter, where new ones never stop coming: the first of these timers."""


class Drain:
    """One listener that nobody will listen on after us."""

    def __init__(self, listener: Listener, now: float, graceful_timeout: float) -> None:
        """Begins: from here on no new handshake starts, where we have the right to say so.

        `graceful_timeout`: seconds for all of the stop, 0 for no limit.
        """
        self._listener = listener
        self._closed = False
        patience = 0.0
        if listener.is_tcp:
            patience = HANDSHAKES if self._refuse_handshakes() else _UNFILTERED
            # What waited in the kernel for its first byte comes into the queue all the same.
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
        """Whether the queue may be drained to its end: nothing more is under way.

        Once it is, an accept on an empty queue does not wait any more, in any process.
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
        except OSError:  # nobody can tell: as long as without the filter
            return now < self._began + _UNFILTERED


class Drains:
    """The ends of all listeners that nobody will listen on after us."""

    def __init__(self) -> None:
        self._drains: dict[Listener, Drain] = {}

    def __contains__(self, listener: Listener) -> bool:
        return listener in self._drains

    def drain(self, listener: Listener, now: float, graceful_timeout: float) -> bool:
        """Begins a listener's end, where that was not done, and says whether it may come now.

        The arguments are those of `Drain`.
        """
        if listener not in self._drains:
            self._drains[listener] = Drain(listener, now, graceful_timeout)
        return self._drains[listener].finish(now)

    def under_way(self, now: float) -> set[Listener]:
        """Those whose queue may not be drained to its end yet."""
        return {listener for listener, drain in self._drains.items() if not drain.finish(now)}

    def forget(self, generations: Iterable[Generation], now: float) -> None:
        """Drops those that are over, and of none of these generations: nobody will ask again."""
        if self._drains:
            known = {listener for each in generations for listener in each.listeners}
            kept = known | self.under_way(now)
            self._drains = {each: drain for each, drain in self._drains.items() if each in kept}
