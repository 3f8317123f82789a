"""The worker's loop: choose a place to wait, serve what comes, leave when told to.

There are two places for the main thread.  Nothing parked: it blocks in accept4 and serves on the
spot.  Something parked: it waits in the epoll, and an acceptor thread waits in accept4 for it.
With several listeners it always waits in the epoll, with an acceptor for each.
"""

import errno
import os
import signal
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from prefork import logs
from prefork.channel import Channel, Expire, Leaving, Order, Ready, Reopen, Retire, Serve, Stop
from prefork.worker.accept import QUEUE_EMPTY, WAKE, Acceptor, Arrival, Door, MainPlace
from prefork.worker.parking import Parking

# Without the enum that signal.getsignal makes of its answer, or tries to: 0.6 us at each wait.
_getsignal = getattr(signal.getsignal, "__wrapped__", signal.getsignal)

_REST = 0.1
"""Seconds without accepting after an error of the kind that does not pass at once (EMFILE)."""

_COMPLAIN = 5.0
"""Seconds between two lines in the log about that."""


class Service(Protocol):
    """What is done with connections: prefork.worker.http or prefork.worker.tcp."""

    parking: Parking[Any]

    @property
    def idle(self) -> bool:
        """Nothing runs in a thread of the application's."""

    @property
    def full(self) -> bool:
        """Another request would have to wait for a thread."""

    def welcome(self, arrival: Arrival, door: Door) -> None:
        """Serves or parks a new connection."""

    def ready(self, fd: int, events: int) -> None:
        """Goes on with a parked connection."""

    def collect(self) -> None:
        """Goes on with what threads have handed back."""

    def overdue(self, now: float) -> None:
        """Ends what has passed its deadline."""

    def last(self) -> None:
        """What runs now is the last on its connection (may be called by a signal handler)."""

    def leave(self) -> None:
        """The worker is on its way out: idle connections get their last chance."""

    def expire(self, now: float) -> None:
        """Gives up the requests over their timeout (may be called by a signal handler)."""

    def flush(self) -> None:
        """The worker is about to wait: writes what was kept for a batch."""

    def in_child(self) -> None:
        """In a child that the application has forked: lets go of what is the worker's alone."""


class Loop:
    """Runs until the worker may leave."""

    def __init__(
        self,
        doors: list[Door],
        channel: Channel,
        reopen: Callable[[tuple[str, ...], list[int]], None],
    ) -> None:
        """`reopen`: takes the paths of log files and their new descriptors."""
        self._doors = doors
        self._reopen = reopen
        self._channel = channel
        self._parking: Parking[Any]
        self._service: Service
        self._place = MainPlace()
        self._arrivals: deque[tuple[Arrival, Door]] = deque()
        self._acceptors = [Acceptor(door, self._arrivals, self.wake, self._go_on) for door in doors]
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._handler = self._on_retire  # one object, to be found again
        self._admitted = False
        self._waiting = False
        self._attention = False
        self._leaving = False
        self._told = False
        self._draining = False
        self._orphaned = False
        self._rest_until = 0.0
        self._complain_from = 0.0

    # Called from other threads and from signal handlers.

    def wake(self) -> None:
        """Brings the main thread out of the epoll."""
        os.eventfd_write(self._wake, 1)

    def _on_wake(self, *_: object) -> None:
        """Signal handler: there is an order in the channel."""
        armed = self._place.disarm()
        self._read_orders()
        self._interrupt(armed)

    def _on_retire(self, *_: object) -> None:
        """Signal handler: SIGTERM, from whoever sent it, or by the death of the master."""
        armed = self._place.disarm()
        self._retire()
        self._interrupt(armed)

    def _interrupt(self, armed: bool) -> None:
        self._attention = True
        self.wake()
        self._place.interrupt(armed)

    def _go_on(self) -> bool:
        # A connection taken while the main thread serves would wait for it, and not for a
        # sibling that is idle. With nothing parked, the main thread wants its place back.
        return self._waiting and bool(self._parking.parked)

    # Orders. A handler may carry them out in the middle of a request of the main thread, which is
    # how a worker that is stuck in its application still stops accepting.

    def _read_orders(self) -> None:
        try:
            while not self._orphaned and (packet := self._channel.order()) is not None:
                order, fds = packet
                self._obey(order, fds)
        except EOFError:
            self._orphaned = True
            self._retire()

    def _obey(self, order: Order, fds: list[int]) -> None:
        if isinstance(order, Serve):
            self._admitted = True
        elif isinstance(order, Stop):
            self._stop(order.listeners)
        elif isinstance(order, Retire):
            self._retire()
        elif isinstance(order, Expire):
            self._service.expire(monotonic())
            self._retire()
        elif isinstance(order, Reopen):
            self._reopen(order.paths, fds)

    def _retire(self) -> None:
        """Leave without accepting more: the queue belongs to those who stay."""
        self._stop(())

    def _stop(self, drained: tuple[int, ...]) -> None:
        """Leave, and accept from some listeners until their queue is empty."""
        if self._leaving:
            return
        self._leaving = self._attention = True
        self._draining = bool(drained)
        for number, door in enumerate(self._doors):
            if number not in drained:
                door.shut()
        self._service.last()
        for acceptor in self._acceptors:
            acceptor.dismiss()
        self._channel.send(Leaving())

    # The main thread.

    def run(self, service: Service) -> None:
        """Serves until the worker was told to leave and has nothing left to do."""
        self._service = service
        self._parking = service.parking
        # Edge-triggered: each write wakes the epoll once, and nobody has to read it.
        self._parking.watch(self._wake, edge=True)
        self._parking.watch(self._channel.fileno())
        self._install_handlers()
        self._channel.send(Ready())
        self._wait_for_admission()
        while True:
            if _getsignal(signal.SIGTERM) is not self._handler:
                self._install_handlers()  # the application, or its event loop, has taken it
            if self._attention:
                self._attend()
            if self._leaving and self._finished():
                return
            if self._draining:
                self._drain()
                self._wait(0.0)
            elif self._alone():
                self._accept()
            else:
                self._wait(None)

    def _wait_for_admission(self) -> None:
        """Accepts nothing before the master knows that the worker is ready.

        It may kill one that it takes to be booting, which must not have a connection by then.
        """
        while not (self._admitted or self._leaving):
            self._parking.wait(monotonic())
            self._listen_to_master()

    def _install_handlers(self) -> None:
        signal.signal(signal.SIGTERM, self._handler)
        signal.signal(WAKE, self._on_wake)

    def _attend(self) -> None:
        self._attention = False
        self._read_orders()
        if self._leaving and not self._told:
            self._told = True
            self._service.leave()

    def _finished(self) -> bool:
        return not (
            self._draining or self._parking.parked or self._arrivals or not self._service.idle
        )

    def _alone(self) -> bool:
        """The main thread can wait in accept4: nothing could want it elsewhere."""
        return (
            len(self._doors) == 1
            and not self._leaving
            and not self._parking.parked
            and not self._arrivals
            and not self._acceptors[0].in_place
            and self._service.idle
            and not self._rest_until
        )

    def _accept(self) -> None:
        service = self._service
        service.flush()
        got: list[Arrival] = []
        door = self._doors[0]
        problem = self._place.accept(door, got)
        for arrival in got:
            service.welcome(arrival, door)
        if problem is not None:
            self._rest(problem)

    def _drain(self) -> None:
        """One connection from each listener, until its queue is empty."""
        self._draining = False
        for door in self._doors:
            if door.open:
                got: list[Arrival] = []
                problem = self._place.accept(door, got)
                for arrival in got:
                    self._service.welcome(arrival, door)
                if problem is not None and problem.errno in QUEUE_EMPTY:
                    door.shut()
                else:
                    self._draining = True
                    if problem is not None:
                        self._rest(problem)

    def _rest(self, problem: OSError) -> None:
        if self._leaving and problem.errno == errno.ENOTSOCK:
            return  # the door was shut
        self._rest_until = monotonic() + _REST
        if problem.errno in QUEUE_EMPTY:
            return  # the server is about to stop: the order to leave comes next
        if self._complain_from <= self._rest_until:
            self._complain_from = self._rest_until + _COMPLAIN
            logs.event("error", "accept failed", reason=problem.strerror)

    def _wait(self, limit: float | None) -> None:
        service = self._service
        now = monotonic()
        if self._rest_until:
            if now < self._rest_until:
                limit = self._rest_until - now if limit is None else limit
            else:
                self._rest_until = 0.0
        if not (self._leaving or self._rest_until or service.full):
            for acceptor in self._acceptors:
                acceptor.post()
        service.flush()
        if self._arrivals or self._attention:
            limit = 0.0
        self._waiting = True
        events = self._parking.wait(now, limit)
        looked = monotonic()
        self._waiting = False
        channel = self._channel.fileno()
        for fd, event in events:
            if fd == channel:
                self._listen_to_master()
            else:
                service.ready(fd, event)
        service.collect()
        while self._arrivals:
            arrival, door = self._arrivals.popleft()
            service.welcome(arrival, door)
        # As of that look, not of now: what has come while the main thread served is in time.
        service.overdue(looked)
        for acceptor in self._acceptors:
            problem = acceptor.problem
            if problem is not None:
                acceptor.problem = None
                self._rest(problem)

    def _listen_to_master(self) -> None:
        self._read_orders()
        if self._orphaned:
            self._parking.unwatch(self._channel.fileno())
