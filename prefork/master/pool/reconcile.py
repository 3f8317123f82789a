"""The workers that there are, brought towards those that there should be.

This holds no script of a rollout: each plan follows from the roster alone.
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
"""Seconds between two orders to a worker that has not confirmed that it is leaving: it misses a
signal that arrives just before it enters accept()."""

PACE = 0.05
"""Seconds until one more worker is forked beside the `GenerationSettings.at_once` that boot.

A worker that imports an application needs a CPU for itself: if eight import on two CPUs, all eight
are ready at the end, and none before.  A worker whose import waits (for a database, say) needs no
CPU, so the others do not wait for it for long.
"""


def advance(roster: Roster, now: float) -> Plan:
    """Brings the roster up to `now` and returns what the master has to do.

    This changes the roster: workers that have to go are retiring afterwards, spawns are pending,
    orders and kills count as given, and the outcomes have been taken out.  So a second call asks
    for nothing twice.
    """
    return _Step(roster, now).advance()


class _Step:
    """One call of `advance`.  A retiring worker is in none of the lists."""

    def __init__(self, roster: Roster, now: float) -> None:
        self._roster = roster
        self._now = now
        self._actions: list[Action] = []
        self._wakes: list[float] = []
        self._serving: list[Worker] = []
        """Ready workers of the current generation."""
        self._recycled: list[Worker] = []
        """Ready workers of the current generation that are being replaced now."""
        self._old: list[Worker] = []
        """Ready workers of an older generation."""
        self._booting: list[Worker] = []
        """Booting workers of the current generation."""
        self._unwanted: list[Worker] = []
        """Booting workers that are surplus, or of an older generation."""

    def advance(self) -> Plan:
        roster = self._roster
        self._expire_boots()
        roster.end_probation(self._now)
        self._classify()
        self._retire_surplus()
        self._spawn_canaries()
        self._spawn_missing()
        self._give_orders()
        self._check_outcome()
        outcomes, roster.outcomes = roster.outcomes, []
        return Plan(self._actions, outcomes, min(self._wakes, default=None))

    def _expire_boots(self) -> None:
        roster, now = self._roster, self._now
        for worker in roster.members():
            overdue = worker.deadline is not None and worker.deadline <= now
            if worker.state is WorkerState.BOOTING and overdue:
                reason = f"not ready within {worker.settings.boot_timeout:g} s"
                roster.schedule_kill(worker, now, reason, now)
                roster.count_failure(worker.generation, worker.round, reason, now)

    def _classify(self) -> None:
        roster = self._roster
        current = None if roster.current is None or roster.current.withdrawn else roster.current
        for worker in roster.members():
            mine = current is not None and worker.generation == current.number
            canary = roster.candidate and worker.generation == roster.candidate.number
            if worker.state is WorkerState.READY:
                (self._serving if mine else self._old).append(worker)
            elif worker.state is WorkerState.BOOTING and not canary:
                (self._booting if mine else self._unwanted).append(worker)
        if not self._old:  # a rollout goes first
            self._choose_recycled()

    def _choose_recycled(self) -> None:
        """Of the workers that are due for recycling, chooses those that may be replaced now.

        At most a tenth of the pool is replaced at one time, from the boot of the new worker to the
        end of the old one; an old one is not waited for if it has no deadline, or if its clients
        keep it for longer.
        """
        roster = self._roster
        under_way = sum(
            worker.due_for_recycling is not None
            and worker.state is WorkerState.RETIRING
            and worker.deadline is not None
            and not worker.postponed
            for worker in roster.workers.values()
        )
        recycled = [worker for worker in self._serving if worker.due_for_recycling is not None]
        recycled.sort(key=lambda worker: worker.due_for_recycling or 0.0)
        del recycled[max(0, max(1, roster.wanted // 10) - under_way) :]
        self._recycled = recycled[::-1]
        self._serving = [worker for worker in self._serving if worker not in recycled]

    def _retire_surplus(self) -> None:
        """Retires the workers above the target: ready ones first, then booting ones.

        Old ones go first, and among equals the highest slot: so slots stay low and dense, as
        people who watch `worker 0` to `worker 3` expect, and it is the same choice each time.
        """
        roster, now = self._roster, self._now
        serving, recycled, old, booting = self._serving, self._recycled, self._old, self._booting
        while len(serving) + len(recycled) + len(old) > roster.wanted + self._under_probation():
            roster.retire((old or recycled or serving).pop(), now)
        if len(serving) + len(recycled) + len(old) > roster.wanted:
            self._wakes.append(roster.probation_end())
        while booting and len(booting) > self._room(over=1):
            self._unwanted.append(booting.pop())
        for worker in self._unwanted:
            roster.schedule_kill(worker, now, "no longer wanted", now)

    def _room(self, over: int) -> int:
        """How many of the current generation may boot, with at most `over` above the target."""
        roster = self._roster
        return min(roster.wanted, roster.wanted + over - len(self._old)) - len(self._serving)

    def _under_probation(self) -> bool:
        """Whether one old worker serves on until a new one has proved a failing generation."""
        roster = self._roster
        if not (roster.current and roster.wanted and (self._old or self._recycled)):
            return False
        return roster.current.backoff.failures > 0 and roster.probation_end() < math.inf

    def _spawn_canaries(self) -> None:
        """Spawns one canary of a candidate, or all its workers if none was ever ready to serve."""
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
        """Fills up the current generation, to one above the target while old workers remain.

        While a candidate boots, none is above the target: the rollout before it stands still.
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
                self._wakes.append(min(backoff.not_before, roster.probation_end()))
                return
            if not self._spawn(current):
                return
            backoff.spawned(now)

    def _spawn(self, generation: PoolGeneration) -> bool:
        """Asks for a worker in the lowest free slot.

        False if no slot is free (a death frees one), or while enough others boot.
        """
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
                    self._actions.append(KillAction(worker.pid, worker.slot, worker.kill_reason))
                    continue
                # A worker that leaves has confirmed the order to retire, not a later one to quit.
                if worker.order is QuitAction or (worker.order and not worker.leaving):
                    if worker.repeat_at <= now:
                        worker.repeat_at = now + REPEAT
                        self._actions.append(worker.order(worker.pid, worker.slot))
                    self._wakes.append(worker.repeat_at)
            if worker.deadline is not None:
                self._wakes.append(worker.deadline)

    def _check_outcome(self) -> None:
        roster = self._roster
        current = roster.current
        if roster.stopping:
            if not (roster.workers or roster.pending or roster.stopped):
                roster.stopped = True
                roster.outcomes.append(Stopped())
        elif current and not current.concluded and not self._old:
            current.concluded = len(self._serving) + len(self._recycled) >= roster.wanted
            if current.concluded:
                roster.outcomes.append(Settled(current.number))
