"""The number of workers that a dynamic pool should have: pure logic, the clock is passed in.

The pool needs a worker for each that is busy, one for each connection that waits in a listen queue,
and the spare ones.  A pool that has fewer grows at once, by 1, 2, 4, ... workers, each step when
those of the last one are ready: a short burst costs one worker, a lasting one is met soon.  A pool
that has more shrinks late and one by one: a worker too many costs memory, one too few costs time.
"""

import math
from collections.abc import Iterable

from msgspec import Struct

from prefork.pool_bounds import PoolBounds

BUSY_LOOK = 0.25
"""Seconds between two looks while there is demand."""

CALM_LOOK = 1.0
"""Seconds between two looks while there is none.  No event reports that a worker got busy."""

CALM = 10.0
"""Seconds for which fewer workers must have been enough, at every look, before one retires."""

PACE = 1.0
"""Seconds between two workers that retire, while it stays calm."""


class Demand(Struct, frozen=True):
    """What one look has found: `busy` is in workers, `queued` in connections."""

    busy: int
    queued: int

    @property
    def any(self) -> bool:
        return bool(self.busy or self.queued)


def busy_workers(calls: Iterable[tuple[int, int]]) -> int:
    """The number of workers that the calls under way would fill.

    `calls`: of each worker, (calls that run, threads).
    """
    shares = sum(running / threads for running, threads in calls)
    return math.ceil(round(shares, 6))  # three thirds are one


class Sizing:
    """Decides at each look, from that and from the last ones."""

    def __init__(self) -> None:
        self._step = 1
        self._calm_since: float | None = None

    def decide(
        self, bounds: PoolBounds, demand: Demand, *, target: int, ready: int, now: float
    ) -> int:
        """The new target, within the bounds.

        `target`: the number of workers that there should be now, of which `ready` can serve.
        """
        target = bounds.fit(target)
        need = bounds.fit(demand.busy + demand.queued + bounds.spare)
        if need > target:
            return self._grow(target, need, ready)
        self._step = 1
        if need == target:
            self._calm_since = None
            return target
        return self._shrink(target, now)

    def _grow(self, target: int, need: int, ready: int) -> int:
        self._calm_since = None
        if ready < target:
            return target  # those of the last step are on their way
        step, self._step = self._step, self._step * 2
        return min(target + step, need)

    def _shrink(self, target: int, now: float) -> int:
        if self._calm_since is None:
            self._calm_since = now
        if now - self._calm_since < CALM:
            return target
        self._calm_since = now - CALM + PACE
        return target - 1
