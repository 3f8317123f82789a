"""The watcher of an event loop: a thread that takes care of what waits while the loop is blocked.

It runs no application code.  It sleeps in poll(2) on the engine's epoll and on the inbox, and so
while the worker is idle.  If connections have become ready, or have come from siblings, and the
loop has made no turn for some milliseconds since, a call computes or waits without `await`: the
connections go to an idle sibling (prefork.worker.schedule.handover).  What belongs to a call stays.

New connections need no watcher: the kernel passes over a loop that does not wait in its epoll.
"""

import contextlib
import os
from collections.abc import Callable

from prefork.unpatched import select
from prefork.worker.schedule.handover import Handover
from prefork.worker.schedule.pending_work import PendingWork
from prefork.worker.schedule.service_interface import Service
from prefork.worker.schedule.waiting_thread import WaitingThread

_PATIENCE = 0.005
"""Seconds without a turn, while events wait, after which the loop counts as blocked."""

_AGAIN = 0.02
"""Seconds until the next look if what waits could not be handed over."""

_EVENTS = 64


class LoopWatcher(WaitingThread):
    """The thread; asleep until `start`."""

    def __init__(
        self,
        service: Service,
        handover: Handover,
        pending: PendingWork,
        turns: Callable[[], int],
        wake_loop: Callable[[], None],
    ) -> None:
        """`turns`: how many turns the loop has made.  `wake_loop`: has it look at `pending`."""
        super().__init__()
        self._service = service
        self._handover = handover
        self._pending = pending
        self._turns = turns
        self._wake_loop = wake_loop

    def _watch(self) -> None:
        both, own = select.poll(), select.poll()
        for poll in (both, own):
            poll.register(self._wakeup, select.POLLIN)
        # An epoll that has events is readable itself (epoll(7)).
        both.register(self._service.poller.fileno(), select.POLLIN)
        inbox = None
        while not self._stopped:
            if inbox is None and (inbox := self._handover.inbox) is not None:
                both.register(inbox, select.POLLIN)
            poll = own if self._handover.has_no_sibling else both
            poll.poll()
            turns = self._turns()
            self._pause(own, _PATIENCE)
            while not self._stopped and self._turns() == turns and self._has_work(both):
                if self._hand_over_ready():
                    self._pause(own, _PATIENCE)
                else:
                    self._pause(own, _AGAIN)

    def _pause(self, own: select.poll, seconds: float) -> None:
        if own.poll(seconds * 1000):
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wakeup)

    def _has_work(self, both: select.poll) -> bool:
        return bool(self._pending.received) or any(fd != self._wakeup for fd, _ in both.poll(0))

    def _hand_over_ready(self) -> bool:
        """Hands over what is ready; returns whether anything was."""
        service, handover, received = self._service, self._handover, self._pending.received
        if not handover.has_idle_receiver:
            return False
        ready = service.poller.ready(_EVENTS)
        moved = [fd for fd, _ in ready if service.hand_over(fd)]
        while handover.inbox is not None and (one := handover.receive()) is not None:
            received.append(one)
        forwarded = self._pending.forward_received(handover)
        if received:
            self._wake_loop()
        return bool(moved) or forwarded
