"""Who is alive, in which generation, and what follows at once from what happens to them.

The books of the pool: pure state, without a system call or a clock.
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

LAST_WORDS = 1.0
"""Seconds for a worker to be gone once it was told to quit, or has said that its boot failed."""

PROOF = 5.0
"""Seconds from readiness after which a worker's death says nothing against its generation."""

STALLED = 5
"""Failures in a row after which a rollout is said to be stuck: the first second of the backoff."""


class PoolGeneration(Struct):
    number: int
    settings: GenerationSettings
    backoff: Backoff
    target: int
    bounds: PoolBounds | None
    answered: bool = False  # its start has its one outcome
    stalled: bool = False  # that it is stuck was told
    withdrawn: bool = False

    @property
    def set_by_hand(self) -> bool:
        """An operator has said how many workers, or between which bounds."""
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
        """Spawns that are not answered yet, by slot: who asked, in which round of its backoff."""
        self.current: PoolGeneration | None = None
        """It serves."""
        self.candidate: PoolGeneration | None = None
        """It is on trial."""
        self.farewell: Order = RetireAction
        """How workers are told to leave now."""
        self.outcomes: list[Outcome] = []
        """What was concluded and not told yet."""
        self.spawned_at = -math.inf
        """When the last worker was asked for."""
        self.stopped = False
        self.ever_ready = False

    @property
    def stopping(self) -> bool:
        return self.farewell is not RetireAction

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
        if self.current and not self.current.answered:
            self.outcomes.append(Superseded(self.current.number))
        self.current, self.candidate = candidate, None
        self.ever_ready = True

    def abandon(self, why: str) -> None:
        """Give up what is under way, as seen by those who wait for it."""
        if self.current and not self.current.answered:
            self.current.answered = True
            self.outcomes.append(Abandoned(self.current.number, why))
        if self.candidate:
            self.outcomes.append(Abandoned(self.candidate.number, why))
            self.candidate = None

    def count(
        self, generation: int, round: int, why: str, now: float, *, free: bool = True
    ) -> None:
        """A worker failed: the end of a candidate, a step of backoff for the current generation."""
        if self.candidate and generation == self.candidate.number:
            self.candidate = None
            if self.ever_ready:
                self.outcomes.append(Abandoned(generation, why))
            else:
                self.farewell = QuitAction
                self.outcomes.append(FirstBootFailed(why))
        elif self.current and generation == self.current.number:
            self.take_proof(now)
            self.current.backoff.fail(round, now, free=free)
            self._tell_if_stalled(self.current, why)

    def _tell_if_stalled(self, current: PoolGeneration, why: str) -> None:
        under_way = not (current.answered or current.stalled)
        if under_way and current.backoff.failures >= STALLED:
            current.stalled = True
            self.outcomes.append(Stalled(current.number, why))

    def grant(self, generation: int, now: float) -> None:
        if self.current and generation == self.current.number:
            self.take_proof(now)
            self.current.backoff.grant(now)

    def proof(self) -> float:
        """When a worker of the current round will have proved its generation; infinity: never."""
        current = self.current
        return min(
            (
                worker.since + PROOF
                for worker in self.workers.values()
                if current
                and worker.generation == current.number
                and worker.state is WorkerState.READY
                and worker.round == current.backoff.round
            ),
            default=math.inf,
        )

    def take_proof(self, now: float) -> None:
        if self.current and self.proof() <= now:
            self.current.backoff.reset()

    # Workers.

    def let_go(self, worker: Worker, now: float) -> None:
        """A good worker leaves outside the plan; its place is filled at once."""
        self.grant(worker.generation, now)
        self.dismiss(worker, now)

    def dismiss(self, worker: Worker, now: float) -> None:
        """Tell a worker to leave in the way of the day, within its generation's time."""
        limit = LAST_WORDS if self.farewell is QuitAction else worker.settings.graceful_timeout
        deadline = now + limit if limit else None
        self.condemn(worker, deadline, f"still there {limit:g} s after the order to leave", now)
        worker.order, worker.repeat_at = self.farewell, now
        worker.leaving = worker.killed = False

    def hurry(self, worker: Worker, now: float) -> None:
        """Quit instead of the order that it has, and no later than that one would have ended."""
        earlier = worker.deadline
        self.dismiss(worker, now)
        if earlier is not None and worker.deadline is not None:
            worker.deadline = min(earlier, worker.deadline)

    def condemn(self, worker: Worker, deadline: float | None, why: str, now: float) -> None:
        worker.state, worker.since = WorkerState.RETIRING, now
        worker.deadline, worker.why = deadline, why
