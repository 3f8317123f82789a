"""The slow log: an entry for each call that runs for longer than `[workers] slow_request`, with the
stacks of its worker, and one for each boot that has used up half of its time.

Nothing is ended here; `request_timeout` and `boot_timeout` do that.
"""

from functools import partial
from weakref import WeakSet

from prefork import logs
from prefork.master.observe.timeouts import call_fields, late_calls
from prefork.master.periodic import Periodic
from prefork.master.pool.plan import WorkerState
from prefork.master.processes.children import Child, Children
from prefork.scoreboard import CallRecord

_Mark = tuple[int, float]
"""A call among those of its worker: its thread, and when it began."""


class SlowLog(Periodic):
    """Logs each slow call and each slow boot once."""

    due: float | None = 0.0
    """None if no worker has a limit."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._boots: WeakSet[Child] = WeakSet()
        self._logged: dict[Child, set[_Mark]] = {}
        self._overslept = False
        self._awake_since = 0.0

    def worker_forked(self) -> None:
        """Its limit may be shorter than the others'."""
        self.due = 0.0

    def overslept(self, seconds: float) -> None:
        """Calls and boots stood still too, for a part of their time that cannot be known."""
        self._overslept = True

    def run(self, now: float) -> None:
        """Logs the calls and boots that have become slow, if a look is due."""
        if self._overslept:
            # A call that began before may have stood still ever since: it is measured from here.
            self._overslept, self._awake_since = False, now
        if self.due is None or now < self.due:
            return
        looks = []
        logged: dict[Child, set[_Mark]] = {}
        for child in self._children:
            looks += self._check_boot(child, now)
            limit = child.generation.config.workers.slow_request
            if not limit:
                continue
            calls = self._children.calls(child)
            slow, look = late_calls(calls, limit, now, self._awake_since)
            looks.append(look)
            before = self._logged.get(child, set())
            fresh = [call for call in slow if _mark(call) not in before]
            if fresh:
                self._children.stacks.request(child, partial(_report, child, fresh, now))
            # Those of each call that still runs: a response may have several slow pieces.
            logged[child] = {_mark(call) for call in calls} & (before | {*map(_mark, slow)})
        self._logged = logged
        self.due = min(looks, default=None)

    def _check_boot(self, child: Child, now: float) -> list[float]:
        """When to look at the boot again, unless the worker is ready before."""
        timeout = child.generation.config.workers.boot_timeout
        if not timeout or child.worker.state is not WorkerState.BOOTING:
            return []
        due = max(child.forked_at, self._awake_since) + timeout / 2
        if now < due:
            return [due]
        if child not in self._boots:
            self._boots.add(child)
            self._children.stacks.request(child, partial(_report_boot, child, now))
        return []


def _report_boot(child: Child, now: float, stacks: str) -> None:
    logs.event(
        "warning",
        "worker boots slowly",
        **child.log_fields,
        elapsed=round(now - child.forked_at, 3),
        **({"traceback": stacks} if stacks else {}),
    )


def _mark(call: CallRecord) -> _Mark:
    return call.thread, call.started


def _report(child: Child, calls: list[CallRecord], now: float, stacks: str) -> None:
    for call in calls:
        text = {"traceback": stacks} if stacks else {"stacks": "the worker has not written them"}
        logs.event("warning", "slow request", **call_fields(child, call, now), **text)
