"""A master without processes, for the rules of the pool: its clock and its workers are made up."""

import random
from collections.abc import Iterable
from itertools import count
from typing import TypeVar

from prefork.master.pool.plan import (
    Action,
    GenerationSettings,
    Outcome,
    Plan,
    Settled,
    SpawnAction,
    Worker,
    WorkerState,
)
from prefork.master.pool.pool import Pool

T = TypeVar("T")


class MadeUpMaster:
    """Carries out plans without processes: a spawn gets the next pid, the dead stay dead."""

    def __init__(
        self,
        workers: int = 4,
        *,
        boot: float = 30.0,
        graceful: float = 20.0,
        max_slots: int = 1024,
    ) -> None:
        """`boot`, `graceful`: the two timeouts, in seconds."""
        self.pool = Pool(random.Random(1), max_slots=max_slots)
        self.settings = GenerationSettings(workers, boot, graceful)
        self.now = 100.0
        self.pids = count(1001)
        self.outcomes: list[Outcome] = []

    def start(self, generation: int, workers: int | None = None) -> Plan:
        settings = self.settings
        if workers:
            settings = GenerationSettings(workers, settings.boot_timeout, settings.graceful_timeout)
        self.pool.start(generation, settings)
        return self.step()

    def step(self, seconds: float = 0.0, fork: bool = True) -> Plan:
        """Lets time pass, plans, and answers each spawn; without `fork`, by a failure."""
        self.now += seconds
        plan = self.pool.advance(self.now)
        assert plan.wake_at is None or plan.wake_at > self.now
        self.outcomes += plan.outcomes
        for action in plan.actions:
            if not isinstance(action, SpawnAction):
                continue
            if fork:
                self.pool.spawned(action.slot, action.generation, next(self.pids), self.now)
            else:
                self.pool.spawn_failed(action.slot, action.generation, "fork: EAGAIN", self.now)
        return plan

    def wake_up(self, plan: Plan) -> Plan:
        """Lets time pass until the plan wants to be asked again, and steps."""
        self.now = wake_time(plan)
        return self.step()

    def ready(self, *workers: Worker, seconds: float = 0.0) -> Plan:
        self.now += seconds
        for worker in workers:
            self.pool.ready(worker.pid, self.now)
        return self.step()

    def die(self, *workers: Worker, how: str = "exit status 1", sigkill: bool = False) -> Plan:
        for worker in workers:
            self.pool.died(worker.pid, how, self.now, sigkill=sigkill)
        return self.step()

    def state(self, state: WorkerState, generation: int | None = None) -> list[Worker]:
        return [
            worker
            for worker in self.pool.members()
            if worker.state is state and generation in (None, worker.generation)
        ]

    def booting(self, generation: int | None = None) -> list[Worker]:
        return self.state(WorkerState.BOOTING, generation)

    def good(self, generation: int | None = None) -> list[Worker]:
        return self.state(WorkerState.READY, generation)

    def retiring(self, generation: int | None = None) -> list[Worker]:
        return self.state(WorkerState.RETIRING, generation)

    def reap(self) -> None:
        """All workers that were ordered to leave, or killed, are gone."""
        self.die(*self.retiring())


def serving(
    workers: int = 4, *, boot: float = 30.0, graceful: float = 20.0, max_slots: int = 1024
) -> MadeUpMaster:
    """A master whose first generation has been up for a minute."""
    master = MadeUpMaster(workers, boot=boot, graceful=graceful, max_slots=max_slots)
    master.start(1)
    master.ready(*master.booting())
    assert master.outcomes == [Settled(1)]
    master.outcomes.clear()
    master.step(60.0)
    return master


def wake_time(plan: Plan) -> float:
    """When the plan wants to be asked again, in the clock's seconds: there must be such a time."""
    assert plan.wake_at is not None, plan
    return plan.wake_at


def only(items: Iterable[object], kind: type[T]) -> list[T]:
    """The items of a class."""
    return [item for item in items if isinstance(item, kind)]


def slots(items: Iterable[Worker | Action]) -> list[int]:
    return [item.slot for item in items]
