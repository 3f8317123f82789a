"""Requests that pass their timeout are found on the scoreboard, and their worker retires.

The workers send no heartbeats.  The scoreboard shows since when each call runs, and the next look
is due when the oldest can be late: on an idle server, that is once in a timeout.
"""

from typing import Any
from weakref import WeakKeyDictionary

from prefork import channel, logs
from prefork.master.observe.blocked_loops import blocked_for
from prefork.master.periodic import Periodic
from prefork.master.pool.ledger import Ledger
from prefork.master.pool.plan import WorkerState
from prefork.master.pool.pool import Pool
from prefork.master.processes.children import Child, Children
from prefork.scoreboard import CallRecord

_PAUSE = 0.02
"""Seconds between two looks, at least."""

_CANCELLATION = 3.0
"""Seconds that a worker with an event loop has to find a late call, and to cancel it."""

_RESPITE = 1.0
"""Seconds that calls get to end, after all processes of the server stood still."""


def late_calls(
    calls: list[CallRecord], timeout: float, now: float, since: float = 0.0
) -> tuple[list[CallRecord], float]:
    """(calls over the timeout, monotonic seconds at which to look again).

    The time of a call is that of the application at work on the next piece of its response; while
    it waits for its client it has none.  One that begins after this look can't be late before
    `now + timeout`.  One that began before `since` is taken to have begun then.  There is a pause
    between two looks, whatever a worker writes into its slot.
    """
    late = []
    look = now + timeout
    for call in calls:
        if call.started:
            begun = call.at_work_since(since)
            if now - begun >= timeout:
                late.append(call)
            else:
                look = min(look, begun + timeout)
    return late, max(look, now + _PAUSE)


def _report(
    child: Child, late: list[CallRecord], now: float, *, cancelled: bool, stacks: str
) -> None:
    """`cancelled`: the worker has logged them itself, and cancelled their tasks."""
    for call in late:
        fields = call_fields(child, call, now) | ({"traceback": stacks} if stacks else {})
        if cancelled:
            logs.event("warning", "cancelled call goes on", **fields)
        else:
            logs.event("error", "request timed out", **fields)


def call_fields(child: Child, call: CallRecord, now: float) -> dict[str, Any]:
    """The fields of an event about a call that runs."""
    return {
        **child.log_fields,
        "request": call.line,
        "peer": call.peer or None,
        "request_id": call.id or None,
        "elapsed": round(max(now - call.at_work_since(), 0.0), 3),
        **({"total": round(now - call.started, 3)} if call.resumed else {}),
    }


class Timeouts(Periodic):
    """Has the workers replaced whose calls run for longer than their `request_timeout`."""

    due: float | None = 0.0
    """None if no worker has a timeout."""

    def __init__(self, pool: Pool, children: Children, ledger: Ledger) -> None:
        self._pool = pool
        self._children = children
        self._ledger = ledger
        self._overslept = False
        self._found: WeakKeyDictionary[Child, set[float]] = WeakKeyDictionary()
        """The late calls that were dealt with, by the time at which they began."""

    def worker_forked(self) -> None:
        """Its timeout may be shorter than the others'."""
        self.due = 0.0

    def overslept(self, seconds: float) -> None:
        """The workers' calls stood still too: they get a moment to end before the next look."""
        self._overslept = True

    def run(self, now: float) -> None:
        """Expires the workers whose calls are over their timeout, if a look is due."""
        if self._overslept:
            self._overslept = False
            self.due = now + _RESPITE
        if self.due is None or now < self.due:
            return
        looks = []
        for child in self._children:
            timeout = self._limit(child)
            if timeout:
                late, look = late_calls(self._children.calls(child), timeout, now)
                looks.append(look)
                worker, found = child.worker, self._found.setdefault(child, set())
                # A stuck thread stays stuck, in a worker that stays for slow clients.
                late = [call for call in late if call.started not in found]
                if late and (worker.state is WorkerState.READY or worker.postponed):
                    found |= {call.started for call in late}
                    self._expire(child, late, now)
        self.due = min(looks, default=None)

    def _limit(self, child: Child) -> float:
        """Seconds at work after which a call is too late for the master; 0 for no limit.

        A worker with an event loop cancels late calls by itself, and goes on.
        """
        timeout = child.generation.config.workers.request_timeout
        return timeout + _CANCELLATION if timeout and self._children.beat(child) else timeout

    def _expire(self, child: Child, late: list[CallRecord], now: float) -> None:
        # The stacks come first, so that they show where the request is before it is given up, or
        # with the handler of the order on top, which is not shown (prefork.stack_dump).
        blocked = blocked_for(self._children, child, now)
        cancelled = bool(self._children.beat(child)) and not blocked  # by a loop that turns
        if not cancelled:
            self._ledger.timeouts += len(late)
        self._children.stacks.request(
            child, lambda stacks: _report(child, late, now, cancelled=cancelled, stacks=stacks)
        )
        if child.worker.state is WorkerState.READY:
            self._ledger.restarted("request_timeout")
        self._children.send(child, channel.ExpireOrder())
        self._pool.replace_now(child.pid, now)
