"""How long a worker that retires may stay for its clients.

`[workers] graceful_timeout` bounds what the application does after the order to leave.  What only
waits for a client (a file or a response that is complete on our side, an upload that comes) goes on
while it makes progress, which `[http] min_write_rate`, `min_body_rate` and the timeouts beside them
see to, and `[workers] drain_timeout` bounds all of it.
"""

from prefork import logs
from prefork.master.pool.plan import GenerationSettings
from prefork.master.pool.pool import Pool
from prefork.master.processes.children import Children
from prefork.scoreboard import CallRecord, WorkerStats

LOOK = 1.0
"""Seconds between two looks at a worker that stays for its clients."""


def stays_until(
    settings: GenerationSettings,
    calls: list[CallRecord],
    stats: WorkerStats,
    ordered: float,
    now: float,
    *,
    free: bool = False,
) -> float:
    """Monotonic seconds until which a worker may stay, unless a look before finds it idle.

    It is to be killed if they are over.  `ordered`: when it got the order to leave, more than
    `graceful_timeout` ago.  `free`: one of its threads is, and serves the clients whatever the
    application does in others.
    """
    graceful = settings.graceful_timeout
    clients = bool(stats.reading or stats.writing)
    running = [] if free and clients else [call for call in calls if call.started]
    ends = [
        now + LOOK if _waits_for_client(call, graceful, now) else _begun(call, ordered) + graceful
        for call in running
    ]
    if clients:
        ends.append(now + LOOK)
    if not ends:
        # Nothing is left but the end of the process: hooks, callbacks, threads.  It has its time if
        # it began only after that of the application was over.
        last = max(stats.changed, *(call.ended for call in calls))
        ends.append((last if last > ordered + graceful else ordered) + graceful)
    end = min(ends)
    return min(end, ordered + settings.drain_timeout) if settings.drain_timeout else end


def _begun(call: CallRecord, ordered: float) -> float:
    """An upload that was complete only after the order has its call after that."""
    return max(call.started, ordered)


def _waits_for_client(call: CallRecord, graceful: float, now: float) -> bool:
    """Whether a call takes its time because its client does: by most of its time up to now, since
    between two waits it is at work for a moment."""
    if call.waiting:
        return True
    return now - call.at_work_since() < graceful and call.waited * 2 >= now - call.started


def _running(calls: list[CallRecord]) -> int:
    return sum(call.started > 0 for call in calls)


class SlowClients:
    """Gives more time to retiring workers that only wait for their clients."""

    def __init__(self, pool: Pool, children: Children) -> None:
        self._pool = pool
        self._children = children

    def run(self, now: float) -> None:
        """Looks at the workers whose time is over, before the pool has them killed."""
        for worker in self._pool.overdue(now):
            child = self._children.find(worker.pid)
            if child is None:
                continue
            calls, stats = self._children.calls(child), self._children.stats(child)
            # With an event loop, calls that are left at this point keep that from running.
            free = not self._children.beat(child) and 0 < _running(calls) < len(calls)
            until = stays_until(worker.settings, calls, stats, worker.since, now, free=free)
            if until <= now:
                continue
            if not worker.postponed:
                logs.event(
                    "info",
                    "worker stays for its clients",
                    **child.log_fields,
                    clients=stats.held,
                )
            self._pool.postpone(worker, until)
