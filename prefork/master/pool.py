"""Who is alive, in which generation, and what is to be done about it: the supervisor's mind.

`Pool` is pure state. It makes no system call, reads no clock and owns no process: the master tells
it what happened, asks `plan(now)`, carries the plan out and tells it what came of that. So every
schedule (a crash loop, a reload in the middle of a reload, a worker that dies while it retires) is
a plain test without a fork, with an invented clock.

Three ideas carry it:

- At most two generations matter: *current*, which serves, and *candidate*, of which nothing but a
  canary exists. The canary's readiness commits the candidate: it becomes current. Whatever goes
  wrong before that forgets the candidate, and nothing else has to be undone, because nothing else
  was done. A first boot is a candidate whose canaries are all of its workers.
- `plan` compares what is with what should be and holds no script of a rollout. An old worker is
  surplus once it and its successors together are more than the target. So scaling down,
  withdrawing and stopping are the same comparison with another target. And a new generation that
  dies soon after its readiness can't eat up the old one: from its first failure on, an old worker
  goes only when a new one has served for a while. A worker that has served long enough is such
  an old one, too, but only a tenth of the pool at a time.
- A worker that was told to leave is no member any more: its replacement is not held up by how long
  it takes to go.

All times are seconds of one monotonic clock, passed in as `now`. Every call may be repeated; an
event about a process that the pool does not know is ignored.
"""

import math
import random
from collections.abc import Mapping

from msgspec import Struct, field

from prefork.master.backoff import Backoff
from prefork.master.plan import (
    Abandoned,
    Action,
    FirstBootFailed,
    Kill,
    Order,
    Outcome,
    Plan,
    Quit,
    Retire,
    Settings,
    Settled,
    Spawn,
    Stalled,
    State,
    Stop,
    Stopped,
    Superseded,
    Worker,
)
from prefork.master.sizing import Bounds
from prefork.master.state import PoolState, WorkerState

__all__ = [
    "Abandoned",
    "Action",
    "FirstBootFailed",
    "Kill",
    "Outcome",
    "Plan",
    "Pool",
    "Quit",
    "Retire",
    "Settings",
    "Settled",
    "Spawn",
    "Stalled",
    "State",
    "Stop",
    "Stopped",
    "Superseded",
    "Worker",
]

REPEAT = 0.1
"""Seconds between two orders to a worker that has not said that it is leaving: a signal that
arrives just before it enters accept() can be missed."""

LAST_WORDS = 1.0
"""Seconds for a worker to be gone once it was told to quit, or has said that its boot failed."""

PROOF = 5.0
"""Seconds from readiness after which a worker's death says nothing against its generation."""

STALLED = 5
"""Failures in a row after which a rollout is said to be stuck: the first second of the backoff."""


class _Generation(Struct):
    number: int
    settings: Settings
    backoff: Backoff
    target: int
    bounds: Bounds | None
    answered: bool = False  # its start has its one outcome
    stalled: bool = False  # that it is stuck was told
    withdrawn: bool = False

    @property
    def set_by_hand(self) -> bool:
        """An operator has said how many workers, or between which bounds."""
        if self.settings.bounds:
            return self.bounds != self.settings.bounds
        return self.target != self.settings.count


class _Workers(Struct):
    """The members of the plan, sorted once: retiring ones are none."""

    fresh: list[Worker] = field(default_factory=list)  # ready, of the current generation
    worn: list[Worker] = field(default_factory=list)  # those of them that are being replaced now
    old: list[Worker] = field(default_factory=list)  # ready, of an older one
    booting: list[Worker] = field(default_factory=list)  # of the current generation
    stray: list[Worker] = field(default_factory=list)  # booting, and not wanted any more
    pending: int = 0  # spawns of the current generation that are not answered yet


class Pool:
    """The living workers, and the generations that they belong to.

    Slot numbers are unique among the living, retiring ones included, and below `max_slots`.
    """

    def __init__(self, rng: random.Random, *, max_slots: int = 1024) -> None:
        self._rng = rng
        self._max_slots = max_slots
        self._workers: dict[int, Worker] = {}
        self._pending: dict[int, tuple[_Generation, int]] = {}  # slot: who asked, in which round
        self._current: _Generation | None = None
        self._candidate: _Generation | None = None
        self._farewell: Order = Retire
        self._outcomes: list[Outcome] = []
        self._stopped = False
        self.ever_ready = False

    # What it looks like.

    @property
    def current(self) -> int | None:
        """The generation that serves; None before any worker was ready."""
        return self._current.number if self._current else None

    @property
    def rollout(self) -> int | None:
        """The generation under way: started, and neither settled nor given up."""
        if self._candidate:
            return self._candidate.number
        return self._current.number if self._current and not self._current.answered else None

    @property
    def growing(self) -> set[int]:
        """The generations of which a worker may still be asked for."""
        generations = () if self.stopping else (self._current, self._candidate)
        return {each.number for each in generations if each and not each.withdrawn}

    @property
    def candidate(self) -> int | None:
        """The generation that nothing hangs on yet: the first failure of a worker ends it."""
        return self._candidate.number if self._candidate else None

    @property
    def target(self) -> int:
        """How many workers the serving generation should have; 0 before the first start."""
        generation = self._current or self._candidate
        return generation.target if generation else 0

    @property
    def bounds(self) -> Bounds | None:
        """Between which the target of the serving generation moves; None for a fixed pool."""
        generation = self._current or self._candidate
        return generation.bounds if generation else None

    @property
    def stopping(self) -> bool:
        return self._farewell is not Retire

    def members(self) -> list[Worker]:
        """All living workers, by slot, retiring ones included."""
        return sorted(self._workers.values(), key=lambda worker: worker.slot)

    def find(self, pid: int) -> Worker | None:
        return self._workers.get(pid)

    # From one master to the next.

    @property
    def between_transactions(self) -> bool:
        """Nothing is on trial or unanswered: what there is could be handed over."""
        return bool(self._current and not (self._candidate or self._pending or self.stopping))

    def hand_over(self) -> PoolState:
        """All of it, between two transactions."""
        assert self._current is not None
        backoff = self._current.backoff
        return PoolState(
            current=self._current.number,
            target=self._current.target,
            bounds=self._current.bounds,
            withdrawn=self._current.withdrawn,
            failures=backoff.failures,
            round=backoff.round,
            not_before=backoff.not_before,
            workers=tuple(map(_worker_state, self.members())),
        )

    def adopt(self, state: PoolState, settings: Mapping[int, Settings]) -> None:
        """Goes on where another pool was; `settings` are those of each generation.

        Whoever waits for a rollout of before is not to be answered by this pool.
        """
        current = _Generation(
            state.current,
            settings[state.current],
            Backoff(self._rng, state.failures, state.round, state.not_before),
            state.target,
            state.bounds,
            answered=True,
            withdrawn=state.withdrawn,
        )
        self._current, self.ever_ready = current, True
        for each in state.workers:
            self._workers[each.pid] = _adopted(each, settings[each.generation])

    def carry_over(self) -> None:
        """What an operator has set by `scale` or `grow` holds for the generation under way, too.

        Else it is for until the next start; but an upgrade is no reload to an operator.
        """
        current, candidate = self._current, self._candidate
        if current and candidate and current.set_by_hand:
            candidate.target = current.target
            if candidate.bounds:
                candidate.bounds = current.bounds or candidate.bounds.at(current.target)

    # What the operator wants.

    def start(self, generation: int, settings: Settings, now: float) -> None:
        """Boot a generation: the first, or a reload, which supersedes one that is under way.

        Each start is answered by exactly one `Settled`, `Abandoned`, `Superseded` or
        `FirstBootFailed`; before that, one `Stalled` can say that it is stuck. A committed
        generation whose successor fails goes on, and may settle.
        A dynamic pool begins with as many workers as there are, within its bounds: a reload under
        load must not begin with too few.
        Raises ValueError if `settings.count` is not from 1 to `max_slots` - 1.
        """
        if generation in (self.current, self.rollout):
            return
        bounds = settings.bounds
        target = bounds.fit(max(self.target, bounds.spare)) if bounds else settings.count
        self._check(bounds.max if bounds else target)
        if self.stopping:
            self._outcomes.append(Abandoned(generation, "the server is stopping"))
            return
        if self._candidate:
            self._outcomes.append(Superseded(self._candidate.number))
        self._candidate = _Generation(generation, settings, Backoff(self._rng), target, bounds)

    def scale(self, count: int, now: float) -> None:
        """Set the target, of the generation that serves and of one under way, until the next start.

        Both, so that it holds whether the one under way succeeds or fails. In a dynamic pool both
        bounds become `count`: it has exactly so many workers until then.
        Raises ValueError if `count` is not from 1 to `max_slots` - 1.
        """
        self._check(count)
        for generation in self._generations():
            generation.target = count
            generation.bounds = generation.bounds and generation.bounds.at(count)

    def grow(self, n: int, now: float) -> None:
        """Move the target by `n` (which may be negative), from 1 to `max_slots` - 1.

        In a dynamic pool both bounds move by `n` within these limits, and the target moves with
        them: one worker more or less now, which demand may change again.
        """
        most = self._max_slots - 1
        target = max(1, min(self.target + n, most))
        for generation in self._generations():
            generation.bounds = generation.bounds and generation.bounds.moved(n, most)
            generation.target = generation.bounds.fit(target) if generation.bounds else target

    def resize(self, target: int) -> None:
        """Move the target of a dynamic pool within its bounds, as demand has it.

        Of the generation under way, too; that of a fixed pool stays as it is.
        """
        for generation in self._generations():
            if generation.bounds:
                generation.target = generation.bounds.fit(target)

    def withdraw(self, now: float) -> None:
        """Let all workers go; the next start brings workers back, if its canary is good."""
        self._abandon("all workers were withdrawn")
        if self._current:
            self._current.withdrawn = True

    def stop(self, now: float, graceful: bool) -> None:
        """Let all workers go for good, drained or at once; quick overrides graceful."""
        if self._farewell is Quit:
            return
        self._abandon("the server is stopping")
        self._farewell = Stop if graceful else Quit
        if not graceful:
            for worker in self._workers.values():
                if worker.order and not worker.killed:
                    self._hurry(worker, now)

    # What happened.

    def spawned(self, slot: int, generation: int, pid: int, now: float) -> None:
        asked = self._take_pending(slot, generation)
        if asked:
            settings = asked[0].settings
            deadline = now + settings.boot_timeout if settings.boot_timeout else None
            self._workers[pid] = Worker(slot, pid, generation, settings, asked[1], now, deadline)

    def spawn_failed(self, slot: int, generation: int, why: str, now: float) -> None:
        """Fork failed (EAGAIN, ENOMEM): tried again after a delay, or the end of a candidate."""
        asked = self._take_pending(slot, generation)
        if asked:
            self._count(generation, asked[1], why, now, free=False)

    def ready(self, pid: int, now: float) -> None:
        worker = self._workers.get(pid)
        if worker is None or worker.state is State.READY or worker.order:
            return
        if worker.state is State.RETIRING:
            # Condemned at boot, but it made it in time to be told to leave in good order.
            self._dismiss(worker, now)
            return
        worker.state, worker.since, worker.deadline = State.READY, now, None
        if self._candidate and worker.generation == self._candidate.number:
            self._commit(self._candidate)
        elif worker.generation != self.current:
            self._dismiss(worker, now)

    def leaving(self, pid: int, now: float) -> None:
        """It has heard that it is to leave, or leaves of its own accord."""
        worker = self._workers.get(pid)
        if worker is None:
            return
        if worker.state is State.BOOTING:
            self.failed(pid, "it left before it was ready", now)
        elif worker.state is State.READY:
            self._let_go(worker, now)
        worker.leaving = True

    def failed(self, pid: int, why: str, now: float) -> None:
        """It has said that its boot failed; its death follows, or is helped along."""
        worker = self._workers.get(pid)
        if worker and worker.state is State.BOOTING:
            self._condemn(worker, now + LAST_WORDS, "its boot failed and it did not exit", now)
            self._count(worker.generation, worker.round, why, now)

    def died(self, pid: int, how: str, now: float, *, sigkill: bool = False) -> None:
        """It was reaped. `how` is for people; `sigkill` tells whether SIGKILL ended it."""
        worker = self._workers.get(pid)
        if worker is None:
            return
        if worker.state is State.BOOTING:
            why = f"a worker died before it was ready: {how}"
            self._count(worker.generation, worker.round, why, now)
        elif worker.state is State.READY:
            if sigkill or now - worker.since >= PROOF:
                self._grant(worker.generation, now)
            else:
                self._count(worker.generation, worker.round, how, now)
        del self._workers[pid]

    def expired(self, pid: int, now: float) -> None:
        """A request of it passed the request timeout: replace it now, kill it later.

        It has `graceful_timeout` for what else it is doing (0: for ever, as it was asked).
        """
        worker = self._workers.get(pid)
        if worker and worker.state is State.READY:
            self._let_go(worker, now)

    def recycle(self, pid: int, now: float) -> bool:
        """It has served long enough: replace it, in its turn, and let it serve on until then.

        False where that is not news, or it is leaving already.
        """
        worker = self._workers.get(pid)
        if worker is None or worker.state is not State.READY or worker.worn is not None:
            return False
        worker.worn = now
        return True

    def overslept(self, seconds: float) -> None:
        """The loop slept that much longer than planned (a suspended machine, a stopped master).

        Its workers slept too, or could not be heard: deadlines and backoff move by as much.
        """
        for worker in self._workers.values():
            if worker.deadline is not None:
                worker.deadline += seconds
        if self._current:
            self._current.backoff.not_before += seconds

    # What to do.

    def plan(self, now: float) -> Plan:
        """Compare what is with what should be. Asking again asks for nothing twice."""
        self._expire_boots(now)
        self._take_proof(now)
        workers = self._sort()
        actions: list[Action] = []
        wakes: list[float] = []
        self._shed(workers, wakes, now)
        self._spawn_canaries(actions)
        self._spawn_missing(workers, actions, wakes, now)
        self._give_orders(actions, wakes, now)
        self._conclude(workers)
        outcomes, self._outcomes = self._outcomes, []
        return Plan(actions, outcomes, min(wakes, default=None))

    def _expire_boots(self, now: float) -> None:
        for worker in self.members():
            overdue = worker.deadline is not None and worker.deadline <= now
            if worker.state is State.BOOTING and overdue:
                why = f"not ready within {worker.settings.boot_timeout:g} s"
                self._condemn(worker, now, why, now)
                self._count(worker.generation, worker.round, why, now)

    def _sort(self) -> _Workers:
        current = None if self._current is None or self._current.withdrawn else self._current
        workers = _Workers()
        for worker in self.members():
            mine = current is not None and worker.generation == current.number
            canary = self._candidate and worker.generation == self._candidate.number
            if worker.state is State.READY:
                (workers.fresh if mine else workers.old).append(worker)
            elif worker.state is State.BOOTING and not canary:
                (workers.booting if mine else workers.stray).append(worker)
        workers.pending = sum(asked is current for asked, _ in self._pending.values())
        if not workers.old:  # a rollout goes first
            self._take_worn(workers)
        return workers

    def _take_worn(self, workers: _Workers) -> None:
        """Of those that have served long enough, the first that may be replaced now.

        At most a tenth of the pool is on the way at one time, from the boot of the new worker to
        the end of the old one; an old one that may stay for ever is not waited for.
        """
        under_way = sum(
            worker.worn is not None
            and worker.state is State.RETIRING
            and worker.deadline is not None
            for worker in self._workers.values()
        )
        worn = [worker for worker in workers.fresh if worker.worn is not None]
        worn.sort(key=lambda worker: worker.worn or 0.0)
        del worn[max(0, max(1, self._wanted // 10) - under_way) :]
        workers.worn = worn[::-1]
        workers.fresh = [worker for worker in workers.fresh if worker not in worn]

    @property
    def _wanted(self) -> int:
        if self._current is None or self._current.withdrawn or self.stopping:
            return 0
        return self._current.target

    def _shed(self, workers: _Workers, wakes: list[float], now: float) -> None:
        """Let go what is more than wanted: of the good ones, then of those that are booting.

        Old ones go first, and among equals the highest slot: so slots stay low and dense, as
        people who watch `worker 0` to `worker 3` expect, and it is the same choice each time.
        """
        fresh, worn, old, booting = workers.fresh, workers.worn, workers.old, workers.booting
        while len(fresh) + len(worn) + len(old) > self._wanted + self._on_trial(workers):
            self._dismiss((old or worn or fresh).pop(), now)
        if len(fresh) + len(worn) + len(old) > self._wanted:
            wakes.append(self._proof())
        while booting and len(booting) > self._room(workers, over=1):
            workers.stray.append(booting.pop())
        for worker in workers.stray:
            self._condemn(worker, now, "no longer wanted", now)

    def _room(self, workers: _Workers, over: int) -> int:
        """How many of the current generation may boot, with at most `over` above the target."""
        return min(self._wanted, self._wanted + over - len(workers.old)) - len(workers.fresh)

    def _on_trial(self, workers: _Workers) -> bool:
        """Whether one old worker stays on until a new one has proved its failing generation."""
        if not (self._current and self._wanted and (workers.old or workers.worn)):
            return False
        return self._current.backoff.failures > 0 and self._proof() < math.inf

    def _spawn_canaries(self, actions: list[Action]) -> None:
        """One canary of a candidate; all its workers where nothing was ever ready to serve."""
        if self._candidate is None:
            return
        wanted = 1 if self.ever_ready else self._candidate.target
        living = sum(w.generation == self._candidate.number for w in self._workers.values())
        asked = sum(asked is self._candidate for asked, _ in self._pending.values())
        for _ in range(wanted - living - asked):
            if not self._spawn(self._candidate, actions):
                return

    def _spawn_missing(
        self, workers: _Workers, actions: list[Action], wakes: list[float], now: float
    ) -> None:
        """Fill up the current generation, with one worker over the target where old ones remain.

        While a candidate boots there is none over: nothing of the rollout before moves until then.
        """
        if self._current is None:
            return
        coming = len(workers.booting) + workers.pending
        backoff = self._current.backoff
        for _ in range(self._room(workers, over=self._candidate is None) - coming):
            if now < backoff.not_before:
                wakes.append(min(backoff.not_before, self._proof()))
                return
            if not self._spawn(self._current, actions):
                return
            backoff.spawned(now)

    def _spawn(self, generation: _Generation, actions: list[Action]) -> bool:
        """Ask for a worker in the lowest free slot; False while none is (a death frees one)."""
        taken = self._pending.keys() | {worker.slot for worker in self._workers.values()}
        slot = next((slot for slot in range(self._max_slots) if slot not in taken), None)
        if slot is None:
            return False
        self._pending[slot] = (generation, generation.backoff.round)
        actions.append(Spawn(slot, generation.number))
        return True

    def _give_orders(self, actions: list[Action], wakes: list[float], now: float) -> None:
        for worker in self.members():
            if worker.killed:
                continue
            if worker.state is State.RETIRING:
                if worker.deadline is not None and worker.deadline <= now:
                    worker.killed = True
                    actions.append(Kill(worker.pid, worker.slot, worker.why))
                    continue
                # That it leaves answers the order to leave, not the later one to do so at once.
                if worker.order is Quit or (worker.order and not worker.leaving):
                    if worker.repeat_at <= now:
                        worker.repeat_at = now + REPEAT
                        actions.append(worker.order(worker.pid, worker.slot))
                    wakes.append(worker.repeat_at)
            if worker.deadline is not None:
                wakes.append(worker.deadline)

    def _conclude(self, workers: _Workers) -> None:
        current = self._current
        if self.stopping:
            if not (self._workers or self._pending or self._stopped):
                self._stopped = True
                self._outcomes.append(Stopped())
        elif current and not current.answered and not workers.old:
            current.answered = len(workers.fresh) + len(workers.worn) >= self._wanted
            if current.answered:
                self._outcomes.append(Settled(current.number))

    # The parts of it.

    def _generations(self) -> list[_Generation]:
        return [each for each in (self._current, self._candidate) if each]

    def _check(self, count: int) -> None:
        # One slot is left for the canary.
        if not 1 <= count < self._max_slots:
            raise ValueError(f"{count} workers: must be from 1 to {self._max_slots - 1}")

    def _take_pending(self, slot: int, generation: int) -> tuple[_Generation, int] | None:
        asked = self._pending.get(slot)
        return self._pending.pop(slot) if asked and asked[0].number == generation else None

    def _commit(self, candidate: _Generation) -> None:
        if self._current and not self._current.answered:
            self._outcomes.append(Superseded(self._current.number))
        self._current, self._candidate = candidate, None
        self.ever_ready = True

    def _abandon(self, why: str) -> None:
        """Give up what is under way, as seen by those who wait for it."""
        if self._current and not self._current.answered:
            self._current.answered = True
            self._outcomes.append(Abandoned(self._current.number, why))
        if self._candidate:
            self._outcomes.append(Abandoned(self._candidate.number, why))
            self._candidate = None

    def _count(
        self, generation: int, round: int, why: str, now: float, *, free: bool = True
    ) -> None:
        """A worker failed: the end of a candidate, a step of backoff for the current generation."""
        if self._candidate and generation == self._candidate.number:
            self._candidate = None
            if self.ever_ready:
                self._outcomes.append(Abandoned(generation, why))
            else:
                self._farewell = Quit
                self._outcomes.append(FirstBootFailed(why))
        elif self._current and generation == self._current.number:
            self._take_proof(now)
            self._current.backoff.fail(round, now, free=free)
            self._tell_if_stalled(self._current, why)

    def _tell_if_stalled(self, current: _Generation, why: str) -> None:
        under_way = not (current.answered or current.stalled)
        if under_way and current.backoff.failures >= STALLED:
            current.stalled = True
            self._outcomes.append(Stalled(current.number, why))

    def _grant(self, generation: int, now: float) -> None:
        if self._current and generation == self._current.number:
            self._take_proof(now)
            self._current.backoff.grant(now)

    def _proof(self) -> float:
        """When a worker of the current round will have proved its generation; infinity: never."""
        current = self._current
        return min(
            (
                worker.since + PROOF
                for worker in self._workers.values()
                if current
                and worker.generation == current.number
                and worker.state is State.READY
                and worker.round == current.backoff.round
            ),
            default=math.inf,
        )

    def _take_proof(self, now: float) -> None:
        if self._current and self._proof() <= now:
            self._current.backoff.reset()

    def _let_go(self, worker: Worker, now: float) -> None:
        """A good worker leaves outside the plan; its place is filled at once."""
        self._grant(worker.generation, now)
        self._dismiss(worker, now)

    def _dismiss(self, worker: Worker, now: float) -> None:
        """Tell a worker to leave in the way of the day, within its generation's time."""
        limit = LAST_WORDS if self._farewell is Quit else worker.settings.graceful_timeout
        deadline = now + limit if limit else None
        self._condemn(worker, deadline, f"still there {limit:g} s after the order to leave", now)
        worker.order, worker.repeat_at = self._farewell, now
        worker.leaving = worker.killed = False

    def _hurry(self, worker: Worker, now: float) -> None:
        """Quit instead of the order that it has, and no later than that one would have ended."""
        earlier = worker.deadline
        self._dismiss(worker, now)
        if earlier is not None and worker.deadline is not None:
            worker.deadline = min(earlier, worker.deadline)

    def _condemn(self, worker: Worker, deadline: float | None, why: str, now: float) -> None:
        worker.state, worker.since = State.RETIRING, now
        worker.deadline, worker.why = deadline, why


def _worker_state(worker: Worker) -> WorkerState:
    return WorkerState(
        pid=worker.pid,
        slot=worker.slot,
        generation=worker.generation,
        round=worker.round,
        since=worker.since,
        deadline=worker.deadline,
        state=worker.state.value,
        leaving=worker.leaving,
        killed=worker.killed,
        retire=worker.order is not None,
        why=worker.why,
        worn=worker.worn,
    )


def _adopted(state: WorkerState, settings: Settings) -> Worker:
    """An order that was not confirmed is given again at once."""
    return Worker(
        pid=state.pid,
        slot=state.slot,
        generation=state.generation,
        settings=settings,
        round=state.round,
        since=state.since,
        deadline=state.deadline,
        state=State(state.state),
        leaving=state.leaving,
        killed=state.killed,
        order=Retire if state.retire else None,
        why=state.why,
        worn=state.worn,
    )
