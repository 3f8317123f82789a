"""What a master looks at from time to time: workers that have served long enough, and demand.

There is nothing to look at, and no wake-up, unless a limit of `[workers]` or `spare` is set.
"""

import random
from collections.abc import Callable, Iterable
from time import monotonic
from weakref import WeakKeyDictionary

from prefork import linux, logs
from prefork.listeners import Listener
from prefork.master.pool import sizing
from prefork.master.pool.ledger import Ledger, Restart
from prefork.master.pool.plan import WorkerState
from prefork.master.pool.pool import Pool
from prefork.master.pool.recycling import RecyclingLimits, draw
from prefork.master.processes.children import Child, Children
from prefork.master.ticks import next_tick


class Upkeep:
    """Tells the pool whom to replace, and how many workers are needed."""

    def __init__(
        self,
        pool: Pool,
        children: Children,
        ledger: Ledger,
        listeners: Callable[[], Iterable[Listener]],
    ) -> None:
        """`listeners` are those of the generation that serves."""
        self._pool = pool
        self._children = children
        self._ledger = ledger
        self._listeners = listeners
        self._rng = random.Random()
        self._allowances: WeakKeyDictionary[Child, RecyclingLimits] = WeakKeyDictionary()
        self._sizing = sizing.Sizing()
        self._recycle_at: float | None = None
        self._size_at: float | None = None

    @property
    def look_at(self) -> float | None:
        """Monotonic seconds at which `look` has something to do; None: only after an event."""
        return min((t for t in (self._recycle_at, self._size_at) if t is not None), default=None)

    def ready(self, child: Child) -> None:
        """A worker is ready: it gets its allowance, and the pool may be another's now."""
        now = monotonic()
        allowance = draw(child.generation.config.workers, child.born, self._rng)
        look = allowance.next_look(now)
        if look is not None:
            self._allowances[child] = allowance
            self._recycle_at = min(look, self._recycle_at or look)
        if self._pool.bounds is not None and self._size_at is None:
            self._size_at = next_tick(now, sizing.BUSY_LOOK)

    def look(self) -> None:
        """Looks at what is due."""
        now = monotonic()
        if self._recycle_at is not None and now >= self._recycle_at:
            self._recycle(now)
        if self._size_at is not None and now >= self._size_at:
            self._size(now)

    def _recycle(self, now: float) -> None:
        looks = []
        for child in self._children:
            allowance = self._allowances.get(child)
            if allowance is None:
                continue
            exceeded = allowance.exceeded(
                now,
                requests=self._children.requests(child),
                memory=resident(child.pid) if allowance.memory else 0,
            )
            if exceeded is None:
                looks.append(allowance.next_look(now))
                continue
            del self._allowances[child]
            recycle(self._pool, self._ledger, child, *exceeded)
        self._recycle_at = min((look for look in looks if look is not None), default=None)

    def _size(self, now: float) -> None:
        bounds = self._pool.bounds
        if bounds is None or self._pool.stopping:
            self._size_at = None
            return
        demand = self._demand()
        before = self._pool.target
        ready = sum(worker.state is WorkerState.READY for worker in self._pool.members())
        target = self._sizing.decide(bounds, demand, target=before, ready=ready, now=now)
        if target != before:
            self._pool.resize(target)
            logs.event(
                "info",
                "pool resized",
                workers=target,
                before=before,
                busy=demand.busy,
                queued=demand.queued,
            )
        self._size_at = next_tick(now, sizing.BUSY_LOOK if demand.any else sizing.CALM_LOOK)

    def _demand(self) -> sizing.Demand:
        calls = []
        for child in self._children:
            worker = self._pool.find(child.pid)
            if worker is not None and worker.state is WorkerState.READY:
                records = self._children.calls(child)
                calls.append((sum(call.started > 0 for call in records), len(records)))
        queued = sum(linux.queue(listener.sock).depth for listener in self._listeners())
        return sizing.Demand(sizing.busy_workers(calls), queued)


def recycle(pool: Pool, ledger: Ledger, child: Child, limit: Restart, why: str) -> bool:
    """Has a worker replaced, and says so; False where it is not one that serves, or leaves already.

    `limit`: what it is counted as; `why`: that in words for the log.
    """
    if not pool.recycle(child.pid, monotonic()):
        return False
    ledger.restarted(limit)
    logs.event(
        "info",
        "worker to be recycled",
        slot=child.slot,
        pid=child.pid,
        generation=child.generation.number,
        reason=why,
    )
    return True


def resident(pid: int) -> int:
    """Bytes of a process's memory that are in RAM (RSS, proc(5)); 0 for one that is gone."""
    import psutil  # a megabyte that every worker would share, for a limit that few set

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
