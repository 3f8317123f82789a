"""When a worker has served long enough: pure logic, with the clock and the readings passed in.

Each worker has an allowance of its own, drawn when it is ready, so that workers which began
together do not end together: of requests, up to `max_requests_jitter` more than `max_requests`;
of time, up to a tenth less than `max_age`, which is the promise that nobody is older.

Requests are read off the scoreboard, so that they cost a worker nothing; a few more than allowed
are served until that is next looked at.  Memory is the resident set (RSS): what `ps` shows, and
what no other process changes.  The proportional one (PSS) of a worker would grow when a sibling
that shares its pages goes, and reading it walks the worker's page tables under a lock.
"""

import random
from typing import Literal

from msgspec import Struct

from prefork.config import Workers
from prefork.config.values import MIB
from prefork.master.periodic import next_tick

Limit = Literal["max_requests", "max_age", "max_memory"]

LOOK = 1.0
"""Seconds between two looks at requests and memory, where one of them is limited."""

AGE_JITTER = 0.1


class RecyclingLimits(Struct, frozen=True):
    """What one worker may reach; 0 for no limit, `until` in seconds of the clock."""

    requests: int = 0
    until: float = 0.0
    memory: int = 0

    def exceeded(self, now: float, *, requests: int, memory: int) -> tuple[Limit, str] | None:
        """The limit that it has reached, and that in words for the log; None while it may serve on.

        `memory` in bytes; what has no limit need not be read, and may be given as 0.
        """
        if self.requests and requests >= self.requests:
            return "max_requests", f"{requests} requests"
        if self.until and now >= self.until:
            return "max_age", "its age"
        if self.memory and memory >= self.memory:
            return "max_memory", f"{memory / MIB:.0f} MiB of memory"
        return None

    def next_look(self, now: float) -> float | None:
        """When it may have been reached; None where nothing is limited."""
        times = [self.until] if self.until else []
        if self.requests or self.memory:
            times.append(next_tick(now, LOOK))
        return min(times, default=None)


def draw(workers: Workers, born: float, rng: random.Random) -> RecyclingLimits:
    """The allowance of a worker that was born at `born`."""
    requests = workers.max_requests
    if requests:
        requests += rng.randint(0, workers.max_requests_jitter)
    age = workers.max_age * rng.uniform(1 - AGE_JITTER, 1)
    return RecyclingLimits(requests, born + age if age else 0.0, workers.max_memory)
