"""What there is, compared with what there should be: the step from the books to a plan.

It holds no script of a rollout: each plan is made anew from the roster.
"""

import math

from prefork.master.pool.plan import (
    Action,
    KillAction,
    Plan,
    QuitAction,
    Settled,
    SpawnAction,
    Stopped,
    Worker,
    WorkerState,
)
from prefork.master.pool.roster import PoolGeneration, Roster

REPEAT = 0.1
"""Seconds between two orders to a worker that has not said that it is leaving: a signal that
arrives just before it enters accept() can be missed."""


PACE = 0.05
"""Seconds until one more worker is forked beside `Settings.at_once` that boot already.

While an application is imported a worker has a CPU to itself: with eight on two CPUs, all eight
would be ready at the end, and none before. One that waits at its import (for a database, say)
needs no CPU, so the others are not to wait for it for long.
"""


def compare(roster: Roster, now: float) -> Plan:
    """What is to be done now. Asking again asks for nothing twice."""
    return _Comparison(roster, now).plan()


class _Comparison:
    """One look at the roster; retiring workers are no members of it."""

    def __init__(self, roster: Roster, now: float) -> None:
        self._roster = roster
        self._now = now
        self._actions: list[Action] = []
        self._wakes: list[float] = []
        self._fresh: list[Worker] = []
        """Ready, of the current generation."""
        self._worn: list[Worker] = []
        """Those of them that are being replaced now."""
        self._old: list[Worker] = []
        """Ready, of an older one."""
        self._booting: list[Worker] = []
        """Of the current generation."""
        self._stray: list[Worker] = []
        """Booting, and not wanted any more."""

    def plan(self) -> Plan:
        roster = self._roster
        self._expire_boots()
        roster.take_proof(self._now)
        self._sort()
        self._shed()
        self._spawn_canaries()
        self._spawn_missing()
        self._give_orders()
        self._conclude()
        outcomes, roster.outcomes = roster.outcomes, []
        return Plan(self._actions, outcomes, min(self._wakes, default=None))

    def _expire_boots(self) -> None:
        roster, now = self._roster, self._now
        for worker in roster.members():
            overdue = worker.deadline is not None and worker.deadline <= now
            if worker.state is WorkerState.BOOTING and overdue:
                why = f"not ready within {worker.settings.boot_timeout:g} s"
                roster.condemn(worker, now, why, now)
                roster.count(worker.generation, worker.round, why, now)

    def _sort(self) -> None:
        roster = self._roster
        current = None if roster.current is None or roster.current.withdrawn else roster.current
        for worker in roster.members():
            mine = current is not None and worker.generation == current.number
            canary = roster.candidate and worker.generation == roster.candidate.number
            if worker.state is WorkerState.READY:
                (self._fresh if mine else self._old).append(worker)
            elif worker.state is WorkerState.BOOTING and not canary:
                (self._booting if mine else self._stray).append(worker)
        if not self._old:  # a rollout goes first
            self._take_worn()

    def _take_worn(self) -> None:
        """Of those that have served long enough, the first that may be replaced now.

        At most a tenth of the pool is on the way at one time, from the boot of the new worker to
        the end of the old one; an old one that may stay for ever is not waited for.
        """
        roster = self._roster
        under_way = sum(
            worker.worn is not None
            and worker.state is WorkerState.RETIRING
            and worker.deadline is not None
            for worker in roster.workers.values()
        )
        worn = [worker for worker in self._fresh if worker.worn is not None]
        worn.sort(key=lambda worker: worker.worn or 0.0)
        del worn[max(0, max(1, roster.wanted // 10) - under_way) :]
        self._worn = worn[::-1]
        self._fresh = [worker for worker in self._fresh if worker not in worn]

    def _shed(self) -> None:
        """Let go what is more than wanted: of the good ones, then of those that are booting.

        Old ones go first, and among equals the highest slot: so slots stay low and dense, as
        people who watch `worker 0` to `worker 3` expect, and it is the same choice each time.
        """
        roster, now = self._roster, self._now
        fresh, worn, old, booting = self._fresh, self._worn, self._old, self._booting
        while len(fresh) + len(worn) + len(old) > roster.wanted + self._on_trial():
            roster.dismiss((old or worn or fresh).pop(), now)
        if len(fresh) + len(worn) + len(old) > roster.wanted:
            self._wakes.append(roster.proof())
        while booting and len(booting) > self._room(over=1):
            self._stray.append(booting.pop())
        for worker in self._stray:
            roster.condemn(worker, now, "no longer wanted", now)

    def _room(self, over: int) -> int:
        """How many of the current generation may boot, with at most `over` above the target."""
        roster = self._roster
        return min(roster.wanted, roster.wanted + over - len(self._old)) - len(self._fresh)

    def _on_trial(self) -> bool:
        """Whether one old worker stays on until a new one has proved its failing generation."""
        roster = self._roster
        if not (roster.current and roster.wanted and (self._old or self._worn)):
            return False
        return roster.current.backoff.failures > 0 and roster.proof() < math.inf

    def _spawn_canaries(self) -> None:
        """One canary of a candidate; all its workers where nothing was ever ready to serve."""
        roster = self._roster
        if roster.candidate is None:
            return
        wanted = 1 if roster.ever_ready else roster.candidate.target
        living = sum(w.generation == roster.candidate.number for w in roster.workers.values())
        asked = sum(asked is roster.candidate for asked, _ in roster.pending.values())
        for _ in range(wanted - living - asked):
            if not self._spawn(roster.candidate):
                return

    def _spawn_missing(self) -> None:
        """Fill up the current generation, with one worker over the target where old ones remain.

        While a candidate boots there is none over: nothing of the rollout before moves until then.
        """
        roster, now = self._roster, self._now
        current = roster.current
        if current is None:
            return
        asked = sum(asked is current for asked, _ in roster.pending.values())
        coming = len(self._booting) + asked
        backoff = current.backoff
        for _ in range(self._room(over=roster.candidate is None) - coming):
            if now < backoff.not_before:
                self._wakes.append(min(backoff.not_before, roster.proof()))
                return
            if not self._spawn(current):
                return
            backoff.spawned(now)

    def _spawn(self, generation: PoolGeneration) -> bool:
        """Ask for a worker in the lowest free slot; False while none is (a death frees one), and
        while enough others boot."""
        roster = self._roster
        at_once = generation.settings.at_once
        if at_once and roster.booting >= at_once and self._now < roster.spawned_at + PACE:
            self._wakes.append(roster.spawned_at + PACE)
            return False
        taken = roster.pending.keys() | {worker.slot for worker in roster.workers.values()}
        slot = next((slot for slot in range(roster.max_slots) if slot not in taken), None)
        if slot is None:
            return False
        roster.pending[slot] = (generation, generation.backoff.round)
        roster.spawned_at = self._now
        self._actions.append(SpawnAction(slot, generation.number))
        return True

    def _give_orders(self) -> None:
        roster, now = self._roster, self._now
        for worker in roster.members():
            if worker.killed:
                continue
            if worker.state is WorkerState.RETIRING:
                if worker.deadline is not None and worker.deadline <= now:
                    worker.killed = True
                    self._actions.append(KillAction(worker.pid, worker.slot, worker.why))
                    continue
                # That it leaves answers the order to leave, not the later one to do so at once.
                if worker.order is QuitAction or (worker.order and not worker.leaving):
                    if worker.repeat_at <= now:
                        worker.repeat_at = now + REPEAT
                        self._actions.append(worker.order(worker.pid, worker.slot))
                    self._wakes.append(worker.repeat_at)
            if worker.deadline is not None:
                self._wakes.append(worker.deadline)

    def _conclude(self) -> None:
        roster = self._roster
        current = roster.current
        if roster.stopping:
            if not (roster.workers or roster.pending or roster.stopped):
                roster.stopped = True
                roster.outcomes.append(Stopped())
        elif current and not current.answered and not self._old:
            current.answered = len(self._fresh) + len(self._worn) >= roster.wanted
            if current.answered:
                roster.outcomes.append(Settled(current.number))
