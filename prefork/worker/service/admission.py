"""How many connections one worker holds: in all, and of one client's address.

A worker that is full ends the connection that has been idle for longest, which a client of HTTP
has to expect at any time (RFC 9112 section 9.5). Where none is idle, and for an address that has
its share, the new one is turned away with a status and Retry-After.
"""

import contextlib
import socket
from collections.abc import Callable, Collection, Iterable
from typing import Generic, Protocol, TypeVar

from prefork.http.head_rules import Reject
from prefork.http.response_head import error

_LEAST = 16

_READ = 64 * 1024

_RETRY_AFTER = ("Retry-After", "1")  # seconds


class AdmittedConnection(Protocol):
    @property
    def idle(self) -> bool:
        """It waits for its next request, and nothing of that has come."""


M = TypeVar("M", bound=AdmittedConnection)


class Admission(Generic[M]):
    """The bounds of one worker; 0 means none."""

    def __init__(self, limit: int, per_address: int, *, descriptors: int | None) -> None:
        """`descriptors`: how many connections may use, None for no limit.

        With fewer descriptors than connections allowed, accept(2) would fail before any bound of
        ours is reached, so the lower one counts.
        """
        if descriptors is not None:
            room = max(descriptors, _LEAST)
            limit = min(limit, room) if limit else room
        self.limit = limit
        self.per_address = per_address
        self._members: dict[str, list[M]] = {}

    def refusal(
        self, address: str, members: Collection[M], parked: Iterable[M], end: Callable[[M], bool]
    ) -> Reject | None:
        """Why a new connection is not taken, None where it may stay.

        address: the client's, empty where it has none (a Unix socket).  members: all that the
        worker holds.  parked: those that wait for their client, the longest waiting first.  end:
        closes one of them and makes room; False where another thread has it.
        """
        problem = self.overdrawn(address, members)
        if problem is not None:
            return problem
        if self.limit and len(members) >= self.limit:
            for one in parked:
                if one.idle and end(one):
                    return None
            return Reject(503, "too many connections", _RETRY_AFTER)
        return None

    def overdrawn(self, address: str, members: Collection[M]) -> Reject | None:
        """Why an address gets no connection more, None where it may have one."""
        if self.per_address and address and self._of(address, members) >= self.per_address:
            return Reject(429, "too many connections from this address", _RETRY_AFTER)
        return None

    def note(self, address: str, member: M) -> None:
        """A new connection is one of its address from now on, until it is no member any more."""
        if self.per_address and address:
            self._members.setdefault(address, []).append(member)

    def _of(self, address: str, members: Collection[M]) -> int:
        if len(self._members) > 2 * len(members) + _LEAST:
            for other in list(self._members):
                self._count(other, members)
        return self._count(address, members)

    def _count(self, address: str, members: Collection[M]) -> int:
        alive = [one for one in self._members.get(address, ()) if one in members]
        if alive:
            self._members[address] = alive
        else:
            self._members.pop(address, None)
        return len(alive)


def turn_away(sock: socket.SocketType, problem: Reject, *, tls: bool) -> None:
    """Answers and closes without waiting.

    What the client has sent is read first, or the kernel would send a reset in place of the
    answer. Before a TLS handshake there is no way to tell anything.
    """
    with contextlib.suppress(OSError):
        if not tls:
            with contextlib.suppress(BlockingIOError):
                sock.recv(_READ, socket.MSG_DONTWAIT)
            answer = error(problem.status, problem.reason, headers=problem.headers)
            sock.send(answer, socket.MSG_DONTWAIT)
            sock.shutdown(socket.SHUT_WR)
    sock.close()
