"""Parked connections: those that wait for their client, in one epoll, each with a deadline.

A connection stays registered while it lives in the epoll, so that a request on it costs no
epoll_ctl(2).  Who takes one out of `parked` owns it: that is one dict operation, so two threads
never serve the same.  Deadlines are looked at lazily: a connection stands on a wheel of ticks at
or before its deadline, and is moved on when the tick comes and the deadline has moved.
"""

import select
import threading
from math import inf
from typing import Generic, Protocol, TypeVar

EPOLLIN = select.EPOLLIN
EPOLLOUT = select.EPOLLOUT

_TICKS = 4  # a second
_WATCHED = 256  # descriptors that are no connections; far fewer than that


class PolledConnection(Protocol):
    fd: int
    events: int
    """What it is registered for in the epoll; 0 when it is not there."""
    deadline: float
    """Monotonic seconds at which it is given up; 0 for never."""
    place: float
    """Monotonic seconds: where it stands on the wheel; infinity when it is not there."""


P = TypeVar("P", bound=PolledConnection)


class ConnectionPoller(Generic[P]):
    """The epoll of one worker, for one thread that parks; others may `claim` and then `mute`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.parked: dict[int, P] = {}
        self._wheel: dict[int, set[P]] = {}
        self.due = inf
        """Monotonic seconds of the earliest tick on the wheel; infinity when there is none."""

    def watch(self, fd: int, *, edge: bool = False) -> None:
        """Wakes `wait` when a descriptor that is no connection becomes readable."""
        self._epoll.register(fd, EPOLLIN | select.EPOLLET if edge else EPOLLIN)

    def fileno(self) -> int:
        """Of the epoll: it is readable while it has events (epoll(7))."""
        return self._epoll.fileno()

    def park(self, connection: P, events: int) -> None:
        """Waits for a connection to become readable or writable, until its deadline."""
        if connection.events != events:
            self._register(connection, events)
        # Most stand there already, and their deadline has moved away.
        if connection.deadline < connection.place and connection.deadline:
            self._turn(connection)
        # The last thing: from here on it may be another thread's.
        self.parked[connection.fd] = connection

    def _register(self, connection: P, events: int) -> None:
        if connection.events:
            self._epoll.modify(connection.fd, events)
        else:
            self._epoll.register(connection.fd, events)
        connection.events = events

    def _turn(self, connection: P) -> None:
        """Puts a connection where its deadline belongs, to the next tick after it."""
        if connection.place != inf:
            self._leave_wheel(connection)
        tick = int(connection.deadline * _TICKS) + 1
        connection.place = (tick - 1) / _TICKS
        self._wheel.setdefault(tick, set()).add(connection)
        self.due = min(self.due, tick / _TICKS)

    def _leave_wheel(self, connection: P) -> None:
        tick = int(connection.place * _TICKS) + 1
        there = self._wheel.get(tick)
        if there is not None:
            there.discard(connection)
            if not there:
                del self._wheel[tick]
        connection.place = inf

    def claim(self, fd: int) -> P | None:
        """Takes a connection out to serve it; None where somebody else has it."""
        connection = self.parked.pop(fd, None)
        if connection is None:
            self.missed(fd)
        return connection

    def missed(self, fd: int) -> None:
        """There was an event, or a claim, of what is not parked: another thread serves it."""

    def claim_this(self, connection: P) -> bool:
        """Whether it could be claimed.

        What was parked may be served and closed by now, and another have got its descriptor's
        number: that one stays.
        """
        claimed = self.claim(connection.fd)
        if claimed is not None and claimed is not connection:
            self.park(claimed, claimed.events)
        return claimed is connection

    def mute(self, connection: P) -> None:
        """Takes a claimed connection out of the epoll; on the wheel it is passed over."""
        if connection.events:
            self._epoll.unregister(connection.fd)
            connection.events = 0

    def forget(self, connection: P) -> None:
        """To be called before the connection is closed.

        A closed descriptor that another process still shares would leave events behind that can
        no longer be deleted (epoll(7), "Questions and answers" 6).
        """
        self.mute(connection)
        if connection.place != inf:
            self._leave_wheel(connection)

    def wait(self, now: float, limit: float | None = None) -> list[tuple[int, int]]:
        """(descriptor, events) of what became ready, at most until the next deadline.

        `limit`: seconds after which to come back all the same; None for no limit.
        """
        if self.due != inf:
            until = max(self.due - now, 0.0)
            limit = until if limit is None else min(until, limit)
        # All there is: a connection without an event has nothing to be read before its deadline.
        return self._epoll.poll(limit, len(self.parked) + _WATCHED)

    def expired(self, now: float) -> list[P]:
        """Claims the connections whose deadline has passed."""
        late: list[P] = []
        while self.due <= now:
            for connection in self._wheel.pop(int(self.due * _TICKS), ()):
                connection.place = inf
                if self.parked.get(connection.fd) is not connection:
                    continue  # being served: parked anew, it gets a new place; or handed over
                if not connection.deadline:
                    continue  # it had one when it was put here
                if connection.deadline <= now:
                    if self.claim_this(connection):
                        late.append(connection)
                else:
                    self._turn(connection)
            self.due = min(self._wheel, default=inf) / _TICKS
        return late


class SharedConnectionPoller(ConnectionPoller[P]):
    """The epoll of a worker in which several threads serve, and one at a time waits.

    Who waits may be told of a connection that another thread serves: its client sends on, or goes.
    That is rare, so it is seen to when it happens: the connection is taken out of the epoll, and
    put back when it is parked.  (EPOLLONESHOT would cost an epoll_ctl(2) for each request.)
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._silent: set[int] = set()
        """Descriptors of those that were taken out, and do not know it."""
        self._watched: set[int] = set()

    def watch(self, fd: int, *, edge: bool = False) -> None:
        super().watch(fd, edge=edge)
        self._watched.add(fd)

    def park(self, connection: P, events: int) -> None:
        fd = connection.fd
        super().park(connection, events)
        # Parked first and looked at then, and in `claim` the other way round: one sees the other.
        if fd in self._silent:
            with self._lock:
                # Who has claimed it meanwhile parks it anew.
                if fd in self._silent and self.parked.get(fd) is connection:
                    self._register(connection, events)

    def missed(self, fd: int) -> None:
        with self._lock:
            if fd not in self._silent and fd not in self._watched:
                self._silent.add(fd)
                try:
                    if fd in self.parked:  # by now: it will be told again
                        self._silent.discard(fd)
                    else:
                        self._epoll.unregister(fd)
                except OSError:  # it is not in there
                    self._silent.discard(fd)

    def _register(self, connection: P, events: int) -> None:
        with self._lock:
            self._wake_up(connection)
            super()._register(connection, events)

    def _turn(self, connection: P) -> None:
        with self._lock:
            super()._turn(connection)

    def mute(self, connection: P) -> None:
        with self._lock:
            self._wake_up(connection)
            super().mute(connection)

    def forget(self, connection: P) -> None:
        with self._lock:
            super().forget(connection)

    def expired(self, now: float) -> list[P]:
        if now < self.due:
            return []
        with self._lock:
            return super().expired(now)

    def _wake_up(self, connection: P) -> None:
        if connection.fd in self._silent:
            self._silent.discard(connection.fd)
            connection.events = 0
