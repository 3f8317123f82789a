"""The pool's rules for workers that have served long enough, and for a target that moves."""

import pytest

from prefork.master.pool.plan import (
    Abandoned,
    GenerationSettings,
    KillAction,
    RetireAction,
    Settled,
    SpawnAction,
    Worker,
    WorkerState,
)
from prefork.pool_bounds import PoolBounds
from tests.support.made_up_master import MadeUpMaster, only, serving, slots, wake_time


def mark_due(master: MadeUpMaster, *workers: Worker) -> None:
    for worker in workers:
        assert master.pool.recycle(worker.pid, master.now)


def dynamic(low: int, high: int, spare: int = 1) -> GenerationSettings:
    return GenerationSettings(1, 30.0, 20.0, PoolBounds(low, high, spare))


# Recycling.


def test_the_replacement_is_ready_before_the_old_worker_goes() -> None:
    master = serving(4)
    old = master.good()[1]
    mark_due(master, old)
    assert master.step().actions == [SpawnAction(4, 1)]
    assert master.step(20.0).actions == []
    plan = master.ready(*master.booting())
    assert plan.actions == [RetireAction(old.pid, 1)]
    assert slots(master.good()) == [0, 2, 3, 4]
    assert master.outcomes == []


def test_one_at_a_time_until_the_old_one_is_gone() -> None:
    master = serving(4)
    first, second = master.good()[:2]
    mark_due(master, first)
    master.step(1.0)
    mark_due(master, second)
    assert only(master.step().actions, SpawnAction) == []
    master.ready(*master.booting())
    assert master.retiring() == [first]
    assert only(master.step(5.0).actions, SpawnAction) == []
    assert master.die(first).actions == [SpawnAction(0, 1)]
    master.ready(*master.booting())
    assert master.retiring() == [second]


def test_the_first_that_was_marked_is_the_first_to_go() -> None:
    master = serving(4)
    low, _, _, high = master.good()
    mark_due(master, high)
    master.now += 1
    mark_due(master, low)
    master.step()
    master.ready(*master.booting())
    assert master.retiring() == [high]


def test_a_tenth_of_a_large_pool_is_on_the_way_at_once() -> None:
    master = serving(30)
    mark_due(master, *master.good())
    assert len(only(master.step().actions, SpawnAction)) == 3
    master.ready(*master.booting()[:1])
    assert len(master.retiring()) == 1
    assert len(master.booting()) == 2
    assert len(only(master.die(*master.retiring()).actions, SpawnAction)) == 1
    for _ in range(30):
        master.ready(*master.booting())
        master.reap()
    assert len(master.good()) == 30
    assert not any(worker.due_for_recycling for worker in master.good())
    assert master.step().actions == []


def test_one_that_may_stay_for_ever_does_not_hold_up_the_others() -> None:
    master = serving(4, graceful=0.0)
    mark_due(master, *master.good()[:2])
    master.step()
    master.ready(*master.booting())
    assert only(master.step().actions, SpawnAction) == [SpawnAction(5, 1)]


def test_the_old_one_serves_on_while_its_replacement_cannot_boot() -> None:
    master = serving(2)
    old = master.good()[0]
    mark_due(master, old)
    master.step()
    waits = []
    for _ in range(5):
        plan = master.die(*master.booting())
        if not master.booting():
            waits.append(wake_time(plan) - master.now)
            master.wake_up(plan)
        assert old in master.good()
        assert len(master.good()) == 2
        assert len(master.booting()) == 1
    assert min(waits) > 0
    assert max(waits) > 0.1  # longer with each failure


def test_after_failures_the_old_one_stays_until_the_new_one_has_proved_itself() -> None:
    master = serving(2)
    old = master.good()[0]
    mark_due(master, old)
    master.step()
    master.die(*master.booting())
    plan = master.ready(*master.booting())
    assert only(plan.actions, RetireAction) == []
    assert plan.wake_at == master.now + 5.0
    assert master.step(5.0).actions == [RetireAction(old.pid, 0)]


def test_replacements_that_die_soon_do_not_eat_up_the_pool() -> None:
    master = serving(3)
    mark_due(master, *master.good())
    for _ in range(20):
        plan = master.step()
        master.ready(*master.booting(), seconds=0.1)
        master.die(*(w for w in master.good() if w.due_for_recycling is None))
        master.reap()
        plan = master.step()
        if plan.wake_at:
            master.now = wake_time(plan)
    assert len(master.good()) >= 2


def test_a_worn_worker_that_dies_is_replaced_by_the_one_on_the_way() -> None:
    master = serving(2)
    old = master.good()[0]
    mark_due(master, old)
    master.step()
    assert master.die(old, sigkill=True).actions == []
    assert master.ready(*master.booting()).actions == []
    assert len(master.good()) == 2


def test_a_worn_worker_goes_first_when_the_pool_shrinks() -> None:
    master = serving(4)
    old = master.good()[0]
    mark_due(master, old)
    master.step()
    (replacement,) = master.booting()
    master.pool.scale(3)
    assert master.step().actions == [
        RetireAction(old.pid, 0),
        KillAction(replacement.pid, replacement.slot, "no longer wanted"),
    ]


def test_a_rollout_replaces_worn_workers_of_the_old_generation_in_its_own_order() -> None:
    master = serving(4)
    master.start(2)
    master.ready(*master.booting(2))
    mark_due(master, master.good(1)[0])
    assert only(master.step().actions, SpawnAction) == []
    for _ in range(4):
        master.ready(*master.booting())
        master.reap()
    assert master.outcomes == [Settled(2)]
    assert len(master.good(2)) == 4


def test_a_new_worker_that_is_worn_in_the_rollout_waits_for_its_end() -> None:
    master = serving(4)
    master.start(2)
    master.ready(*master.booting(2))
    (early,) = master.good(2)
    mark_due(master, early)
    assert only(master.step().actions, SpawnAction) == []
    for _ in range(3):
        master.ready(*master.booting())
        master.reap()
    assert master.outcomes == [Settled(2)]
    assert len(only(master.step().actions, SpawnAction) + master.booting()) == 1
    master.ready(*master.booting())
    assert master.retiring() == [early]


def test_worn_workers_do_not_keep_a_generation_from_settling() -> None:
    master = MadeUpMaster(2)
    master.start(1)
    first, second = master.booting()
    master.ready(first)
    mark_due(master, first)
    master.ready(second)
    assert master.outcomes == [Settled(1)]


def test_recycling_continues_while_a_canary_boots_and_their_failures_are_told_apart() -> None:
    master = serving(2)
    old = master.good()[0]
    master.start(2)
    mark_due(master, old)
    assert master.step().actions == [SpawnAction(3, 1)]
    assert master.ready(*master.booting(1)).actions == [RetireAction(old.pid, 0)]
    master.die(*master.booting(2))
    assert only(master.outcomes, Abandoned)
    assert len(master.good(1)) == 2


def test_recycling_is_said_once_and_only_of_one_that_serves() -> None:
    master = serving(2)
    worker = master.good()[0]
    assert master.pool.recycle(worker.pid, master.now)
    assert not master.pool.recycle(worker.pid, master.now)
    master.step()
    assert not master.pool.recycle(master.booting()[0].pid, master.now)
    master.ready(*master.booting())
    assert worker.state is WorkerState.RETIRING
    assert not master.pool.recycle(worker.pid, master.now)
    assert not master.pool.recycle(99999, master.now)


def test_no_worker_is_replaced_while_the_server_stops() -> None:
    master = serving(2)
    mark_due(master, master.good()[0])
    master.pool.stop(master.now, graceful=True)
    assert only(master.step().actions, SpawnAction) == []


# A target that moves.


def test_a_dynamic_pool_begins_with_its_spare_workers() -> None:
    for low, high, spare, begins in ((1, 8, 1, 1), (1, 8, 3, 3), (2, 8, 1, 2), (1, 2, 5, 2)):
        master = MadeUpMaster()
        master.pool.start(1, dynamic(low, high, spare))
        assert len(master.step().actions) == begins
        assert master.pool.bounds == PoolBounds(low, high, spare)


def test_a_reload_of_a_dynamic_pool_begins_with_as_many_as_there_are() -> None:
    master = MadeUpMaster()
    master.pool.start(1, dynamic(1, 8))
    master.step()
    master.pool.resize(6)
    master.step()
    master.ready(*master.booting())
    master.pool.start(2, dynamic(1, 8))
    assert len(only(master.step().actions, SpawnAction)) == 1  # the canary
    assert only(master.ready(*master.booting(2)).actions, KillAction) == []
    assert master.pool.target == 6
    master.pool.start(3, dynamic(1, 4))
    master.step()
    master.ready(*master.booting(3))
    assert (master.pool.target, master.pool.bounds) == (4, PoolBounds(1, 4, 1))


def test_resize_moves_the_target_within_the_bounds_only() -> None:
    master = MadeUpMaster()
    master.pool.start(1, dynamic(2, 5))
    for target, becomes in ((4, 4), (9, 5), (1, 2)):
        master.pool.resize(target)
        assert master.pool.target == becomes
    fixed = serving(3)
    fixed.pool.resize(5)
    assert (fixed.pool.target, fixed.pool.bounds) == (3, None)


def test_resize_reaches_the_generation_under_way() -> None:
    master = MadeUpMaster()
    master.pool.start(1, dynamic(1, 8))
    master.step()
    master.ready(*master.booting())
    master.pool.start(2, dynamic(1, 4))
    master.pool.resize(6)
    assert master.pool.target == 6
    master.step()
    master.ready(*master.booting(2))
    assert master.pool.target == 4


def test_scale_makes_a_dynamic_pool_exactly_so_large_until_the_next_reload() -> None:
    master = MadeUpMaster()
    master.pool.start(1, dynamic(1, 4))
    master.pool.scale(6)
    assert (master.pool.target, master.pool.bounds) == (6, PoolBounds(6, 6, 1))
    master.pool.resize(2)
    assert master.pool.target == 6
    master.step()
    master.ready(*master.booting())
    master.pool.start(2, dynamic(1, 4))
    master.step()
    master.ready(*master.booting(2))
    assert (master.pool.target, master.pool.bounds) == (4, PoolBounds(1, 4, 1))


def test_grow_moves_both_bounds_and_the_target() -> None:
    master = MadeUpMaster(max_slots=10)
    master.pool.start(1, dynamic(1, 4))
    for n, target, low, high in ((1, 2, 2, 5), (-1, 1, 1, 4), (-1, 1, 1, 3), (20, 9, 9, 9)):
        master.pool.grow(n)
        assert (master.pool.target, master.pool.bounds) == (target, PoolBounds(low, high, 1))


def test_bounds_beyond_the_slots_are_refused() -> None:
    master = MadeUpMaster(max_slots=10)
    with pytest.raises(ValueError, match="10 workers: must be from 1 to 9"):
        master.pool.start(1, dynamic(1, 10))
    assert master.step().actions == []
