"""How many connections one worker holds: in all, and of one client's address.

A worker that is full ends another connection to make room for a new one
(prefork.worker.service.displacement), which a client of HTTP has to expect at any time (RFC 9112
section 9.5).  If all are being served, or the address has as many as it may have, the new one is
refused with a status and Retry-After.

Addresses of IPv6 are counted by their network of 64 bits, which is what one client gets at least.
"""

import contextlib
import socket
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv6Address
from time import monotonic
from typing import Generic, TypeVar

from prefork import logs
from prefork.http.head_rules import Reject
from prefork.http.response_head import body_size, error
from prefork.unpatched import RLock
from prefork.worker.service.displacement import Displacement, HeldConnection

_LEAST = 16
"""Connections that a worker takes however few descriptors there are."""

_READ = 64 * 1024

_RETRY_AFTER = ("Retry-After", "1")  # seconds

_FULL = 503, "too many connections"
_ADDRESS_FULL = 429, "too many connections from this address"

_LOG_EVERY = 5.0
"""Seconds between two lines in the log about connections that were refused, or ended for others."""

M = TypeVar("M", bound=HeldConnection)

_KNOWN = 4096
"""Addresses whose network is remembered."""


@lru_cache(_KNOWN)
def holder_of(address: str) -> str:
    """The address or network that a connection of this address counts for; "" for no address."""
    if ":" not in address:
        return address
    try:
        number = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    if number.is_link_local:
        return address  # one network for all machines of a link
    return f"{IPv6Address(int(number) >> 64 << 64)}/64"


class Admission(Generic[M]):
    """The limits of one worker; 0 means none."""

    def __init__(
        self, limit: int, per_address: int, *, descriptors: int | None, share: float = 1.0
    ) -> None:
        """`limit`: connections of the worker.  `per_address`: connections of one client's address.
        `descriptors`: how many connections may use, None for no limit.  `share`: of the worker's
        connections, for each address, while the worker is full.

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
        # Two threads may accept at the same moment, while one takes over from the other.
        # Reentrant: to make room is to end a connection.
        self._lock = RLock()
        self._log_limit = logs.RateLimit(_LOG_EVERY)
        self._displacement: Displacement[M] = Displacement(share, self.limit)
        self.displaced = 0
        """Connections that were ended for others."""
        self._reported = 0
        self._displaced_log = logs.RateLimit(_LOG_EVERY)

    def refusal(
        self, holder: str, now: float, parked: Iterable[M], end: Callable[[M], bool]
    ) -> Reject | None:
        """Why a new connection is refused, None if it may stay.

        holder: whom it counts for, empty for nobody (a Unix socket).  now: monotonic seconds.
        parked: connections that wait for their client.  end: closes one of them and makes room;
        returns False if another thread has it.
        """
        with self._lock:
            if self._has_share(holder):
                return self._refused(_ADDRESS_FULL)
            if self.limit and len(self.members) >= self.limit:
                if not self._displacement.make_room(holder, now, self.members, parked, end):
                    return self._refused(_FULL)
                self.displaced += 1
                self.report()
            return None

    def report(self, *, finally_: bool = False) -> None:
        """Logs how many connections were ended for others, once the last event is some seconds old.

        `finally_`: at once, since the worker ends.
        """
        if not (self._displacement.ranked or self.displaced > self._reported):
            return
        with self._lock:
            if self._displacement.ranked:
                self._displacement.forget(monotonic())
            count = self.displaced - self._reported
            if not count or not (self._displaced_log.due() or finally_):
                return
            self._reported = self.displaced
            holder, held = self._displacement.largest()
            logs.event(
                "warning",
                "connections displaced",
                count=count,
                limit=self.limit,
                peer=holder or None,
                held=held or None,
            )

    def admit_proxied(self, member: M, address: str) -> Reject | None:
        """Why a member is refused whose client a PROXY header has named, None if it may stay."""
        holder = holder_of(address)
        with self._lock:
            if self._has_share(holder):
                return self._refused(_ADDRESS_FULL)
            self.note(holder, member)
        return None

    def note(self, holder: str, member: M) -> None:
        """A connection counts for its holder from now on, until it is no member any more."""
        member.holder = holder
        if self.per_address and holder:
            with self._lock:
                self._by_address.setdefault(holder, []).append(member)

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
            answered = body_size(answer), data.lstrip(b"\r\n").partition(b"\n")[0]
            sock.shutdown(socket.SHUT_WR)
    sock.close()
    return answered
