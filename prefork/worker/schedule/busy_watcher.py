"""The watcher: a thread that takes care of what waits while its worker's threads are busy.

It runs no application code, and sleeps while the worker is idle.  While the worker is busy, it
looks every few milliseconds: if the thread that waits in the epoll has been in the application for
long, another takes over (prefork.worker.schedule.threads), and if none is free, what waits is
handed over to an idle sibling (prefork.worker.schedule.handover).  It also empties the inbox, and
brings the main thread out of accept4 for what was in there."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from time import monotonic

from prefork.unpatched import get_ident, select, sleep
from prefork.worker.schedule.accept import WAKE, MainAcceptor
from prefork.worker.schedule.handover import Handover, HandoverMessage
from prefork.worker.schedule.pending_work import PendingWork
from prefork.worker.schedule.service_interface import Service
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.schedule.waiting_thread import WaitingThread

_PATIENCE = 0.004
"""Seconds in the application after which other connections are not to wait for it."""

_TICK = 0.005
"""Seconds between two looks: each costs a switch of threads."""

_QUIET = 10
"""Looks at an idle worker until the watcher sleeps: to wake it costs more than a look."""

_INTERRUPT = 0.001
"""Seconds between two attempts to bring the main thread out of accept4."""

_SHORT_SWITCH_INTERVAL = 0.0005
"""The interpreter's switch interval while connections wait.

Each system call of the watcher releases the interpreter, and an application that computes gives it
back only after this many seconds."""

_WINDOW = 0.1
"""Seconds over which the work of siblings is compared."""

_BUSY = 0.8
"""The share of looks at which a worker was busy, from which on it has too much to do."""

_RETRY_INBOX = 0.1
"""Seconds until the inbox is read again if there was no descriptor for what is in it."""

_CHECK_DESCRIPTORS = 1.0
"""Seconds between two checks for free descriptors while there were none."""


class Watcher(WaitingThread):
    """The thread; asleep until `start`."""

    def __init__(
        self,
        pending: PendingWork,
        main_acceptor: MainAcceptor,
        handover: Handover,
        threads: LeaderFollowers | None,
        service: Service,
        *,
        wake: Callable[[], None],
        inbox_stuck: Callable[[], object],
        sibling_silent: Callable[[int], bool],
    ) -> None:
        """To be called by the main thread.  `wake` brings the leader out of the epoll;
        `inbox_stuck` reports to the master that there is no descriptor left for what is in the
        inbox, `sibling_silent` that the sibling of a slot does not read its own; it returns False
        if the report could not be sent."""
        super().__init__()
        self._pending = pending
        self._main_acceptor = main_acceptor
        self._handover = handover
        self._threads = threads
        self._wake_leader = wake
        self._inbox_stuck = inbox_stuck
        self._sibling_silent = sibling_silent
        self._service = service
        self._epoll = service.poller.fileno()
        self._main = get_ident()
        self._quiet = 0
        self._forward_at = 0.0
        self._switch_interval = 0.0
        self._looks = self._busy = 0
        self._window_ends = 0.0
        self._work: tuple[tuple[int, float], dict[int, tuple[int, float]]] | None = None

    def start(self) -> None:
        """Begins to watch, or ends the thread if there can never be anything to do (main
        thread)."""
        if self._threads is None and self._handover.inbox is None:
            self._stopped = True
        super().start()

    def _watch(self) -> None:
        pending = self._pending
        without_epoll, with_epoll = select.poll(), select.poll()
        for poll in (without_epoll, with_epoll):
            poll.register(self._wakeup, select.POLLIN)
            if self._handover.inbox is not None:
                poll.register(self._handover.inbox, select.POLLIN)
        # An epoll that has events is readable itself (epoll(7)), and a thread that waits in it gets
        # them all the same.
        with_epoll.register(self._epoll, select.POLLIN)
        while not self._stopped:
            limit, look_into_epoll = self._look(monotonic())
            if limit is None and not self._alone:
                pending.watcher_asleep = True
                # A thread that began to serve before this has not seen it.
                if pending.serving_since:
                    limit = _TICK
            poll = with_epoll if look_into_epoll else without_epoll
            ready = poll.poll(None if limit is None else limit * 1000)
            pending.watcher_asleep = False
            for fd, _ in ready:
                if fd == self._wakeup:
                    self._quiet = 0
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wakeup)
                elif fd != self._epoll:
                    self._empty_inbox()

    def _look(self, now: float) -> tuple[float | None, bool]:
        """(seconds until the next look, None for no limit; whether to look into the epoll)."""
        pending = self._pending
        limits = [self._check_received(now)] if pending.received else []
        if self._handover.awaits_answer:
            self._report_silent(now)
            limits.append(_TICK)
        if self._handover.receiving_paused:
            self._handover.check_descriptors()
            limits.append(_CHECK_DESCRIPTORS)
        since = pending.serving_since
        if self._alone:
            return min(limits, default=None), False
        self._looks += 1
        self._busy += bool(since)
        if now >= self._window_ends and self._threads is None and self._handover.inbox is not None:
            self._balance(now)
        if self._switch_interval:
            sys.setswitchinterval(self._switch_interval)
            self._switch_interval = 0.0
        if not since:
            self._quiet += 1
            if self._quiet < _QUIET:
                limits.append(_TICK)
            return min(limits, default=None), False
        self._quiet = 0
        serving = now - since
        if serving < _PATIENCE:
            return min((*limits, _PATIENCE - serving)), False
        if self._main_acceptor.armed:  # it was to accept at once, and another was faster
            signal.pthread_kill(self._main, WAKE)
            return _INTERRUPT, False
        if self._threads is not None and self._threads.promote_follower():
            return _TICK, False
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(min(self._switch_interval, _SHORT_SWITCH_INTERVAL))
        return min((*limits, _TICK)), self._hand_over_ready(now)

    @property
    def _alone(self) -> bool:
        """No thread and no sibling could take anything over, so that there is nothing to do."""
        return self._threads is None and self._handover.has_no_sibling

    # Connections from the inbox.

    def _empty_inbox(self) -> None:
        pending = self._pending
        while (received := self._handover.receive()) is not None:
            if not pending.received:
                self._forward_at = monotonic() + _PATIENCE
            pending.received.append(received)
        if pending.received:
            self._wake_leader()
        if self._handover.no_descriptor_left:
            # Reported until the master has taken it. The inbox stays readable: no spinning.
            self._inbox_stuck()
            sleep(_RETRY_INBOX)

    def _check_received(self, now: float) -> float:
        """The main thread has not taken it yet; returns the seconds until the next look."""
        if self._main_acceptor.armed:
            signal.pthread_kill(self._main, WAKE)
            return _INTERRUPT
        if now >= self._forward_at:
            self._forward_at = now + _TICK
            self._pending.forward_received(self._handover)
            if not self._pending.serving_since:
                self._wake_leader()
        return _TICK

    def _report_silent(self, now: float) -> None:
        """Has the master take back what siblings do not take out of their inboxes."""
        for slot in self._handover.silent_siblings(now):
            if self._sibling_silent(slot):
                self._handover.silence_reported(slot)

    # What waits while all threads are in the application.

    def _hand_over_ready(self, now: float) -> bool:
        """Hands over what is ready; returns whether to look into the epoll before the next tick."""
        handover, service, pending = self._handover, self._service, self._pending
        if pending.stopping and handover.has_receiver:
            service.hand_over_all()
        if not handover.has_idle_receiver:
            return False
        while pending.accepted:
            try:
                accepted, listener = pending.accepted.popleft()
            except IndexError:
                break
            fd, peer = accepted
            message = HandoverMessage(listener.inode, peer, ("", ""), b"", now, 0.0, False, False)
            if not handover.send(message, fd, only_idle=True):
                pending.accepted.appendleft((accepted, listener))
                return False
            os.close(fd)
        stayed = False
        for fd, _ in (*self._take_events(), *service.poller.wait(now, 0.0)):
            if not self._pending.is_for_main(fd) and not service.hand_over(fd):
                stayed = True
        return not stayed  # what stays is still ready

    def _take_events(self) -> list[tuple[int, int]]:
        events = []
        with contextlib.suppress(IndexError):
            while True:
                events.append(self._pending.events.popleft())
        return events

    # Connections of which this worker has too many.

    def _balance(self, now: float) -> None:
        """Gives connections to a sibling that does less, if this worker is always busy.

        Kept-alive connections stay with their worker: after handovers one worker may have all of
        them, and a request on none of them waits long.  So an eighth of them goes back at a time.
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
            # Less than two thirds: otherwise connections would go to and fro.
            if (requests - was[0]) * 3 < done * 2:
                self._give_to(slot, now)
                return

    def _give_to(self, slot: int, now: float) -> None:
        poller = self._service.poller
        left = max(len(poller.parked) // 8, 1)
        for fd, _ in poller.wait(now, 0.0):
            if not self._pending.is_for_main(fd) and self._service.hand_over(fd, slot):
                left -= 1
                if not left:
                    return
