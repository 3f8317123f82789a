"""Fairness between workers in accept4().

The kernel wakes the thread that has waited longest in accept4(2) on a socket and takes it off the
list of waiting threads.  Until the woken thread has a CPU, any other that calls accept4 gets the
connection.  The woken one then finds the queue empty and goes to the end of the list: one worker
has had two turns, the other none.  This is no rare race if clients come one after the other: the
end of its connection wakes the client, which may get the CPU of the worker that has just answered,
and connects again before that worker is back.

So each worker has a flag on the scoreboard while it waits, and a worker that is about to call
accept4 looks at the queue and the flags first.  If the queue holds no more connections than idle
siblings wait, each connection has woken a sibling, and the worker gives them a moment.  If it holds
more, or no sibling waits, the worker goes on: this costs one getsockopt(2).
"""

import os
import socket
import sys
from time import monotonic

from prefork.scoreboard import AcceptFlags
from prefork.unpatched import sleep
from prefork.worker.schedule.handover import Handover

_YIELDS = 2
"""Times that the worker yields its CPU first: mostly the woken sibling waits for just that CPU."""

_NAP = 0.00005
"""Seconds between two looks; the timer's slack doubles it (prctl(2), 50 us)."""

_NAPS = 8
"""Naps after the yields: the woken sibling may be stopped."""

_GRACE = 0.001
"""Seconds that a woken sibling gets if the worker that asks does not wait itself."""

_TCP_INFO_DEPTH = slice(24, 28)  # tcpi_unacked: of a listening socket the length of its queue


class AcceptFairness:
    """Fairness of one worker at one TCP listener."""

    def __init__(
        self, listener: socket.socket, flags: AcceptFlags, handover: Handover, number: int
    ) -> None:
        """`number`: of the listener, the same for all workers of a generation; below
        `prefork.scoreboard.LISTENERS`."""
        self._getsockopt = listener.getsockopt
        self._flags = flags
        self._handover = handover
        self._number = number
        self._claimed_since = 0.0

    def set_waiting(self) -> None:
        """This worker is about to wait in accept4."""
        self._flags.set(self._number, True)

    def clear_waiting(self) -> None:
        """This worker has come out of accept4."""
        self._flags.set(self._number, False)

    def yield_to_woken(self) -> None:
        """Waits until woken siblings have taken their connections, about a millisecond at most."""
        if self._handover.has_no_sibling:
            return
        # Counted, not timed: on a busy machine the time may pass while this worker has no CPU.
        for looks in range(_YIELDS + _NAPS):
            if not self._all_claimed(self._queued()):
                return
            if looks < _YIELDS:
                os.sched_yield()
            else:
                sleep(_NAP)

    def may_take(self) -> bool:
        """Whether the queue has a connection for which no sibling was woken.

        A connection counts as such after a millisecond of calls in which no sibling took it.
        """
        queued = self._queued()
        if not queued:
            self._claimed_since = 0.0
            return False
        if not self._all_claimed(queued):
            return True
        now = monotonic()
        if not self._claimed_since:
            self._claimed_since = now
        return now - self._claimed_since >= _GRACE

    def _queued(self) -> int:
        """The number of connections in the listener's queue."""
        try:
            info = self._getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_DEPTH.stop)
        except OSError:  # the listener was replaced
            return 0
        return int.from_bytes(info[_TCP_INFO_DEPTH], sys.byteorder)

    def _all_claimed(self, queued: int) -> bool:
        """Whether there are connections, and a sibling was woken for each."""
        return 0 < queued <= self._handover.count_waiting(self._number)
