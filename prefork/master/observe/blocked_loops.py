"""Workers whose event loop is blocked: a call computes, or waits without `await`.

Such a loop serves nobody else meanwhile.  While calls run, a loop writes the time to the scoreboard
once a second (its beat): if that is old, the stacks of the worker are logged, which show the call.
"""

from functools import partial

from prefork import logs
from prefork.master.periodic import Periodic, next_tick
from prefork.master.pool.ledger import Ledger
from prefork.master.pool.plan import WorkerState
from prefork.master.processes.children import Child, Children
from prefork.scoreboard import BLOCKED

_LOOK = 1.0
"""Seconds between two looks while calls run."""

_IDLE_LOOK = 4.0
"""The same while none runs; at moments at which the master looks at its listeners anyway."""


def blocked_for(children: Children, child: Child, now: float) -> float:
    """Seconds for which a worker's event loop has been blocked; 0.0 if it is not, or has none.

    Counted from its last turn: the call that blocks it began a second later at most.
    """
    beat = children.beat(child)
    if not beat or now - beat < BLOCKED or child.worker.state is WorkerState.BOOTING:
        return 0.0
    return now - beat if any(call.started for call in children.calls(child)) else 0.0


class BlockedLoops(Periodic):
    """Logs each time that a loop is blocked once, and when it turns again."""

    due: float | None = 0.0
    """None if no worker has an event loop, as far as is known."""

    def __init__(self, children: Children, ledger: Ledger) -> None:
        self._children = children
        self._ledger = ledger
        self._blocked: dict[Child, float] = {}
        self._awake_since = 0.0
        self._overslept = False

    def worker_ready(self, child: Child) -> None:
        """A worker is ready: it may have an event loop."""
        if self.due is None and self._children.beat(child):
            self.due = 0.0

    def overslept(self, seconds: float) -> None:
        """The loops stood still too."""
        self._overslept = True

    def run(self, now: float) -> None:
        """Looks at all loops, if that is due."""
        if self._overslept:
            self._overslept, self._awake_since = False, now
        if self.due is None or now < self.due:
            return
        calls = loops = False
        blocked = {}
        for child in self._children:
            beat = self._children.beat(child)
            if not beat or child.worker.state is WorkerState.BOOTING:
                continue
            loops = True
            running = any(call.started for call in self._children.calls(child))
            calls = calls or running
            since = max(beat, self._awake_since)
            if running and now - since >= BLOCKED:
                blocked[child] = beat
                if child not in self._blocked:
                    self._ledger.loop_blocks += 1
                    self._children.stacks.request(child, partial(self._report, child, since, now))
        for child, since in self._blocked.items():
            if child not in blocked and self._children.find(child.pid) is child:
                # The loop itself knows when it went on: up to a second before this look.
                began, ended = self._children.pause(child)
                until = ended if began == since else now
                logs.event("info", "loop turns again", **_fields(child, since, until))
        self._blocked = blocked
        self.due = next_tick(now, _LOOK if calls else _IDLE_LOOK) if loops else None

    def _report(self, child: Child, since: float, now: float, stacks: str) -> None:
        requests = [call.line for call in self._children.calls(child) if call.started]
        logs.event(
            "warning",
            "loop blocked",
            **_fields(child, since, now),
            requests="; ".join(requests),
            **({"traceback": stacks} if stacks else {}),
        )


def _fields(child: Child, since: float, now: float) -> dict[str, object]:
    return {
        **child.log_fields,
        "elapsed": round(now - since, 3),
    }
