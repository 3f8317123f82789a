"""The pool keeps its promises also where a zygote answers spawns later, or never gets to it."""

from hypothesis import settings
from hypothesis.stateful import invariant, precondition, rule

from prefork.master.pool.plan import Action, SpawnAction, WorkerState
from tests.unit.test_pool_properties import CHOICE, MAX_SLOTS, PoolMachine


class LatePoolMachine(PoolMachine):
    """Spawns are answered in any order, at any time, by a birth or a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[SpawnAction] = []
        self.prompt = False

    def carry_out(self, action: Action, good: set[int]) -> None:
        if isinstance(action, SpawnAction) and not self.prompt:
            self.asked.append(action)
        else:
            super().carry_out(action, good)

    def answer(self, choice: int) -> None:
        PoolMachine.carry_out(self, self.asked.pop(choice % len(self.asked)), set())
        self.step()

    @precondition(lambda self: self.asked)
    @rule(choice=CHOICE)
    def one_is_answered(self, choice: int) -> None:
        self.answer(choice)

    @precondition(lambda self: self.asked)
    @rule()
    def all_are_answered(self) -> None:
        for _ in range(len(self.asked)):
            self.answer(0)

    @invariant()
    def slots_asked_for_are_free(self) -> None:
        slots = [worker.slot for worker in self.pool.members()]
        slots += [spawn.slot for spawn in self.asked]
        assert len(set(slots)) == len(slots)

    @invariant()
    def whom_it_asks_for_more_is_served_or_boots(self) -> None:
        assert self.pool.spawning <= {self.current, self.candidate}

    @invariant()
    def missing_workers_are_on_their_way_or_waited_for(self) -> None:
        members = self.members(WorkerState.BOOTING, WorkerState.READY)
        serving = [worker for worker in members if worker.generation != self.candidate]
        coming = [spawn for spawn in self.asked if spawn.generation == self.current]
        free = len(self.pool.members()) + len(self.asked) < MAX_SLOTS
        if free and len(serving) + len(coming) < self.wanted:
            assert self.wake_at is not None

    @invariant()
    def recycling_goes_on(self) -> None:
        if not any(spawn.generation == self.current for spawn in self.asked):
            PoolMachine.recycling_goes_on(self)

    def teardown(self) -> None:
        """In the end, all are answered, and from then on at once."""
        self.forks = self.prompt = True
        while self.asked:
            self.answer(0)
        super().teardown()


TestLatePool = LatePoolMachine.TestCase
TestLatePool.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
