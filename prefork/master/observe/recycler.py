"""Recycling: workers that have reached a limit of `[workers]` are replaced.

There is nothing to look at, and no wake-up, unless a limit is set (prefork.master.pool.recycling).
"""

import random
from time import monotonic
from weakref import WeakKeyDictionary

from prefork import logs, proc_files
from prefork.master.periodic import Periodic
from prefork.master.pool.ledger import Ledger
from prefork.master.pool.plan import RestartReason
from prefork.master.pool.pool import Pool
from prefork.master.pool.recycling import RecyclingLimits, draw
from prefork.master.processes.children import Child, Children


class Recycler(Periodic):
    """Asks the pool to replace each worker that has reached its limits."""

    due: float | None = None

    def __init__(self, pool: Pool, children: Children, ledger: Ledger) -> None:
        self._pool = pool
        self._children = children
        self._ledger = ledger
        self._rng = random.Random()
        self._limits: WeakKeyDictionary[Child, RecyclingLimits] = WeakKeyDictionary()

    def worker_ready(self, child: Child) -> None:
        """Draws the limits of a worker that begins to serve."""
        limits = draw(child.generation.config.workers, child.forked_at, self._rng)
        look = limits.next_look(monotonic())
        if look is not None:
            self._limits[child] = limits
            self.due = min(look, self.due or look)

    def run(self, now: float) -> None:
        """Reads the requests and the memory of each worker, if a look is due."""
        if self.due is None or now < self.due:
            return
        looks = []
        for child in self._children:
            limits = self._limits.get(child)
            if limits is None:
                continue
            exceeded = limits.exceeded(
                now,
                requests=self._children.requests(child),
                memory=resident(child.pid) if limits.memory else 0,
            )
            if exceeded is None:
                looks.append(limits.next_look(now))
                continue
            del self._limits[child]
            recycle(self._pool, self._ledger, child, *exceeded)
        self.due = min((look for look in looks if look is not None), default=None)


def recycle(pool: Pool, ledger: Ledger, child: Child, limit: RestartReason, reason: str) -> bool:
    """Has a worker replaced, and logs that; False if it does not serve, or is leaving already.

    `limit`: what the restart is counted as; `reason`: the same in words for the log.
    """
    if not pool.recycle(child.pid, monotonic()):
        return False
    ledger.restarted(limit)
    logs.event(
        "info",
        "worker to be recycled",
        **child.log_fields,
        reason=reason,
    )
    return True


def resident(pid: int) -> int:
    """Bytes of a process's memory that are in RAM (RSS, proc(5)); 0 for one that is gone."""
    try:
        return proc_files.resident_memory(pid)
    except OSError:
        return 0
