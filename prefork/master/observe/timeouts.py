"""Requests that pass their timeout: looked for on the scoreboard, and then their worker retires.

The workers send no heartbeats.  The scoreboard says since when each call runs, and the next look
is due when the oldest can be late: an idle server is looked at once a timeout.
"""

from functools import partial
from time import monotonic
from typing import Any

from prefork import channel, logs
from prefork.master.pool.ledger import Ledger
from prefork.master.pool.plan import WorkerState
from prefork.master.pool.pool import Pool
from prefork.master.processes.children import Child, Children
from prefork.scoreboard import CallRecord


def late_calls(
    calls: list[CallRecord], timeout: float, now: float
) -> tuple[list[CallRecord], float]:
    """(calls over the timeout, monotonic seconds at which to look again).

    A call that begins after this look can't be late before `now + timeout`.
    """
    late = []
    look = now + timeout
    for call in calls:
        if call.started:
            if now - call.started >= timeout:
                late.append(call)
            else:
                look = min(look, call.started + timeout)
    return late, look


def _report(child: Child, late: list[CallRecord], now: float, stacks: str) -> None:
    for call in late:
        logs.event(
            "error",
            "request timed out",
            **facts(child, call, now),
            **({"traceback": stacks} if stacks else {}),
        )


def facts(child: Child, call: CallRecord, now: float) -> dict[str, Any]:
    """What an event tells of a call that runs."""
    return {
        "slot": child.slot,
        "pid": child.pid,
        "generation": child.generation.number,
        "request": call.line,
        "peer": call.peer or None,
        "request_id": call.id or None,
        "elapsed": round(now - call.started, 3),
    }


class Timeouts:
    """When to look next, and what comes of it."""

    def __init__(self, pool: Pool, children: Children, ledger: Ledger) -> None:
        self._pool = pool
        self._children = children
        self._ledger = ledger
        self.look_at: float | None = 0.0
        """Monotonic seconds of the next look; None where there is nothing to look at."""

    def look_again(self) -> None:
        """A worker was forked: its timeout may be shorter than the others'."""
        self.look_at = 0.0

    def overslept(self, until: float) -> None:
        """The workers' calls stood still too: no look before that time."""
        self.look_at = until

    def look(self) -> None:
        """Tells the workers whose calls are over their timeout, if a look is due."""
        now = monotonic()
        if self.look_at is None or now < self.look_at:
            return
        looks = []
        for child in self._children:
            timeout = child.generation.config.workers.request_timeout
            if timeout:
                late, look = late_calls(self._children.calls(child), timeout, now)
                looks.append(look)
                worker = self._pool.find(child.pid)
                if late and worker is not None and worker.state is WorkerState.READY:
                    self._expire(child, late, now)
        self.look_at = min(looks, default=None)

    def _expire(self, child: Child, late: list[CallRecord], now: float) -> None:
        # Asked first, so that it is told where the request stands before that is given up, or with
        # the handler of the order on top of it, which is not shown (prefork.stack_dump).
        self._children.stacks.take(child, partial(_report, child, late, now))
        self._ledger.timeouts += len(late)
        self._ledger.restarted("request_timeout")
        self._children.tell(child, channel.ExpireOrder())
        self._pool.expired(child.pid, now)
