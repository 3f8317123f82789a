"""Whose turn it is in accept4().

The kernel wakes the one that has waited longest in accept4(2) on a socket and takes it off the list
of those who wait.  Until the woken one has a CPU, whoever comes along and calls accept4 gets the
connection: the woken one finds the queue empty and goes to the end of the list, so the one has had
two turns and the other none.  Where clients come one after the other this is no rare race: the end
of its connection wakes the client, which may get the CPU of the worker that has just answered, and
has connected anew before that is back.

So each worker says on the scoreboard that it waits, and one that comes to accept4 looks first: as
many connections as there are idle siblings that wait were theirs already, and it gives them a
moment.  Where more connections wait, or no sibling does, it goes on: a getsockopt(2) is the price.
"""

import os
import socket
import sys
from time import monotonic, sleep

from prefork.scoreboard import AcceptFlags
from prefork.worker.schedule.handover import Handover

_YIELDS = 2
"""Times that this CPU is offered first: most times the woken sibling waits for just that."""

_NAP = 0.00005
"""Seconds between two looks; with the timer's slack it is twice as long (prctl(2), 50 us)."""

_NAPS = 8
"""Naps that a sibling then gets to take what it was woken for: it may be stopped."""

_PATIENCE = 0.001
"""Seconds that it gets from one who is at work."""

_TCP_INFO_DEPTH = slice(24, 28)  # tcpi_unacked: of a listening socket the length of its queue


class AcceptFairness:
    """One worker's turns at one TCP listener."""

    def __init__(
        self, listener: socket.socket, waits: AcceptFlags, handover: Handover, number: int
    ) -> None:
        """`number`: of the listener, the same for all workers of a generation."""
        self._tell = listener.getsockopt
        self._waits = waits
        self._handover = handover
        self._number = number
        self._claimed_since = 0.0

    def begin(self) -> None:
        """This worker goes to accept4."""
        self._waits.set(self._number, True)

    def end(self) -> None:
        self._waits.set(self._number, False)

    def let_pass(self) -> None:
        """Waits until nothing is left in the queue that was a sibling's, or for a moment."""
        if self._handover.alone:
            return
        # Counted, not timed: on a busy machine the time may pass while this worker has no CPU.
        for looks in range(_YIELDS + _NAPS):
            if not self._claimed(self._queued()):
                return
            if looks < _YIELDS:
                os.sched_yield()
            else:
                sleep(_NAP)

    def mine(self) -> bool:
        """Whether there is a connection in the queue that nobody was woken for.

        Who asks again and again has asked in vain for a moment at most, as in `let_pass`.
        """
        queued = self._queued()
        if not queued:
            self._claimed_since = 0.0
            return False
        if not self._claimed(queued):
            return True
        now = monotonic()
        if not self._claimed_since:
            self._claimed_since = now
        return now - self._claimed_since >= _PATIENCE

    def _queued(self) -> int:
        """How many connections wait."""
        try:
            info = self._tell(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_DEPTH.stop)
        except OSError:  # the door was shut
            return 0
        return int.from_bytes(info[_TCP_INFO_DEPTH], sys.byteorder)

    def _claimed(self, queued: int) -> bool:
        """Whether there are some, and a sibling was woken for each."""
        return 0 < queued <= self._handover.waiting(self._number)
