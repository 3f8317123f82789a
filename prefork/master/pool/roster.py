"""The roster: the living workers, their generations, and what follows at once from an event.

It is the state of the pool, without a system call or a clock.
"""

import math
import random

from msgspec import Struct

from prefork.master.pool.backoff import Backoff
from prefork.master.pool.plan import (
    Abandoned,
    FirstBootFailed,
    GenerationSettings,
    Order,
    Outcome,
    QuitAction,
    RetireAction,
    Stalled,
    Superseded,
    Worker,
    WorkerState,
)
from prefork.pool_bounds import PoolBounds

EXIT_GRACE = 1.0
"""Seconds for a worker to exit after the order to quit, or after it reported a failed boot."""

PROBATION = 5.0
"""Seconds after readiness in which a worker's death counts as a failure of its generation."""

STALL_AFTER = 5
"""Failures in a row after which a rollout is reported as stuck, in the first second of backoff."""


class PoolGeneration(Struct):
    number: int
    settings: GenerationSettings
    backoff: Backoff
    target: int
    bounds: PoolBounds | None
    concluded: bool = False  # its start has had its one outcome
    stalled: bool = False  # it was reported as stuck
    withdrawn: bool = False

    @property
    def set_by_hand(self) -> bool:
        """Whether an operator has set the number of workers, or the bounds."""
        if self.settings.bounds:
            return self.bounds != self.settings.bounds
        return self.target != self.settings.count


class Roster:
    """The living workers, and the generations that they belong to."""

    def __init__(self, rng: random.Random, max_slots: int) -> None:
        self.rng = rng
        self.max_slots = max_slots
        self.workers: dict[int, Worker] = {}
        """By pid."""
        self.pending: dict[int, tuple[PoolGeneration, int]] = {}
        """Spawns without an answer, by slot: the generation, and the round of its backoff."""
        self.current: PoolGeneration | None = None
        """The generation that serves."""
        self.candidate: PoolGeneration | None = None
        """The generation on trial."""
        self.stop_mode: Order = RetireAction
        """The order that a worker gets now if it has to leave."""
        self.outcomes: list[Outcome] = []
        """Those that no plan has reported yet."""
        self.spawned_at = -math.inf
        """When the last spawn was asked for."""
        self.stopped = False
        self.ever_ready = False

    @property
    def stopping(self) -> bool:
        return self.stop_mode is not RetireAction

    @property
    def wanted(self) -> int:
        if self.current is None or self.current.withdrawn or self.stopping:
            return 0
        return self.current.target

    @property
    def booting(self) -> int:
        """Workers that are not ready, and spawns that are not answered."""
        booting = sum(worker.state is WorkerState.BOOTING for worker in self.workers.values())
        return booting + len(self.pending)

    def members(self) -> list[Worker]:
        """All living workers, by slot, retiring ones included."""
        return sorted(self.workers.values(), key=lambda worker: worker.slot)

    def generations(self) -> list[PoolGeneration]:
        return [each for each in (self.current, self.candidate) if each]

    # Generations.

    def take_pending(self, slot: int, generation: int) -> tuple[PoolGeneration, int] | None:
        asked = self.pending.get(slot)
        return self.pending.pop(slot) if asked and asked[0].number == generation else None

    def commit(self, candidate: PoolGeneration) -> None:
        if self.current and not self.current.concluded:
            self.outcomes.append(Superseded(self.current.number))
        self.current, self.candidate = candidate, None
        self.ever_ready = True

    def abandon(self, reason: str) -> None:
        """Gives up the rollout and the trial that are under way."""
        if self.current and not self.current.concluded:
            self.current.concluded = True
            self.outcomes.append(Abandoned(self.current.number, reason))
        if self.candidate:
            self.outcomes.append(Abandoned(self.candidate.number, reason))
            self.candidate = None

    def count_failure(
        self, generation: int, round: int, reason: str, now: float, *, free: bool = True
    ) -> None:
        """A worker failed: that ends a candidate, and is a step of backoff for the current one."""
        if self.candidate and generation == self.candidate.number:
            self.candidate = None
            if self.ever_ready:
                self.outcomes.append(Abandoned(generation, reason))
            else:
                self.stop_mode = QuitAction
                self.outcomes.append(FirstBootFailed(reason))
        elif self.current and generation == self.current.number:
            self.end_probation(now)
            self.current.backoff.fail(round, now, free=free)
            self._report_stall(self.current, reason)

    def _report_stall(self, current: PoolGeneration, reason: str) -> None:
        under_way = not (current.concluded or current.stalled)
        if under_way and current.backoff.failures >= STALL_AFTER:
            current.stalled = True
            self.outcomes.append(Stalled(current.number, reason))

    def skip_backoff(self, generation: int, now: float) -> None:
        if self.current and generation == self.current.number:
            self.end_probation(now)
            self.current.backoff.skip(now)

    def probation_end(self) -> float:
        """When the first worker of the current round will have proved its generation.

        Infinity if there is none.
        """
        current = self.current
        return min(
            (
                worker.since + PROBATION
                for worker in self.workers.values()
                if current
                and worker.generation == current.number
                and worker.state is WorkerState.READY
                and worker.round == current.backoff.round
            ),
            default=math.inf,
        )

    def end_probation(self, now: float) -> None:
        if self.current and self.probation_end() <= now:
            self.current.backoff.reset()

    # Workers.

    def retire_now(self, worker: Worker, now: float) -> None:
        """A good worker leaves outside the plan; its slot is filled at once."""
        self.skip_backoff(worker.generation, now)
        self.retire(worker, now)

    def retire(self, worker: Worker, now: float) -> None:
        """Orders a worker to leave in the current stop mode, within `graceful_timeout`."""
        self.expect_end(worker, now)
        worker.order, worker.repeat_at = self.stop_mode, now
        worker.leaving = worker.killed = False

    def expect_end(self, worker: Worker, now: float) -> None:
        """A worker that leaves has from now on the time for it that the stop mode gives."""
        limit = EXIT_GRACE if self.stop_mode is QuitAction else worker.settings.graceful_timeout
        deadline = now + limit if limit else None
        self.schedule_kill(
            worker, deadline, f"still there {limit:g} s after the order to leave", now
        )
        worker.postponed = False

    def force_quit(self, worker: Worker, now: float) -> None:
        """Orders a worker to quit that was leaving gracefully; its deadline never moves back."""
        earlier = worker.deadline
        self.retire(worker, now)
        if earlier is not None and worker.deadline is not None:
            worker.deadline = min(earlier, worker.deadline)

    def schedule_kill(
        self, worker: Worker, deadline: float | None, reason: str, now: float
    ) -> None:
        """From now on the worker is retiring; it is killed at `deadline`, None for never."""
        worker.state, worker.since = WorkerState.RETIRING, now
        worker.deadline, worker.kill_reason = deadline, reason
