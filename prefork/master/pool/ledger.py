"""What has been counted since the server was started: the work of dead workers, restarts, reloads.

A worker's counters are on the scoreboard, in a slot that its successor gets.  When a worker is
reaped they are added here; status and metrics show the sum of both, which never goes back.  The
ledger goes to the next master at an upgrade.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct, field

from prefork import linux
from prefork.master.pool.plan import RestartReason
from prefork.master.snapshot import LedgerSnapshot
from prefork.scoreboard import Counters

Result = Literal["success", "failed", "superseded"]
"""How a reload or an upgrade ended."""


class Ledger(Struct):
    """Numbers that only grow."""

    done: Counters = Counters()
    """The work of dead workers."""
    restarts: Counter[str] = field(default_factory=Counter)
    reloads: Counter[str] = field(default_factory=Counter)
    upgrades: Counter[str] = field(default_factory=Counter)
    timeouts: int = 0
    """Requests that passed `request_timeout`, as the master has found; `Counters.timed_out` has the
    others."""
    loop_blocks: int = 0
    """How often an event loop was blocked."""
    overflows_before: int = 0
    """The count of the kernel when the server was started."""

    def add_dead(self, done: Counters) -> None:
        """Adds a dead worker's counters, before its slot is cleared."""
        self.done = self.done.plus(done)

    def total(self, living: Iterable[Counters]) -> Counters:
        """All work; `living`: the counters of the workers that were not added here."""
        total = self.done
        for each in living:
            total = total.plus(each)
        return total

    def restarted(self, reason: RestartReason) -> None:
        self.restarts[reason] += 1

    def reloaded(self, result: Result) -> None:
        self.reloads[result] += 1

    def upgraded(self, result: Result) -> None:
        self.upgrades[result] += 1

    def overflows(self, counted: int) -> int:
        """Overflows of listen queues since the start; `counted`: the kernel's count now."""
        return max(counted - self.overflows_before, 0)

    def snapshot(self) -> LedgerSnapshot:
        return LedgerSnapshot(
            **self.done._asdict(),
            restarts=dict(self.restarts),
            reloads=dict(self.reloads),
            upgrades=dict(self.upgrades),
            timeouts=self.timeouts,
            loop_blocks=self.loop_blocks,
            overflows_before=self.overflows_before,
        )

    @staticmethod
    def restore(state: LedgerSnapshot) -> "Ledger":
        """The ledger of the master before."""
        done = Counters(
            *(state.cells, state.bytes, state.seconds, state.queued, state.waited),
            *(state.displaced, state.timed_out),
        )
        return Ledger(
            done,
            Counter(state.restarts),
            Counter(state.reloads),
            Counter(state.upgrades),
            state.timeouts,
            state.loop_blocks,
            state.overflows_before,
        )


def begin() -> Ledger:
    """The ledger of a server that starts."""
    return Ledger(overflows_before=linux.listen_overflows())
