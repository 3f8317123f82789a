"""How long to wait before a worker is forked again while workers fail."""

import random

from msgspec import Struct

SHORTEST, LONGEST, JITTER = 0.1, 30.0, 0.2
"""The first and the last delay in seconds, and the share by which each one is varied."""


class Backoff(Struct):
    """The delay between a generation's spawns while its workers fail: one, whatever the slot.

    The first failure costs nothing, since a lone worker that dies is missed at once. From the
    second in a row on there is one spawn per delay: 0.1 s, doubled with each failure up to 30 s,
    varied by a fifth so that servers which share a broken database don't come back in step.

    "In a row" is by cause and not by time: only a worker spawned after the last counted failure
    counts (`round`), so four workers that meet the same fault together are one failure. A worker
    of the current round that has served for PROOF seconds ends the row. An older one proves
    nothing: it was well all the time while its siblings failed.

    What counts as a failure: any death at boot, and a death within PROOF seconds of readiness,
    except by SIGKILL. SIGKILL comes from outside (an operator, the OOM killer, a fault test) and
    says nothing against code that has been ready; a worker killed fifty times under load is back
    fifty times at once. Should the OOM killer do it again and again, the pace is that of booting
    and filling the memory. SIGKILL at boot does count: it may be the OOM killer on a large import.
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
        """Count a failure of a worker spawned in `round`; with `free=False` even a first costs."""
        if round == self.round:
            self.round += 1
            self.failures = max(self.failures, 0 if free else 1) + 1
            self.spawned(now)

    def grant(self, now: float) -> None:
        """Let the next spawn be at once: a good worker is gone, and its place is not in doubt."""
        self.not_before = now

    def reset(self) -> None:
        self.failures, self.not_before = 0, float("-inf")
