"""What the loop asks of each part of the master, and the ticks of the clock that they share."""

import math
from collections.abc import Iterable


class Periodic:
    """A part of the master; the loop goes over one list of them.

    A part that has no timer, no descriptor or nothing to release keeps the methods of this class.
    """

    @property
    def due(self) -> float | None:
        """Monotonic seconds at which `run` has something to do; in the past: at once.

        None if only an event can change that.
        """
        return None

    def run(self, now: float) -> None:
        """Does what is due at `now`.  The loop calls it in each round, so often before `due`."""

    def overslept(self, seconds: float) -> None:
        """The loop woke up `seconds` later than planned, before the `run` of this round.

        The machine or this process stood still (SIGSTOP, a frozen cgroup), and most likely all
        processes of the server did: a deadline that passed meanwhile proves no failure.
        """

    def descriptors(self) -> Iterable[int]:
        """All that are open here, for a forked child to close."""
        return ()

    def close(self) -> None:
        """Releases the resources of this part: the server has stopped."""


def next_tick(now: float, seconds: float) -> float:
    """The next full `seconds` of the clock: looks for several reasons are then one wake-up."""
    return (math.floor(now / seconds) + 1) * seconds
