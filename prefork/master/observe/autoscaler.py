"""The size of a dynamic pool: demand is measured, and the pool's target follows it.

There is nothing to measure, and no wake-up, unless `[workers] spare` is set.
"""

from collections.abc import Callable, Iterable

from prefork import linux, logs
from prefork.listeners import Listener
from prefork.master.periodic import Periodic, next_tick
from prefork.master.pool import sizing
from prefork.master.pool.plan import WorkerState
from prefork.master.pool.pool import Pool
from prefork.master.processes.children import Children


class Autoscaler(Periodic):
    """Moves the target of a dynamic pool (prefork.master.pool.sizing decides where to)."""

    due: float | None = None
    """None in a fixed pool."""

    def __init__(
        self, pool: Pool, children: Children, listeners: Callable[[], Iterable[Listener]]
    ) -> None:
        """`listeners` are those of the generation that serves."""
        self._pool = pool
        self._children = children
        self._listeners = listeners
        self._sizing = sizing.Sizing()

    def worker_ready(self, now: float) -> None:
        """A worker is ready: its generation, which serves now, may be a dynamic one."""
        if self._pool.bounds is not None and self.due is None:
            self.due = next_tick(now, sizing.BUSY_LOOK)

    def run(self, now: float) -> None:
        """Measures demand and moves the target, if that is due."""
        if self.due is None or now < self.due:
            return
        bounds = self._pool.bounds
        if bounds is None or self._pool.stopping:
            self.due = None
            return
        demand = self._demand()
        before = self._pool.target
        ready = sum(child.worker.state is WorkerState.READY for child in self._children)
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
        self.due = next_tick(now, sizing.BUSY_LOOK if demand.any else sizing.CALM_LOOK)

    def _demand(self) -> sizing.Demand:
        calls = []
        for child in self._children:
            if child.worker.state is WorkerState.READY:
                records = self._children.calls(child)
                calls.append((sum(call.started > 0 for call in records), len(records)))
        queued = sum(linux.listen_queue(listener.sock).depth for listener in self._listeners())
        return sizing.Demand(sizing.busy_workers(calls), queued)
