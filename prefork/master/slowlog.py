"""The slow log: one entry for each call over `[workers] slow_request`, with where it stands.

A call that is told here goes on; it is `request_timeout` that ends one.
"""

from functools import partial
from time import monotonic

from prefork import logs
from prefork.master.children import Child, Children
from prefork.master.timeouts import facts, late_calls
from prefork.scoreboard import Call

_Mark = tuple[int, float]
"""What tells a call from others of its worker: its thread, and when it began."""


class SlowLog:
    """When to look next, and who was told of."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._told: dict[Child, set[_Mark]] = {}
        self.look_at: float | None = 0.0
        """Monotonic seconds of the next look; None where there is nothing to look at."""

    def look_again(self) -> None:
        """A worker was forked: its limit may be shorter than the others'."""
        self.look_at = 0.0

    def look(self) -> None:
        """Tells of the calls that have become slow, if a look is due."""
        now = monotonic()
        if self.look_at is None or now < self.look_at:
            return
        looks = []
        told: dict[Child, set[_Mark]] = {}
        for child in self._children:
            limit = child.generation.config.workers.slow_request
            if not limit:
                continue
            slow, look = late_calls(self._children.calls(child), limit, now)
            looks.append(look)
            before = self._told.get(child, set())
            fresh = [call for call in slow if _mark(call) not in before]
            if fresh:
                self._children.stacks.take(child, partial(_tell, child, fresh, now))
            told[child] = {_mark(call) for call in slow}
        self._told = told
        self.look_at = min(looks, default=None)


def _mark(call: Call) -> _Mark:
    return call.thread, call.started


def _tell(child: Child, calls: list[Call], now: float, stacks: str) -> None:
    for call in calls:
        why = {"traceback": stacks} if stacks else {"stacks": "the worker has not written them"}
        logs.event("warning", "slow request", **facts(child, call, now), **why)
