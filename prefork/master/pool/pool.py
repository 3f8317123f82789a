"""The pool decides which workers there should be; the supervisor carries that out.

`Pool` is pure state.  It makes no system call, reads no clock and owns no process: the master
reports what happened, calls `advance(now)`, carries out the plan and reports what came of that.  So
every schedule (a crash loop, a reload in the middle of a reload, a worker that dies while it
retires) is a plain test without a fork, with an invented clock.

It rests on three ideas:

- At most two generations matter: *current*, which serves, and *candidate*, of which nothing but a
  canary exists.  The canary's readiness commits the candidate: it becomes current.  A failure
  before that drops the candidate, and nothing has to be undone, because nothing else was done.  A
  first boot is a candidate whose canaries are all of its workers.
- `advance` moves the workers that there are towards those that there should be
  (prefork.master.pool.reconcile) and holds no script of a rollout.  An old worker is surplus once
  it and its successors together are more than the target.  So scaling down, withdrawing and
  stopping are the same step with another target.  And a new generation that dies soon after its
  readiness can't use up the old one: from its first failure on, an old worker goes only when a new
  one has served for a while.  A worker that is due for recycling is such an old one, too, but only
  a tenth of the pool at a time.
- A worker that was ordered to leave does not count any more: its replacement is not held up by how
  long it takes to exit.

All times are seconds of one monotonic clock, passed in as `now`. Every call may be repeated; an
event about a process that the pool does not know is ignored.
"""

import random
from collections.abc import Mapping

from prefork.master.pool import pool_snapshot
from prefork.master.pool.backoff import Backoff
from prefork.master.pool.plan import (
    Abandoned,
    DeathVerdict,
    GenerationSettings,
    Plan,
    QuitAction,
    RestartReason,
    RetireAction,
    StopAction,
    Superseded,
    Worker,
    WorkerState,
)
from prefork.master.pool.reconcile import advance
from prefork.master.pool.roster import EXIT_GRACE, PROBATION, PoolGeneration, Roster
from prefork.master.snapshot import PoolSnapshot
from prefork.pool_bounds import PoolBounds
from prefork.quantity import quantity


class Pool:
    """The living workers, and the generations that they belong to.

    Slot numbers are unique among the living, retiring ones included, and below `max_slots`.
    """

    def __init__(self, rng: random.Random, *, max_slots: int = 1024) -> None:
        self._roster = Roster(rng, max_slots)

    # What it looks like.

    @property
    def current(self) -> int | None:
        """The generation that serves; None before any worker was ready."""
        roster = self._roster
        return roster.current.number if roster.current else None

    @property
    def rollout(self) -> int | None:
        """The generation under way: started, and neither settled nor abandoned."""
        roster = self._roster
        if roster.candidate:
            return roster.candidate.number
        current = roster.current
        return current.number if current and not current.concluded else None

    @property
    def spawning(self) -> set[int]:
        """The generations that may still have to spawn a worker."""
        roster = self._roster
        generations = () if self.stopping else (roster.current, roster.candidate)
        return {each.number for each in generations if each and not each.withdrawn}

    @property
    def candidate(self) -> int | None:
        """The generation on trial: the first failure of a worker ends it."""
        roster = self._roster
        return roster.candidate.number if roster.candidate else None

    @property
    def target(self) -> int:
        """How many workers the serving generation should have; 0 before the first start."""
        roster = self._roster
        generation = roster.current or roster.candidate
        return generation.target if generation else 0

    @property
    def bounds(self) -> PoolBounds | None:
        """The range in which the target of the serving generation moves; None for a fixed pool."""
        roster = self._roster
        generation = roster.current or roster.candidate
        return generation.bounds if generation else None

    @property
    def stopping(self) -> bool:
        return self._roster.stopping

    @property
    def serves_on(self) -> bool:
        """Whether there are to be workers."""
        return not (self.stopping or self.withdrawn)

    @property
    def stops_at_once(self) -> bool:
        """Whether the server was ordered to stop without waiting for requests."""
        return self._roster.stop_mode is QuitAction and self.ever_ready

    @property
    def ever_ready(self) -> bool:
        """Whether a worker was ever ready: from then on a failure cannot end the server."""
        return self._roster.ever_ready

    def members(self) -> list[Worker]:
        """All living workers, by slot, retiring ones included."""
        return self._roster.members()

    def find(self, pid: int) -> Worker | None:
        return self._roster.workers.get(pid)

    # From one master to the next.

    @property
    def withdrawn(self) -> bool:
        """Whether the workers were retired, and none take their place."""
        current = self._roster.current
        return current is not None and current.withdrawn

    @property
    def between_transactions(self) -> bool:
        """Whether nothing is on trial or unanswered, so that a snapshot can be taken."""
        roster = self._roster
        return bool(roster.current and not (roster.candidate or roster.pending or self.stopping))

    def snapshot(self) -> PoolSnapshot:
        """The whole pool, for the next master; only between two transactions."""
        return pool_snapshot.take(self._roster)

    def restore(self, state: PoolSnapshot, settings: Mapping[int, GenerationSettings]) -> None:
        """Goes on from a snapshot; `settings` are those of each generation.

        A client that waits for a rollout of the master before gets no answer from this pool.
        """
        pool_snapshot.restore(self._roster, state, settings)

    def carry_over_size(self) -> None:
        """Applies what an operator has set by `scale` or `grow` to the generation under way, too.

        It holds until the next start; but to an operator, an upgrade is no reload.
        """
        current, candidate = self._roster.current, self._roster.candidate
        if current and candidate and current.set_by_hand:
            candidate.target = current.target
            if candidate.bounds:
                candidate.bounds = current.bounds or candidate.bounds.at(current.target)

    # What the operator wants.

    def start(self, generation: int, settings: GenerationSettings) -> None:
        """Boots a generation: the first, or a reload, which supersedes one that is under way.

        Each start is answered by exactly one `Settled`, `Abandoned`, `Superseded` or
        `FirstBootFailed`; before that, one `Stalled` can report that it is stuck.  A committed
        generation whose successor fails goes on, and may settle.
        A dynamic pool begins with as many workers as there are, within its bounds: a reload under
        load must not begin with too few.
        Raises ValueError if `settings.count` is not from 1 to `max_slots` - 1.
        """
        roster = self._roster
        if generation in (self.current, self.rollout):
            return
        bounds = settings.bounds
        target = bounds.fit(max(self.target, bounds.spare)) if bounds else settings.count
        self._check(bounds.max if bounds else target)
        if self.stopping:
            roster.outcomes.append(Abandoned(generation, "the server is stopping"))
            return
        if roster.candidate:
            roster.outcomes.append(Superseded(roster.candidate.number))
        roster.candidate = PoolGeneration(generation, settings, Backoff(roster.rng), target, bounds)

    def scale(self, count: int) -> None:
        """Sets the target of the serving generation and of one under way, until the next start.

        It is set for both, so that it holds whether the one under way succeeds or fails.  In a
        dynamic pool both bounds become `count`, so that it has exactly `count` workers until then.
        Raises ValueError if `count` is not from 1 to `max_slots` - 1.
        """
        self._check(count)
        for generation in self._roster.generations():
            generation.target = count
            generation.bounds = generation.bounds and generation.bounds.at(count)

    def grow(self, n: int) -> None:
        """Moves the target by `n` (which may be negative), from 1 to `max_slots` - 1.

        In a dynamic pool both bounds move by `n` within these limits, and the target moves with
        them: one worker more or less now, which demand may change again.
        """
        roster = self._roster
        most = roster.max_slots - 1
        target = max(1, min(self.target + n, most))
        for generation in roster.generations():
            generation.bounds = generation.bounds and generation.bounds.moved(n, most)
            generation.target = generation.bounds.fit(target) if generation.bounds else target

    def resize(self, target: int) -> None:
        """Moves the target of a dynamic pool, also of a generation under way, within its bounds.

        The target of a fixed pool stays as it is.
        """
        for generation in self._roster.generations():
            if generation.bounds:
                generation.target = generation.bounds.fit(target)

    def withdraw(self) -> None:
        """Retires all workers; the next start brings workers back, if its canary is good."""
        roster = self._roster
        roster.abandon("all workers were withdrawn")
        if roster.current:
            roster.current.withdrawn = True

    def stop(self, now: float, graceful: bool) -> None:
        """Stops all workers for good, drained or at once; a later quick stop overrides a graceful
        one."""
        roster = self._roster
        if roster.stop_mode is QuitAction:
            return
        roster.abandon("the server is stopping")
        roster.stop_mode = StopAction if graceful else QuitAction
        if not graceful:
            for worker in roster.workers.values():
                if worker.order and not worker.killed:
                    roster.force_quit(worker, now)
            return
        for worker in roster.workers.values():
            if worker.postponed and not worker.killed:  # like the others from now on
                roster.expect_end(worker, now)

    # What happened.

    def spawned(self, slot: int, generation: int, pid: int, now: float) -> Worker | None:
        """The record of a worker that was forked; None if none was asked for in this slot."""
        roster = self._roster
        asked = roster.take_pending(slot, generation)
        if asked is None:
            return None
        settings = asked[0].settings
        deadline = now + settings.boot_timeout if settings.boot_timeout else None
        worker = Worker(slot, pid, generation, settings, asked[1], now, deadline)
        roster.workers[pid] = worker
        return worker

    def spawn_failed(self, slot: int, generation: int, reason: str, now: float) -> None:
        """A fork failed (EAGAIN, ENOMEM): that ends a candidate; else it is tried again later."""
        roster = self._roster
        asked = roster.take_pending(slot, generation)
        if asked:
            roster.count_failure(generation, asked[1], reason, now, free=False)

    def ready(self, pid: int, now: float) -> None:
        roster = self._roster
        worker = roster.workers.get(pid)
        if worker is None or worker.state is WorkerState.READY or worker.order:
            return
        if worker.state is WorkerState.RETIRING:
            # Its kill is scheduled, but it was ready in time to leave in good order.
            roster.retire(worker, now)
            return
        worker.state, worker.since, worker.deadline = WorkerState.READY, now, None
        if roster.candidate and worker.generation == roster.candidate.number:
            roster.commit(roster.candidate)
        elif worker.generation != self.current:
            roster.retire(worker, now)

    def leaving(self, pid: int, now: float) -> None:
        """A worker has confirmed the order to leave, or leaves of its own accord."""
        roster = self._roster
        worker = roster.workers.get(pid)
        if worker is None:
            return
        if worker.state is WorkerState.BOOTING:
            self.boot_failed(pid, "it left before it was ready", now)
        elif worker.state is WorkerState.READY:
            roster.retire_now(worker, now)
        worker.leaving = True

    def boot_failed(self, pid: int, reason: str, now: float) -> None:
        """A worker has reported that its boot failed; it exits now, or is killed."""
        roster = self._roster
        worker = roster.workers.get(pid)
        if worker and worker.state is WorkerState.BOOTING:
            roster.schedule_kill(
                worker, now + EXIT_GRACE, "its boot failed and it did not exit", now
            )
            roster.count_failure(worker.generation, worker.round, reason, now)

    def died(self, pid: int, how: str, now: float, *, sigkill: bool = False) -> DeathVerdict:
        """A worker was reaped.  `how`: in words; `sigkill`: whether SIGKILL ended it."""
        roster = self._roster
        worker = roster.workers.get(pid)
        if worker is None:
            return DeathVerdict(expected=True, reported=True, restart=None)
        verdict = self._verdict(worker, sigkill)
        if worker.state is WorkerState.BOOTING:
            reason = f"a worker died before it was ready: {how}"
            roster.count_failure(worker.generation, worker.round, reason, now)
        elif worker.state is WorkerState.READY:
            # A SIGKILL comes from an operator or from the kernel that is short of memory: it says
            # nothing about the code, so the replacement is forked at once.
            if sigkill or now - worker.since >= PROBATION:
                roster.skip_backoff(worker.generation, now)
            else:
                roster.count_failure(worker.generation, worker.round, how, now)
        del roster.workers[pid]
        return verdict

    def _verdict(self, worker: Worker, sigkill: bool) -> DeathVerdict:
        expected = worker.state is WorkerState.RETIRING and not sigkill
        restart: RestartReason | None = None
        if self.stopping:
            pass
        elif worker.state is WorkerState.BOOTING:
            restart = "boot_failed"
        elif worker.state is WorkerState.READY:
            restart = "crashed"
        elif (
            expected
            and worker.generation < (self.current or 0)
            and worker.due_for_recycling is None
        ):
            restart = "reload"
        reported = worker.killed or worker.generation == self.candidate
        return DeathVerdict(expected, reported, restart)

    def overdue(self, now: float) -> list[Worker]:
        """The retiring workers whose time is over, and that may get more of it by `postpone`."""
        return [
            worker
            for worker in self._roster.workers.values()
            if worker.order is RetireAction
            and worker.leaving
            and not (worker.killed or self.stopping)
            and worker.deadline is not None
            and worker.deadline <= now
        ]

    def postpone(self, worker: Worker, until: float) -> None:
        """The clients of a retiring worker keep it: it is killed at `until`, and not before."""
        worker.deadline, worker.postponed = until, True
        left = until - worker.since
        bound = " (workers.drain_timeout)" if left == worker.settings.drain_timeout else ""
        worker.kill_reason = f"still there {left:.4g} s after the order to leave{bound}"

    def replace_now(self, pid: int, now: float) -> None:
        """A worker is to leave now: a request passed its timeout, it hangs, or was sent SIGTERM.

        It has `graceful_timeout` for its other requests (0: no limit) and is then killed.
        """
        roster = self._roster
        worker = roster.workers.get(pid)
        if worker and worker.state is WorkerState.READY:
            roster.retire_now(worker, now)

    def recycle(self, pid: int, now: float) -> bool:
        """Marks a worker as due for recycling; it serves on until it is replaced.

        False if it was marked before, does not serve, or is leaving already.
        """
        worker = self._roster.workers.get(pid)
        if (
            worker is None
            or worker.state is not WorkerState.READY
            or worker.due_for_recycling is not None
        ):
            return False
        worker.due_for_recycling = now
        return True

    def overslept(self, seconds: float) -> None:
        """The loop slept `seconds` longer than planned (a stopped machine or master).

        The workers slept too, or their reports were not read: deadlines and backoff move by as
        much.
        """
        roster = self._roster
        for worker in roster.workers.values():
            if worker.deadline is not None:
                worker.deadline += seconds
        if roster.current:
            roster.current.backoff.not_before += seconds

    # What to do.

    def advance(self, now: float) -> Plan:
        """Brings the pool up to `now` and returns what the master has to do about it.

        This changes the pool: a second call asks for nothing twice.
        """
        return advance(self._roster, now)

    def _check(self, count: int) -> None:
        # One slot is left for the canary.
        most = self._roster.max_slots - 1
        if not 1 <= count <= most:
            raise ValueError(f"{quantity(count, 'worker')}: must be from 1 to {most}")
