"""Whatever happens, in whatever order, the pool keeps its promises."""

import random
from itertools import count

import hypothesis.strategies as st
import msgspec
from hypothesis import given, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from prefork.master.pool.backoff import JITTER, Backoff
from prefork.master.pool.plan import (
    Abandoned,
    Action,
    FirstBootFailed,
    GenerationSettings,
    KillAction,
    Outcome,
    Plan,
    Settled,
    SpawnAction,
    Stalled,
    Stopped,
    Superseded,
    Worker,
    WorkerState,
)
from prefork.master.pool.pool import Pool
from prefork.master.snapshot import PoolSnapshot
from prefork.pool_bounds import PoolBounds

MAX_SLOTS = 16
COUNTS = st.integers(1, 4)
CHOICE = st.integers(0, 1000)
BOUNDS = st.none() | st.builds(
    lambda low, room, spare: PoolBounds(low, low + room, spare), COUNTS, COUNTS, st.integers(1, 2)
)


class PoolMachine(RuleBasedStateMachine):
    """A master and a world that does its worst, beside a small model of what must be true.

    The model knows only what the pool was told: the current generation with its target, the one
    that waits for its canary, and how often each start was answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(random.Random(7), max_slots=MAX_SLOTS)
        self.now = 1000.0
        self.pids = count(1)
        self.numbers = count(1)
        self.forks = True
        self.current: int | None = None
        self.candidate: int | None = None
        self.targets: dict[int, int] = {}
        self.settings: dict[int, GenerationSettings] = {}
        self.bounds: dict[int, PoolBounds | None] = {}
        self.most = 0  # the highest target of the candidate
        self.answers: dict[int, int] = {}
        self.stalled: set[int] = set()
        self.withdrawn = self.stopped = False
        self.wake_at: float | None = None

    # What the master does.

    def step(self) -> None:
        """Plan and carry out until nothing is left to do at this moment, which must come soon."""
        for _ in range(5):
            plan = self.plan()
            if not plan.actions:
                self.wake_at = plan.wake_at
                return
        raise AssertionError(f"the pool keeps the master busy: {plan}")

    def plan(self) -> Plan:
        good = {worker.pid for worker in self.members(WorkerState.READY)}
        plan = self.pool.advance(self.now)
        for outcome in plan.outcomes:
            self.conclude(outcome)
        left = {worker.pid for worker in self.members(WorkerState.READY)}
        assert left <= good
        assert len(left) >= min(len(good), self.wanted)
        for action in plan.actions:
            self.carry_out(action, good)
        assert plan.wake_at is None or plan.wake_at > self.now
        return plan

    def carry_out(self, action: Action, good: set[int]) -> None:
        if isinstance(action, SpawnAction):
            if self.forks:
                self.pool.spawned(action.slot, action.generation, next(self.pids), self.now)
            else:
                self.pool.spawn_failed(action.slot, action.generation, "fork", self.now)
                self.lose(action.generation)
        else:
            worker = self.pool.find(action.pid)
            assert worker is not None
            assert worker.slot == action.slot
            assert worker.state is WorkerState.RETIRING
            assert not (isinstance(action, KillAction) and action.pid in good)

    def conclude(self, outcome: Outcome) -> None:
        match outcome:
            case FirstBootFailed():
                assert self.current is None
                (number,) = [n for n in self.answers if not self.answers[n]][-1:]
            case Stopped():
                assert not self.stopped
                assert self.pool.members() == []
                self.stopped = True
                return
            case Stalled(number):
                assert number == self.current
                assert not self.answers[number]
                assert number not in self.stalled
                self.stalled.add(number)
                return
            case Settled(number):
                assert number == self.current
                ready = self.members(WorkerState.READY)
                assert {worker.generation for worker in ready} == {number}
                # One that is to be recycled may stay until its replacement has proved itself.
                surplus = len(ready) - self.targets[number]
                assert surplus in (0, any(worker.due_for_recycling is not None for worker in ready))
            case Superseded(number) | Abandoned(number):
                assert number != self.current or self.withdrawn or self.pool.stopping
        self.answers[number] += 1
        assert self.answers[number] == 1

    # What the model knows.

    def members(self, *states: WorkerState) -> list[Worker]:
        return [worker for worker in self.pool.members() if worker.state in states]

    @property
    def wanted(self) -> int:
        if self.current is None or self.withdrawn or self.pool.stopping:
            return 0
        return self.targets[self.current]

    @property
    def generations(self) -> list[int]:
        return [number for number in (self.current, self.candidate) if number]

    @property
    def replaced_at_once(self) -> int:
        return max(1, self.wanted // 10)

    def aim(self, target: int) -> None:
        for number in self.generations:
            bounds = self.bounds[number]
            self.targets[number] = bounds.fit(target) if bounds else target
        self.most = max(self.most, self.targets.get(self.candidate or 0, 0))

    def lose(self, generation: int) -> None:
        if generation == self.candidate:
            self.candidate = None

    def pick(self, choice: int, *states: WorkerState) -> Worker | None:
        members = self.members(*states)
        return members[choice % len(members)] if members else None

    # What the operator does.

    @initialize(
        count=COUNTS, boot=st.sampled_from([0.0, 10.0]), bounds=BOUNDS, at_once=st.integers(0, 2)
    )
    def first_start(self, count: int, boot: float, bounds: PoolBounds | None, at_once: int) -> None:
        self.start(count, boot, 5.0, bounds, at_once)

    @precondition(lambda self: not self.pool.stopping)
    @rule(
        count=COUNTS,
        boot=st.sampled_from([0.0, 10.0]),
        graceful=st.sampled_from([0.0, 5.0]),
        bounds=BOUNDS,
        at_once=st.integers(0, 2),
    )
    def start(
        self, count: int, boot: float, graceful: float, bounds: PoolBounds | None, at_once: int
    ) -> None:
        if bounds:
            count = bounds.fit(max(self.pool.target, bounds.spare))
        number = self.candidate = next(self.numbers)
        self.targets[number] = self.most = count
        self.bounds[number] = bounds
        self.answers[number] = 0
        self.settings[number] = GenerationSettings(count, boot, graceful, bounds, at_once)
        self.pool.start(number, self.settings[number])
        self.step()

    @rule(count=COUNTS)
    def scale(self, count: int) -> None:
        self.pool.scale(count)
        for number in self.generations:
            bounds = self.bounds[number]
            self.bounds[number] = bounds and bounds.at(count)
        self.aim(count)
        self.step()

    @rule(wish=st.integers(0, 10))
    def resize(self, wish: int) -> None:
        self.pool.resize(wish)
        for number in self.generations:
            if bounds := self.bounds[number]:
                self.targets[number] = bounds.fit(wish)
        self.most = max(self.most, self.targets.get(self.candidate or 0, 0))
        self.step()

    @precondition(lambda self: self.current or self.candidate)
    @rule(n=st.sampled_from([-1, 1]))
    def grow(self, n: int) -> None:
        target = self.targets[self.generations[0]] + n
        target = max(1, min(target, MAX_SLOTS - 1))
        self.pool.grow(n)
        for number in self.generations:
            bounds = self.bounds[number]
            self.bounds[number] = bounds and bounds.moved(n, MAX_SLOTS - 1)
        self.aim(target)
        self.step()

    @rule()
    def withdraw(self) -> None:
        self.pool.withdraw()
        self.withdrawn, self.candidate = self.current is not None, None
        self.step()

    @precondition(lambda self: len(self.answers) > 2)
    @rule(graceful=st.booleans())
    def stop(self, graceful: bool) -> None:
        self.pool.stop(self.now, graceful)
        self.candidate = None
        self.step()

    @precondition(lambda self: self.pool.between_transactions)
    @rule()
    def upgrade(self) -> None:
        """Another master goes on with it; whoever waits for a rollout waits there for the next."""
        state = msgspec.msgpack.decode(
            msgspec.msgpack.encode(self.pool.snapshot()), type=PoolSnapshot
        )
        self.pool = Pool(random.Random(7), max_slots=MAX_SLOTS)
        self.pool.restore(state, self.settings)
        self.answers = dict.fromkeys(self.answers, 1)
        self.step()

    # What the world does.

    @rule(choice=CHOICE)
    def ready(self, choice: int) -> None:
        worker = self.pick(choice, WorkerState.BOOTING)
        if worker:
            self.pool.ready(worker.pid, self.now)
            if worker.generation == self.candidate:
                self.current, self.candidate, self.withdrawn = self.candidate, None, False
            self.step()

    @rule()
    def all_ready(self) -> None:
        for worker in self.members(WorkerState.BOOTING):
            self.pool.ready(worker.pid, self.now)
            if worker.generation == self.candidate:
                self.current, self.candidate, self.withdrawn = self.candidate, None, False
        self.step()

    @rule(choice=CHOICE)
    def late_ready(self, choice: int) -> None:
        worker = self.pick(choice, WorkerState.RETIRING)
        if worker:
            told, deadline = worker.order, worker.deadline
            self.pool.ready(worker.pid, self.now)
            assert worker.state is WorkerState.RETIRING
            assert not told or worker.deadline == deadline
            self.step()

    @rule(choice=CHOICE)
    def failed(self, choice: int) -> None:
        worker = self.pick(choice, WorkerState.BOOTING)
        if worker:
            self.pool.boot_failed(worker.pid, "import error", self.now)
            self.lose(worker.generation)
            self.step()

    @rule(choice=CHOICE, sigkill=st.booleans())
    def died(self, choice: int, sigkill: bool) -> None:
        worker = self.pick(choice, *WorkerState)
        if worker:
            self.pool.died(worker.pid, "dead", self.now, sigkill=sigkill)
            if worker.state is WorkerState.BOOTING:
                self.lose(worker.generation)
            self.step()

    @rule()
    def reaped(self) -> None:
        for worker in self.members(WorkerState.RETIRING):
            self.pool.died(worker.pid, "exit status 0", self.now)
        self.step()

    @rule(choice=CHOICE)
    def leaving(self, choice: int) -> None:
        worker = self.pick(choice, *WorkerState)
        if worker:
            if worker.state is WorkerState.BOOTING:
                self.lose(worker.generation)
            self.pool.leaving(worker.pid, self.now)
            self.step()

    @rule(choice=CHOICE)
    def expired(self, choice: int) -> None:
        worker = self.pick(choice, *WorkerState)
        if worker:
            self.pool.replace_now(worker.pid, self.now)
            self.step()

    @rule(choice=CHOICE)
    def recycle(self, choice: int) -> None:
        worker = self.pick(choice, *WorkerState)
        if worker:
            news = self.pool.recycle(worker.pid, self.now)
            assert not news or (
                worker.state is WorkerState.READY and worker.due_for_recycling == self.now
            )
            self.step()

    @rule()
    def recycle_all(self) -> None:
        for worker in self.members(WorkerState.READY):
            self.pool.recycle(worker.pid, self.now)
        self.step()

    @rule()
    def toggle_forks(self) -> None:
        self.forks = not self.forks

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.1, 1.0, 5.0, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for worker in self.members(WorkerState.BOOTING):
            if worker.deadline is not None and worker.deadline <= self.now:
                self.lose(worker.generation)
        self.step()

    @rule()
    def wake_up(self) -> None:
        if self.wake_at:
            self.time_passes(self.wake_at - self.now)

    @rule(seconds=st.sampled_from([1.0, 3600.0]))
    def overslept(self, seconds: float) -> None:
        self.now += seconds
        self.pool.overslept(seconds)
        self.step()

    # What must be true at all times.

    @invariant()
    def generation_and_target_change_only_with_a_ready_canary(self) -> None:
        assert self.pool.current == self.current
        generation = self.current or self.candidate
        if generation:
            assert self.pool.target == self.targets[generation]
            assert self.pool.bounds == self.bounds[generation]
        assert self.pool.ever_ready == (self.current is not None)

    @invariant()
    def rollout_is_what_still_waits_for_its_answer(self) -> None:
        waiting = [number for number, answers in self.answers.items() if not answers]
        assert self.pool.rollout == (waiting[-1] if waiting else None)

    @invariant()
    def slots_are_unique(self) -> None:
        slots = [worker.slot for worker in self.pool.members()]
        assert len(set(slots)) == len(slots)
        assert all(0 <= slot < MAX_SLOTS for slot in slots)

    @invariant()
    def never_over_the_bound(self) -> None:
        """One over the target for a rollout under way, and a canary; or all, at a first boot.

        While nothing else is under way, a tenth over it for workers that are being recycled.
        """
        members = self.members(WorkerState.BOOTING, WorkerState.READY)
        mine = [w for w in members if w.generation == self.current]
        canaries = [w for w in members if w.generation == self.candidate]
        others = len(members) - len(mine) - len(canaries)
        recycled = any(
            w.due_for_recycling is not None and w.state is WorkerState.READY for w in mine
        )
        over = self.replaced_at_once if recycled and not others else others > 0
        assert len(mine) + others <= self.wanted + over
        assert len(mine) <= self.wanted + self.replaced_at_once * (recycled and not others)
        if self.candidate:
            # A first boot that is scaled down keeps what it has until one of them is ready.
            assert len(canaries) <= (1 if self.current else self.most)

    @invariant()
    def something_pending_has_its_wake_up(self) -> None:
        due = [
            worker.deadline
            for worker in self.pool.members()
            if worker.deadline is not None and not worker.killed
        ]
        due += [
            self.now + 0.1
            for worker in self.pool.members()
            if worker.order and not worker.leaving and not worker.killed
        ]
        if due:
            assert self.wake_at is not None
            assert self.wake_at <= min(due) + 1e-6

    @invariant()
    def missing_workers_are_on_their_way_or_waited_for(self) -> None:
        members = self.members(WorkerState.BOOTING, WorkerState.READY)
        serving = [worker for worker in members if worker.generation != self.candidate]
        free = len(self.pool.members()) < MAX_SLOTS
        if free and len(serving) < self.wanted:
            assert self.wake_at is not None

    @invariant()
    def recycling_goes_on(self) -> None:
        """While a worker is to be replaced, another boots for it, or leaves, or is waited for."""
        due = [w for w in self.members(WorkerState.READY) if w.due_for_recycling is not None]
        serving = [w for w in self.members(WorkerState.READY) if w.generation != self.candidate]
        rollout = any(w.generation != self.current for w in serving)
        if due and self.wanted and not rollout and len(self.pool.members()) < MAX_SLOTS:
            booting = any(w.generation == self.current for w in self.members(WorkerState.BOOTING))
            leaving = any(
                w.due_for_recycling is not None and w.deadline is not None
                for w in self.members(WorkerState.RETIRING)
            )
            assert booting or leaving or self.wake_at is not None

    # In the end.

    def teardown(self) -> None:
        """Once the world behaves, the pool settles; and once it is stopped, it is empty."""
        self.forks = True
        if not self.pool.stopping and self.answers:
            self.settle()
        self.pool.stop(self.now, graceful=True)
        self.candidate = None
        self.step()
        self.reaped()
        assert self.stopped
        assert set(self.answers.values()) <= {1}

    def settle(self) -> None:
        if self.withdrawn or not (self.current or self.candidate):
            self.start(2, 10.0, 5.0, None, 0)
        for _ in range(100):
            self.reaped()
            self.all_ready()
            ready = self.members(WorkerState.READY)
            due = [worker for worker in ready if worker.due_for_recycling is not None]
            # An upgraded pool goes on with a rollout that nobody waits for any more.
            current = [worker.generation for worker in ready] == [self.current] * self.wanted
            if self.pool.rollout is None and current and not due:
                break
            if not self.members(WorkerState.BOOTING, WorkerState.RETIRING):
                assert self.wake_at is not None
                self.wake_up()
        ready = self.members(WorkerState.READY)
        assert [w.generation for w in ready] == [self.current] * self.wanted
        assert set(self.answers.values()) == {1}


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

STEPS = st.lists(
    st.tuples(st.sampled_from(["fail", "stale", "fork", "grant", "reset"]), st.floats(0, 40)),
    max_size=60,
)


@given(steps=STEPS, seed=st.integers(0, 100))
def test_backoff_is_monotone_within_a_row_and_keeps_its_bounds(
    steps: list[tuple[str, float]], seed: int
) -> None:
    backoff, now = Backoff(random.Random(seed)), 0.0
    for step, seconds in steps:
        now += seconds
        before, failures = backoff.delay, backoff.failures
        if step == "fail":
            backoff.fail(backoff.round, now)
        elif step == "fork":
            backoff.fail(backoff.round, now, free=False)
        elif step == "stale":
            backoff.fail(backoff.round - 1, now)
            assert backoff.failures == failures
        elif step == "grant":
            backoff.skip(now)
            assert backoff.not_before <= now
        else:
            backoff.reset()
            assert (backoff.delay, backoff.not_before <= now) == (0.0, True)
            continue
        assert before <= backoff.delay <= 30.0
        if step in ("fail", "fork"):
            assert backoff.failures > failures
            wait = backoff.not_before - now
            tolerance = 1e-6
            assert wait >= (1 - JITTER) * backoff.delay - tolerance
            assert wait <= (1 + JITTER) * backoff.delay + tolerance
        if step == "fork":
            assert backoff.delay > 0
