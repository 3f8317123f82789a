"""The watcher: a thread that looks after what waits while its worker's threads are busy.

It runs no application code, and sleeps while the worker is idle.  While it is not, it looks every
few milliseconds: where the thread that has the place in the epoll has been in the application for
long, another takes that place over (prefork.worker.schedule.threads), and where none is free, what
waits is handed over to a sibling that is idle (prefork.worker.schedule.handover).  It also empties
the inbox, and brings the main thread out of accept4 for what was in there."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Protocol

from prefork import logs
from prefork.worker.schedule.accept import WAKE, Arrival, MainAcceptor, WorkerListener, start_deaf
from prefork.worker.schedule.handover import HOPS, Handover, HandoverMessage
from prefork.worker.schedule.poller import ConnectionPoller
from prefork.worker.schedule.threads import LeaderFollowers

_PATIENCE = 0.004
"""Seconds in the application from which on others are not to wait for it."""

_TICK = 0.005
"""Seconds between two looks: each costs a switch of threads."""

_QUIET = 10
"""Looks at an idle worker until the watcher sleeps: to wake it costs more than a look."""

_KICK = 0.001
"""Seconds between two attempts to bring the main thread out of accept4."""

_HURRY = 0.0005
"""The interpreter's switch interval while somebody waits: each system call of the watcher's gives
the interpreter away, and an application that computes gives it back only after so many seconds."""

_WINDOW = 0.1
"""Seconds over which the work of siblings is compared."""

_BUSY = 0.8
"""The share of looks at which a worker was busy, from which on it has too much to do."""

_STUCK = 0.1
"""Seconds until the inbox is looked into again, where there was no descriptor for what is in it."""

_ROOM = 1.0
"""Seconds between two looks for free descriptors, while there were none."""


class PendingWork:
    """What several threads of a worker have to see, of what there is to do."""

    __slots__ = ("arrivals", "events", "incoming", "leaving", "since", "watcher_sleeps")

    def __init__(self) -> None:
        self.since = 0.0
        """Monotonic seconds at which the holder of the place came back from the epoll, 0 while it
        waits there."""
        self.leaving = False
        self.watcher_sleeps = False
        """Whoever begins to serve has to wake it."""
        self.arrivals: deque[tuple[Arrival, WorkerListener]] = deque()
        """What acceptor threads took."""
        self.incoming: deque[tuple[HandoverMessage, int]] = deque()
        """What came out of the inbox."""
        self.events: deque[tuple[int, int]] = deque()
        """Descriptors that were ready at the last look (several threads only)."""


class WatchedService(Protocol):
    """What the watcher asks of a service (prefork.worker.schedule.worker_loop.Service)."""

    @property
    def parking(self) -> ConnectionPoller[Any]:
        """Where its connections are parked."""

    def offer(self, fd: int, slot: int | None = None) -> bool:
        """Hands a parked connection over, to an idle sibling or to the one in a slot; False where
        it stays."""

    def hand_over_all(self) -> None:
        """Hands over all that is parked and can move, to whoever takes it."""


class Watcher:
    """The thread; asleep until `start`."""

    def __init__(
        self,
        duty: PendingWork,
        place: MainAcceptor,
        handover: Handover,
        crew: LeaderFollowers | None,
        *,
        wake: Callable[[], None],
        attend: Callable[[int], bool],
        crowded: Callable[[], object],
    ) -> None:
        """`wake` brings the holder out of the epoll; `attend` is told of each descriptor that was
        ready in there, and says whether that is for the main thread; `crowded` tells the master
        that there is no descriptor left for what is in the inbox."""
        self._duty = duty
        self._place = place
        self._handover = handover
        self._crew = crew
        self._wake_holder = wake
        self._attend = attend
        self._crowded = crowded
        self._service: WatchedService
        self._epoll = -1
        self._kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._main = threading.get_ident()
        self._thread: threading.Thread | None = None
        self._quiet = 0
        self._over = False
        self._late = 0.0
        self._interval = 0.0
        self._looks = self._busy = 0
        self._window_ends = 0.0
        self._work: tuple[tuple[int, float], dict[int, tuple[int, float]]] | None = None

    def start(self, service: WatchedService) -> None:
        """Begins to watch, if there can be anything to do (main thread)."""
        if self._crew is None and self._handover.inbox is None:
            return
        self._service = service
        self._epoll = service.parking.fileno()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        start_deaf(self._thread)

    def rouse(self) -> None:
        """Wakes it (any thread, or a signal handler)."""
        os.eventfd_write(self._kick, 1)

    def dismiss(self) -> None:
        """Ends it for good; what it took out of the inbox is in `PendingWork.incoming` then."""
        if self._thread is not None:
            self._over = True
            self.rouse()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        try:
            self._watch()
        except BaseException as problem:
            logs.event("error", "worker failed", traceback=logs.traceback_of(problem))
            os._exit(1)

    def _watch(self) -> None:
        duty = self._duty
        idle, stuck = select.poll(), select.poll()
        for poll in (idle, stuck):
            poll.register(self._kick, select.POLLIN)
            if self._handover.inbox is not None:
                poll.register(self._handover.inbox, select.POLLIN)
        # An epoll that has events is readable itself (epoll(7)), and whoever waits in it is told
        # all the same.
        stuck.register(self._epoll, select.POLLIN)
        while not self._over:
            limit, look_into_epoll = self._look(monotonic())
            if limit is None and not self._alone:
                duty.watcher_sleeps = True
                # Whoever began to serve before this has not seen it.
                if duty.since:
                    limit = _TICK
            poll = stuck if look_into_epoll else idle
            ready = poll.poll(None if limit is None else limit * 1000)
            duty.watcher_sleeps = False
            for fd, _ in ready:
                if fd == self._kick:
                    self._quiet = 0
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._kick)
                elif fd != self._epoll:
                    self._empty_inbox()

    def _look(self, now: float) -> tuple[float | None, bool]:
        """(seconds until the next look, None for no limit; whether to look into the epoll)."""
        duty = self._duty
        limits = [self._look_at_incoming(now)] if duty.incoming else []
        if self._handover.crowded:
            self._handover.look_for_room()
            limits.append(_ROOM)
        since = duty.since
        if self._alone:
            return min(limits, default=None), False
        self._looks += 1
        self._busy += bool(since)
        if now >= self._window_ends and self._crew is None and self._handover.inbox is not None:
            self._balance(now)
        if self._interval:
            sys.setswitchinterval(self._interval)
            self._interval = 0.0
        if not since:
            self._quiet += 1
            if self._quiet < _QUIET:
                limits.append(_TICK)
            return min(limits, default=None), False
        self._quiet = 0
        stuck = now - since
        if stuck < _PATIENCE:
            return min((*limits, _PATIENCE - stuck)), False
        if self._place.armed:  # it was to accept at once, and another was faster
            signal.pthread_kill(self._main, WAKE)
            return _KICK, False
        if self._crew is not None and self._crew.relieve():
            return _TICK, False
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(self._interval, _HURRY))
        return min((*limits, _TICK)), self._send_off(now)

    @property
    def _alone(self) -> bool:
        """Nobody could take anything over, so that there is nothing to look for."""
        return self._crew is None and self._handover.alone

    # What came out of the inbox.

    def _empty_inbox(self) -> None:
        duty = self._duty
        while (packet := self._handover.receive()) is not None:
            if not duty.incoming:
                self._late = monotonic() + _PATIENCE
            duty.incoming.append(packet)
        if duty.incoming:
            self._wake_holder()
        if self._handover.stuck:
            # Said again until somebody has taken it. The inbox stays readable: no spinning.
            self._crowded()
            sleep(_STUCK)

    def _look_at_incoming(self, now: float) -> float:
        """The main thread has not taken it yet."""
        if self._place.armed:
            signal.pthread_kill(self._main, WAKE)
            return _KICK
        if now >= self._late:
            self._late = now + _TICK
            self._pass_on()
            if not self._duty.since:
                self._wake_holder()
        return _TICK

    def _pass_on(self) -> None:
        incoming = self._duty.incoming
        for _ in range(len(incoming)):
            try:
                parcel, fd = incoming.popleft()
            except IndexError:
                return
            if parcel.hops < HOPS and self._handover.send(parcel, fd, only_idle=True):
                os.close(fd)
            else:
                incoming.append((parcel, fd))

    # What waits while all threads are in the application.

    def _send_off(self, now: float) -> bool:
        """Hands over what is ready; returns whether the epoll is worth a look before the tick."""
        handover, service, duty = self._handover, self._service, self._duty
        if duty.leaving and handover.wanted:
            service.hand_over_all()
        if not handover.sibling_idle:
            return False
        while duty.arrivals:
            try:
                arrival, door = duty.arrivals.popleft()
            except IndexError:
                break
            fd, peer = arrival
            parcel = HandoverMessage(door.inode, peer, ("", ""), b"", now, 0.0, False, False)
            if not handover.send(parcel, fd, only_idle=True):
                duty.arrivals.appendleft((arrival, door))
                return False
            os.close(fd)
        stayed = False
        for fd, _ in (*self._take_events(), *service.parking.wait(now, 0.0)):
            if not self._attend(fd) and not service.offer(fd):
                stayed = True
        return not stayed  # what stays is still ready

    # What this worker has too much of.

    def _balance(self, now: float) -> None:
        """Gives connections to a sibling that does less, where this worker never rests.

        Kept connections stay where they are: after a hand-over one worker may have all of them,
        and a request on none of them waits long.  So they come back, an eighth at a time.
        """
        busy = self._looks and self._busy / self._looks >= _BUSY
        before, in_time = self._work, now < self._window_ends + _WINDOW
        self._looks = self._busy = 0
        self._window_ends = now + _WINDOW
        self._work = None
        if not busy:
            return
        self._work = own, others = self._handover.work_done()
        if before is None or not in_time:
            return
        done = own[0] - before[0][0]
        for slot, (requests, seconds) in others.items():
            was = before[1].get(slot)
            if was is None or seconds - was[1] > _WINDOW / 2:
                continue
            # Less than two thirds: else it would go to and fro.
            if (requests - was[0]) * 3 < done * 2:
                parking = self._service.parking
                left = max(len(parking.parked) // 8, 1)
                for fd, _ in parking.wait(now, 0.0):
                    if not self._attend(fd) and self._service.offer(fd, slot):
                        left -= 1
                        if not left:
                            return
                return

    def _take_events(self) -> list[tuple[int, int]]:
        events = []
        with contextlib.suppress(IndexError):
            while True:
                events.append(self._duty.events.popleft())
        return events
