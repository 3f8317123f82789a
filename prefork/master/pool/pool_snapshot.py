"""The pool in a snapshot: taken by one master, restored by the next."""

from collections.abc import Mapping

from prefork.master.pool.backoff import Backoff
from prefork.master.pool.plan import GenerationSettings, RetireAction, Worker, WorkerState
from prefork.master.pool.roster import PoolGeneration, Roster
from prefork.master.snapshot import PoolSnapshot, WorkerSnapshot


def take(roster: Roster) -> PoolSnapshot:
    """The whole pool; only between two transactions, in which a generation serves."""
    current = roster.current
    assert current is not None
    return PoolSnapshot(
        current=current.number,
        target=current.target,
        bounds=current.bounds,
        withdrawn=current.withdrawn,
        failures=current.backoff.failures,
        round=current.backoff.round,
        not_before=current.backoff.not_before,
        workers=tuple(map(_take_worker, roster.members())),
    )


def restore(
    roster: Roster, state: PoolSnapshot, settings: Mapping[int, GenerationSettings]
) -> None:
    """Fills an empty roster; `settings` are those of each generation."""
    roster.current = PoolGeneration(
        state.current,
        settings[state.current],
        Backoff(roster.rng, state.failures, state.round, state.not_before),
        state.target,
        state.bounds,
        concluded=True,
        withdrawn=state.withdrawn,
    )
    roster.ever_ready = True
    for each in state.workers:
        roster.workers[each.pid] = _restore_worker(each, settings[each.generation])


def _take_worker(worker: Worker) -> WorkerSnapshot:
    return WorkerSnapshot(
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
        reason=worker.kill_reason,
        due_for_recycling=worker.due_for_recycling,
    )


def _restore_worker(state: WorkerSnapshot, settings: GenerationSettings) -> Worker:
    """The worker of a snapshot; an order that was not confirmed is given again at once."""
    return Worker(
        pid=state.pid,
        slot=state.slot,
        generation=state.generation,
        settings=settings,
        round=state.round,
        since=state.since,
        deadline=state.deadline,
        state=WorkerState(state.state),
        leaving=state.leaving,
        killed=state.killed,
        order=RetireAction if state.retire else None,
        kill_reason=state.reason,
        due_for_recycling=state.due_for_recycling,
    )
