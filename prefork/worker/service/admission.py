"""How many connections one worker holds: in all, and of one client's address.

A worker that is full ends the connection that has been idle for longest, which a client of HTTP
has to expect at any time (RFC 9112 section 9.5). If none is idle, or the address has as many as it
may have, the new connection is refused with a status and Retry-After.
"""

import contextlib
import socket
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from prefork import logs
from prefork.http.head_rules import Reject
from prefork.http.response_head import error

_LEAST = 16
"""Connections that a worker takes however few descriptors there are."""

_READ = 64 * 1024

_RETRY_AFTER = ("Retry-After", "1")  # seconds

_FULL = 503, "too many connections"
_ADDRESS_FULL = 429, "too many connections from this address"

_LOG_EVERY = 5.0
"""Seconds between two lines in the log about connections that were refused."""


class AdmittedConnection(Protocol):
    @property
    def idle(self) -> bool:
        """It waits for a request, and nothing of that has come."""


M = TypeVar("M", bound=AdmittedConnection)


class Admission(Generic[M]):
    """The limits of one worker; 0 means none."""

    def __init__(self, limit: int, per_address: int, *, descriptors: int | None) -> None:
        """`limit`: connections of the worker.  `per_address`: connections of one client's address.
        `descriptors`: how many connections may use, None for no limit.

        With fewer descriptors than connections allowed, accept(2) would fail before any limit of
        ours is reached, so the lower one counts.
        """
        if descriptors is not None:
            room = max(descriptors, _LEAST)
            limit = min(limit, room) if limit else room
        self.limit = limit
        self.per_address = per_address
        self.members: set[M] = set()
        """All connections that the worker holds."""
        self._by_address: dict[str, list[M]] = {}
        self._log_limit = logs.RateLimit(_LOG_EVERY)

    def refusal(self, address: str, parked: Iterable[M], end: Callable[[M], bool]) -> Reject | None:
        """Why a new connection is refused, None if it may stay.

        address: the client's, empty if it has none (a Unix socket).  parked: connections that wait
        for their client, the longest waiting first.  end: closes one of them and makes room;
        returns False if another thread has it.
        """
        if self._has_share(address):
            return self._refused(_ADDRESS_FULL)
        if self.limit and len(self.members) >= self.limit:
            for one in parked:
                if one.idle and end(one):
                    return None
            return self._refused(_FULL)
        return None

    def admit_proxied(self, member: M, address: str) -> Reject | None:
        """Why a member is refused whose client a PROXY header has named, None if it may stay."""
        if self._has_share(address):
            return self._refused(_ADDRESS_FULL)
        self.note(address, member)
        return None

    def note(self, address: str, member: M) -> None:
        """A connection counts for its address from now on, until it is no member any more."""
        if self.per_address and address:
            self._by_address.setdefault(address, []).append(member)

    def _refused(self, problem: tuple[int, str]) -> Reject:
        status, reason = problem
        if self._log_limit.due():
            logs.event("warning", "connections refused", reason=reason)
        return Reject(status, reason, _RETRY_AFTER)

    def _has_share(self, address: str) -> bool:
        """Whether an address has as many connections as it may have."""
        return bool(self.per_address and address) and self._of(address) >= self.per_address

    def _of(self, address: str) -> int:
        if len(self._by_address) > 2 * len(self.members) + _LEAST:
            for other in list(self._by_address):
                self._count(other)
        return self._count(address)

    def _count(self, address: str) -> int:
        alive = [one for one in self._by_address.get(address, ()) if one in self.members]
        if alive:
            self._by_address[address] = alive
        else:
            self._by_address.pop(address, None)
        return len(alive)


def refuse(sock: socket.SocketType, problem: Reject, *, tls: bool) -> tuple[int, bytes] | None:
    """Answers and closes without waiting; returns the bytes of the answer's body and the first line
    that the client has sent, or None if there was no answer.

    The bytes that the client has sent are read first, or the kernel would send a reset in place of
    the answer.  Before a TLS handshake no answer is possible.
    """
    answered = None
    with contextlib.suppress(OSError):
        if not tls:
            data = b""
            with contextlib.suppress(BlockingIOError):
                data = sock.recv(_READ, socket.MSG_DONTWAIT)
            answer = error(problem.status, problem.reason, headers=problem.headers)
            sock.send(answer, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            size = len(answer) - answer.index(b"\r\n\r\n") - 4
            answered = size, data.lstrip(b"\r\n").partition(b"\n")[0]
            sock.shutdown(socket.SHUT_WR)
    sock.close()
    return answered
