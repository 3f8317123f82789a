"""The delay before a worker is forked again while workers fail."""

import random

from msgspec import Struct

SHORTEST, LONGEST, JITTER = 0.1, 30.0, 0.2
"""The first and the last delay in seconds, and the share by which each one is varied."""


class Backoff(Struct):
    """The delay between two spawns of a generation while its workers fail, whatever their slots.

    The first failure causes no delay, since a lone worker that dies is missed at once.  From the
    second in a row on there is one spawn per delay: 0.1 s, doubled with each failure up to 30 s,
    varied by a fifth so that servers which share a broken database don't come back in step.

    "In a row" is by cause and not by time: only a worker spawned after the last counted failure
    counts (`round`), so four workers that meet the same fault together are one failure.  A worker
    of the current round that has served for PROBATION seconds ends the row.  An older one proves
    nothing: it served well all the time while its siblings failed.

    A failure is any death at boot, and a death within PROBATION seconds of readiness, except by
    SIGKILL.  SIGKILL comes from outside (an operator, the OOM killer, a fault test) and says
    nothing against code that has been ready; a worker killed fifty times under load is back fifty
    times at once.  If the OOM killer does it again and again, the pace is that of booting and
    filling the memory.  SIGKILL at boot does count: it may be the OOM killer on a large import.
    """

    rng: random.Random
    failures: int = 0
    round: int = 0
    not_before: float = float("-inf")

    @property
    def delay(self) -> float:
        """Seconds between two spawns, before jitter; it never shrinks within a row of failures."""
        if self.failures < 2:
            return 0.0
        # The bound on the exponent only keeps a float from overflowing in a very long row.
        return min(LONGEST, SHORTEST * 2.0 ** min(self.failures - 2, 32))

    def spawned(self, now: float) -> None:
        self.not_before = now + self.delay * self.rng.uniform(1 - JITTER, 1 + JITTER)

    def fail(self, round: int, now: float, *, free: bool = True) -> None:
        """Counts a failure of a worker of this `round`; if not `free`, even a first one delays."""
        if round == self.round:
            self.round += 1
            self.failures = max(self.failures, 0 if free else 1) + 1
            self.spawned(now)

    def skip(self, now: float) -> None:
        """Lets the next spawn be at once: a good worker is gone, and may be replaced."""
        self.not_before = now

    def reset(self) -> None:
        self.failures, self.not_before = 0, float("-inf")
