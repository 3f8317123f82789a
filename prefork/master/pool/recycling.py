"""The limits after which a worker is replaced: pure logic, clock and readings are passed in.

Each worker has limits of its own, drawn when it is ready, so that workers which began together do
not end together: of requests, up to `max_requests_jitter` more than `max_requests`; of time, up to
a tenth less than `max_age`, which promises that no worker is older.

Requests are read from the scoreboard, so that they cost a worker nothing; a worker serves a few
more than its limit until the next look.  Memory is the resident set (RSS), which `ps` shows and no
other process changes.  The proportional set (PSS) of a worker would grow when a sibling that shares
its pages exits, and reading it walks the worker's page tables under a lock.
"""

import random
from typing import Literal

from msgspec import Struct

from prefork.config import Workers
from prefork.config.values import MIB
from prefork.master.periodic import next_tick
from prefork.quantity import quantity

Limit = Literal["max_requests", "max_age", "max_memory"]

LOOK = 1.0
"""Seconds between two looks at requests and memory, if one of them is limited."""

AGE_JITTER = 0.1


class RecyclingLimits(Struct, frozen=True):
    """Limits of one worker, 0 for none; `until`: seconds of the clock, `memory`: bytes."""

    requests: int = 0
    until: float = 0.0
    memory: int = 0

    def exceeded(self, now: float, *, requests: int, memory: int) -> tuple[Limit, str] | None:
        """The limit that was reached, and the same in words for the log; None if there is none.

        `memory` is in bytes.  A reading that has no limit is not used, and may be 0.
        """
        if self.requests and requests >= self.requests:
            return "max_requests", quantity(requests, "request")
        if self.until and now >= self.until:
            return "max_age", "its age"
        if self.memory and memory >= self.memory:
            # The next one will have as much, too: a worker a second is replaced until it is raised.
            early = "" if requests else " before its first request; raise workers.max_memory"
            return "max_memory", f"{memory / MIB:.0f} MiB of memory{early}"
        return None

    def next_look(self, now: float) -> float | None:
        """When a limit may have been reached; None if there is none."""
        times = [self.until] if self.until else []
        if self.requests or self.memory:
            times.append(next_tick(now, LOOK))
        return min(times, default=None)


def draw(workers: Workers, forked_at: float, rng: random.Random) -> RecyclingLimits:
    """The limits of a worker that was forked at `forked_at` (seconds of the clock)."""
    requests = workers.max_requests
    if requests:
        requests += rng.randint(0, workers.max_requests_jitter)
    age = workers.max_age * rng.uniform(1 - AGE_JITTER, 1)
    return RecyclingLimits(requests, forked_at + age if age else 0.0, workers.max_memory)
