"""Parked connections: those that wait for their client, in one epoll, each with a deadline.

A connection stays registered in the epoll while it lives, so that a request on it costs no
epoll_ctl(2).  The thread that takes a connection out of `parked` owns it: that is one dict
operation, so two threads never serve the same connection.  The deadlines are on a timer wheel
(prefork.worker.schedule.deadline_wheel).
"""

from collections.abc import Mapping
from math import inf
from typing import Final, Generic, Protocol, TypeVar

from prefork.unpatched import RLock, select
from prefork.worker.schedule.deadline_wheel import DeadlineWheel, Timed
from prefork.worker.schedule.epoll_wait import epoll_wait

EPOLLIN: Final = select.EPOLLIN
EPOLLOUT: Final = select.EPOLLOUT

_WATCHED: Final = 256  # descriptors that are no connections; there are far fewer


class PolledConnection(Timed, Protocol):
    """A connection; it is given up at its deadline."""

    fd: int
    events: int
    """The events it is registered for in the epoll; 0 if it is not registered."""


class EventPoller(Protocol):
    """A poller as the worker's loop has it, which does not know what a connection is."""

    @property
    def parked(self) -> Mapping[int, object]:
        """Parked connections, by descriptor."""

    @property
    def next_tick(self) -> float:
        """Monotonic seconds at which a deadline may have passed; infinity if there is none."""

    def watch(self, fd: int, *, edge: bool = False) -> None:
        """See `ConnectionPoller.watch`."""

    def fileno(self) -> int:
        """See `ConnectionPoller.fileno`."""

    def wait(self, now: float, limit: float | None = None) -> list[tuple[int, int]]:
        """See `ConnectionPoller.wait`."""

    def ready(self, most: int) -> list[tuple[int, int]]:
        """See `ConnectionPoller.ready`."""


P = TypeVar("P", bound=PolledConnection)


class ConnectionPoller(Generic[P]):
    """The epoll of one worker in which one thread parks; others may `claim` and `unregister`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.parked: dict[int, P] = {}
        self._wheel: DeadlineWheel[P] = DeadlineWheel()

    @property
    def next_tick(self) -> float:
        """Monotonic seconds at which a deadline may have passed; infinity if there is none."""
        return self._wheel.next_tick

    def watch(self, fd: int, *, edge: bool = False) -> None:
        """Lets `wait` return when a descriptor that is no connection becomes readable.

        `edge`: once each time (EPOLLET), and not for as long as it is readable.
        """
        self._epoll.register(fd, EPOLLIN | select.EPOLLET if edge else EPOLLIN)

    def fileno(self) -> int:
        """Of the epoll: it is readable while it has events (epoll(7))."""
        return self._epoll.fileno()

    def park(self, connection: P, events: int) -> None:
        """Waits for a connection to become readable or writable, until its deadline."""
        if connection.events != events:
            self._register(connection, events)
        # Most are on the wheel already, and their deadline has moved away.
        if connection.deadline < connection.wheel_time and connection.deadline:
            self._schedule(connection)
        # The last step: from here on it may be another thread's.
        self.parked[connection.fd] = connection

    def _register(self, connection: P, events: int) -> None:
        if connection.events:
            self._epoll.modify(connection.fd, events)
        else:
            self._epoll.register(connection.fd, events)
        connection.events = events

    def _schedule(self, connection: P) -> None:
        self._wheel.put(connection)

    def claim(self, fd: int) -> P | None:
        """Takes a connection out to serve it; None if another thread has it."""
        connection = self.parked.pop(fd, None)
        if connection is None:
            self.event_not_parked(fd)
        return connection

    def event_not_parked(self, fd: int) -> None:
        """An event came, or a claim, for a connection that is not parked: another thread has it."""

    def claim_connection(self, connection: P) -> bool:
        """Claims this very connection; returns False if that failed.

        A connection that was parked may be served and closed by now, and its descriptor's number
        be another's: that one stays parked.
        """
        claimed = self.claim(connection.fd)
        if claimed is not None and claimed is not connection:
            self.park(claimed, claimed.events)
        return claimed is connection

    def unregister(self, connection: P) -> None:
        """Takes a claimed connection out of the epoll; on the wheel it is passed over."""
        if connection.events:
            self._epoll.unregister(connection.fd)
            connection.events = 0

    def remove(self, connection: P) -> None:
        """To be called before the connection is closed.

        A closed descriptor that another process still shares would leave events behind that can
        no longer be deleted (epoll(7), "Questions and answers" 6).
        """
        if connection.events:
            self.unregister(connection)
        if connection.wheel_time != inf:
            self._wheel.remove(connection)

    def ready(self, most: int) -> list[tuple[int, int]]:
        """(descriptor, events) of what is ready now, `most` of them."""
        return self._epoll.poll(0, most)

    def wait(self, now: float, limit: float | None = None) -> list[tuple[int, int]]:
        """(descriptor, events) of what became ready; waits until the next deadline at most.

        `limit`: seconds after which to return in any case; None for no limit.  All of them are
        returned, since a connection without an event has nothing to be read before its deadline.
        """
        next_tick = self._wheel.next_tick
        if next_tick != inf:
            until = max(next_tick - now, 0.0)
            limit = until if limit is None else min(until, limit)
        return epoll_wait(self._epoll, limit, len(self.parked) + _WATCHED)

    def claim_expired(self, now: float) -> list[P]:
        """Claims the connections whose deadline has passed."""
        late: list[P] = []
        for connection in self._wheel.take_due(now):
            if self.parked.get(connection.fd) is not connection:
                continue  # being served (`park` puts it on the wheel again) or handed over
            if not connection.deadline:
                continue  # it had one when it was put on the wheel
            if connection.deadline > now:
                self._wheel.put(connection)
            elif self.claim_connection(connection):
                late.append(connection)
        return late


class SharedConnectionPoller(ConnectionPoller[P]):
    """The epoll of a worker in which several threads serve, and one at a time waits.

    The waiting thread may get an event of a connection that another thread serves: its client sends
    more, or closes.  That is rare, so it is dealt with when it happens: the connection is taken out
    of the epoll, and put back when it is parked.  (EPOLLONESHOT would cost an epoll_ctl(2) for each
    request.)
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = RLock()
        self._unregistered: set[int] = set()
        """Descriptors that were taken out of the epoll while their connection was served."""
        self._watched: set[int] = set()

    def watch(self, fd: int, *, edge: bool = False) -> None:
        super().watch(fd, edge=edge)
        self._watched.add(fd)

    def park(self, connection: P, events: int) -> None:
        fd = connection.fd
        super().park(connection, events)
        # Parked first and checked then; `event_not_parked` does it the other way round. So one of
        # the two threads sees what the other did.
        if fd in self._unregistered:
            with self._lock:
                # A thread that has claimed it meanwhile parks it anew.
                if fd in self._unregistered and self.parked.get(fd) is connection:
                    self._register(connection, events)

    def event_not_parked(self, fd: int) -> None:
        with self._lock:
            if fd not in self._unregistered and fd not in self._watched:
                self._unregistered.add(fd)
                try:
                    if fd in self.parked:  # by now: its event will come again
                        self._unregistered.discard(fd)
                    else:
                        self._epoll.unregister(fd)
                except OSError:  # it is not in the epoll
                    self._unregistered.discard(fd)

    def _register(self, connection: P, events: int) -> None:
        with self._lock:
            self._note_unregistered(connection)
            super()._register(connection, events)

    def _schedule(self, connection: P) -> None:
        with self._lock:
            super()._schedule(connection)

    def unregister(self, connection: P) -> None:
        with self._lock:
            self._note_unregistered(connection)
            super().unregister(connection)

    def remove(self, connection: P) -> None:
        with self._lock:
            super().remove(connection)

    def claim_expired(self, now: float) -> list[P]:
        if now < self._wheel.next_tick:
            return []
        with self._lock:
            return super().claim_expired(now)

    def _note_unregistered(self, connection: P) -> None:
        """Lets a connection know if it was taken out of the epoll."""
        if connection.fd in self._unregistered:
            self._unregistered.discard(connection.fd)
            connection.events = 0
