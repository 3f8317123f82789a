"""The pool's rules, one by one, with an invented clock and invented processes."""

import random
from collections.abc import Callable

import msgspec
import pytest

from prefork.master.pool.backoff import Backoff
from prefork.master.pool.plan import (
    Abandoned,
    DeathVerdict,
    FirstBootFailed,
    GenerationSettings,
    KillAction,
    Plan,
    QuitAction,
    RetireAction,
    Settled,
    SpawnAction,
    Stalled,
    StopAction,
    Stopped,
    Superseded,
    Worker,
    WorkerState,
)
from prefork.master.pool.pool import Pool
from prefork.master.pool.reconcile import PACE
from prefork.master.snapshot import PoolSnapshot
from prefork.pool_bounds import PoolBounds
from tests.support.made_up_master import MadeUpMaster, only, serving, slots, wake_time

# First boot.


def test_first_boot_spawns_all_workers_at_once() -> None:
    master = MadeUpMaster(3)
    plan = master.start(1)
    assert plan.actions == [SpawnAction(0, 1), SpawnAction(1, 1), SpawnAction(2, 1)]
    assert master.pool.rollout == 1
    assert master.pool.current is None
    assert not master.pool.ever_ready


def test_no_more_workers_boot_at_once_than_there_are_cpus_for_until_one_is_ready() -> None:
    master = MadeUpMaster(workers=5)
    master.settings = GenerationSettings(5, 30.0, 20.0, at_once=2)
    assert spawns(master.start(1)) == [0, 1]
    first, second = master.booting()
    assert spawns(master.ready(first)) == [2]
    assert spawns(master.ready(second)) == [3]


def test_workers_that_boot_for_long_are_not_waited_for() -> None:
    master = MadeUpMaster(workers=4)
    master.settings = GenerationSettings(4, 30.0, 20.0, at_once=2)
    plan = master.start(1)
    assert plan.wake_at == master.now + PACE
    assert spawns(master.step(PACE / 2)) == []
    assert spawns(master.step(PACE / 2)) == [2]
    assert spawns(master.step()) == []
    assert spawns(master.step(PACE)) == [3]


def spawns(plan: Plan) -> list[int]:
    return [action.slot for action in only(plan.actions, SpawnAction)]


def test_generation_is_settled_once_all_its_workers_are_ready() -> None:
    master = MadeUpMaster(2)
    master.start(1)
    first, second = master.booting()
    master.ready(first)
    assert master.outcomes == []
    assert (master.pool.current, master.pool.rollout, master.pool.ever_ready) == (1, 1, True)
    master.ready(second)
    assert master.outcomes == [Settled(1)]
    assert master.pool.rollout is None
    assert master.step().outcomes == []


def test_first_failure_before_any_readiness_fails_the_first_boot_and_kills_the_rest() -> None:
    master = MadeUpMaster(3)
    master.start(1)
    broken, *rest = master.booting()
    master.pool.boot_failed(broken.pid, "ImportError: no module named 'shop'", master.now)
    plan = master.step()
    assert plan.outcomes == [FirstBootFailed("ImportError: no module named 'shop'")]
    assert plan.actions == [KillAction(w.pid, w.slot, "no longer wanted") for w in rest]
    assert master.die(broken, *rest).outcomes == [Stopped()]
    assert master.step(100.0).actions == []


def test_death_before_any_readiness_fails_the_first_boot() -> None:
    master = MadeUpMaster(2)
    master.start(1)
    plan = master.die(master.booting()[0], how="killed by SIGSEGV")
    why = "a worker died before it was ready: killed by SIGSEGV"
    assert plan.outcomes == [FirstBootFailed(why)]


def test_boot_timeout_before_any_readiness_fails_the_first_boot() -> None:
    master = MadeUpMaster(2, boot=30.0)
    assert master.start(1).actions == [SpawnAction(0, 1), SpawnAction(1, 1)]
    assert master.step().wake_at == master.now + 30.0
    workers = master.booting()
    assert master.step(29.0).actions == []
    plan = master.step(1.0)
    assert plan.outcomes == [FirstBootFailed("not ready within 30 s")]
    assert plan.actions == [KillAction(w.pid, w.slot, "not ready within 30 s") for w in workers]


def test_fork_failure_at_first_boot_fails_it() -> None:
    master = MadeUpMaster(2)
    master.pool.start(1, master.settings)
    master.step(fork=False)
    assert master.step().outcomes == [FirstBootFailed("fork: EAGAIN"), Stopped()]


def test_a_worker_that_leaves_while_it_boots_fails_the_boot() -> None:
    master = MadeUpMaster(1)
    master.start(1)
    master.pool.leaving(master.booting()[0].pid, master.now)
    assert master.step().outcomes == [FirstBootFailed("it left before it was ready")]


def test_failed_worker_that_does_not_exit_is_killed_after_a_second() -> None:
    master = serving(2)
    master.die(master.good()[0])
    (worker,) = master.booting()
    master.pool.boot_failed(worker.pid, "ImportError", master.now)
    assert only(master.step(0.9).actions, KillAction) == []
    kills = only(master.step(0.1).actions, KillAction)
    assert kills == [KillAction(worker.pid, worker.slot, "its boot failed and it did not exit")]


def test_no_boot_timeout_means_no_deadline() -> None:
    master = MadeUpMaster(1, boot=0.0)
    master.start(1)
    assert master.step(1e6).wake_at is None
    assert len(master.booting()) == 1


def test_reload_before_any_worker_was_ready_is_a_first_boot_of_its_own() -> None:
    master = MadeUpMaster(2)
    master.start(1)
    stale = master.booting(1)
    plan = master.start(2)
    assert plan.outcomes == [Superseded(1)]
    assert plan.actions[:2] == [SpawnAction(2, 2), SpawnAction(3, 2)]
    assert [kill.pid for kill in only(plan.actions, KillAction)] == [w.pid for w in stale]
    assert master.die(*stale).outcomes == []
    master.ready(*master.booting(2))
    assert master.outcomes == [Superseded(1), Settled(2)]


# Deaths and backoff.


def test_long_lived_worker_that_dies_is_respawned_at_once_in_its_slot() -> None:
    master = serving(4)
    plan = master.die(master.good()[2], how="killed by SIGKILL", sigkill=True)
    assert plan.actions == [SpawnAction(2, 1)]


def test_a_lone_worker_that_dies_right_after_readiness_is_respawned_at_once() -> None:
    master = serving(1)
    master.die(*master.good())
    master.ready(*master.booting())
    assert only(master.die(*master.good()).actions, SpawnAction) == [SpawnAction(0, 1)]


def test_second_failure_in_a_row_waits_and_each_further_one_twice_as_long() -> None:
    master = serving(1)
    master.die(*master.good())
    delays = []
    for _ in range(14):
        plan = master.die(*master.booting())
        start = master.now
        while not only(plan.actions, SpawnAction):
            plan = master.wake_up(plan)
        delays.append(master.now - start)
    assert delays[0] == 0.0
    for delay, nominal in zip(delays[1:], [0.1 * 2**n for n in range(9)] + [30.0] * 4, strict=True):
        assert 0.8 * nominal <= delay <= 1.2 * nominal
    assert len({delay / 30.0 for delay in delays[-4:]}) > 1  # jitter


def test_crash_soon_after_readiness_is_a_failure_too() -> None:
    master = serving(1)
    master.die(*master.good())
    for _ in range(2):
        master.ready(*master.booting())
        master.now += 4.9
        plan = master.die(*master.good(), how="killed by SIGSEGV")
    assert plan.actions == []
    assert 0.08 <= wake_time(plan) - master.now <= 0.12


def test_worker_killed_fifty_times_under_load_is_back_fifty_times_at_once() -> None:
    master = serving(4)
    for n in range(50):
        victim = master.good()[n % 4]
        plan = master.die(victim, how="killed by SIGKILL", sigkill=True)
        assert plan.actions == [SpawnAction(victim.slot, 1)]
        master.ready(*master.booting(), seconds=0.05)


def test_sigkill_while_booting_is_a_failure() -> None:
    master = serving(1)
    master.die(*master.good())
    master.die(*master.booting(), sigkill=True)
    assert master.die(*master.booting(), sigkill=True).actions == []


def test_workers_that_meet_the_same_fault_together_are_one_failure() -> None:
    master = serving(4)
    master.die(*master.good())
    assert len(only(master.die(*master.booting()).actions, SpawnAction)) == 4


def test_only_one_worker_is_spawned_per_step_while_backing_off() -> None:
    master = serving(4)
    master.die(*master.good())
    master.die(*master.booting())
    plan = master.die(*master.booting())
    spawns = []
    for _ in range(2):
        assert plan.actions == []
        master.now = wake_time(plan)
        spawns += only(master.step().actions, SpawnAction)
        plan = master.die(*master.booting())
    assert spawns == [SpawnAction(0, 1), SpawnAction(0, 1)]


def test_good_workers_serve_on_while_one_crashes_again_and_again() -> None:
    master = serving(4)
    good = master.good()[1:]
    master.die(master.good()[0])
    for _ in range(20):
        plan = master.die(*master.booting())
        if plan.wake_at:
            plan = master.wake_up(plan)
        assert [w.pid for w in master.good()] == [w.pid for w in good]
        assert only(plan.actions, RetireAction) == []


def test_long_lived_siblings_do_not_end_a_row_of_failures() -> None:
    master = serving(4)
    master.die(master.good()[0])
    master.die(*master.booting())
    first = master.die(*master.booting())
    master.wake_up(first)
    master.step(20.0)
    second = master.die(*master.booting())
    assert wake_time(second) - master.now >= 0.16


def test_a_worker_that_lives_long_enough_ends_the_row_and_fills_the_pool() -> None:
    master = serving(3)
    master.die(*master.good())
    for _ in range(12):
        plan = master.die(*master.booting())
        if plan.wake_at:
            master.wake_up(plan)
    plan = master.ready(*master.booting())
    assert plan.actions == []
    assert plan.wake_at == master.now + 5.0
    master.now = wake_time(plan)
    assert len(only(master.step().actions, SpawnAction)) == 2
    assert (
        len(only(master.die(*master.booting()).actions, SpawnAction)) == 2
    )  # a first failure again


def test_death_of_a_long_lived_worker_is_answered_at_once_even_while_backing_off() -> None:
    master = serving(2)
    master.die(master.good()[0])
    for _ in range(10):
        plan = master.die(*master.booting())
        if plan.wake_at:
            master.wake_up(plan)
    assert master.die(*master.booting()).actions == []
    assert len(only(master.die(*master.good()).actions, SpawnAction)) == 1


def failing(workers: int) -> MadeUpMaster:
    """A master three failures into a row, that has just spawned one worker more."""
    master = serving(workers)
    master.die(*master.good())
    for _ in range(3):
        plan = master.die(*master.booting())
        if plan.wake_at:
            master.wake_up(plan)
    assert len(master.booting()) == 1
    return master


@pytest.mark.parametrize("end", ["died", "expired"])
def test_row_ends_with_a_long_life_even_if_nothing_else_happened_in_it(end: str) -> None:
    master = failing(1)
    master.ready(*master.booting())
    master.now += 60.0
    (worker,) = master.good()
    if end == "died":
        master.die(worker)
    else:
        master.pool.replace_now(worker.pid, master.now)
        master.step()
    assert len(only(master.die(*master.booting()).actions, SpawnAction)) == 1


def test_row_ends_with_a_long_life_of_one_even_if_the_next_event_is_a_failure() -> None:
    master = failing(2)
    (proof,) = master.booting()
    master.ready(proof)
    master.step(4.9)
    (young,) = master.booting()
    master.ready(young)
    master.now += 1.0
    assert len(only(master.die(young).actions, SpawnAction)) == 1


def test_expired_worker_is_replaced_at_once_even_while_backing_off() -> None:
    master = serving(2)
    master.die(master.good()[0])
    for _ in range(10):
        plan = master.die(*master.booting())
        if plan.wake_at:
            master.wake_up(plan)
    master.die(*master.booting())
    master.pool.replace_now(master.good()[0].pid, master.now)
    assert len(only(master.step().actions, SpawnAction)) == 1


def test_failed_fork_backs_off_from_the_first() -> None:
    master = serving(2)
    master.pool.died(master.good()[0].pid, "exit status 0", master.now)
    assert master.step(fork=False).actions == [SpawnAction(0, 1)]
    plan = master.step()
    assert plan.actions == []
    assert 0.08 <= wake_time(plan) - master.now <= 0.12
    master.now = wake_time(plan)
    assert master.step().actions == [SpawnAction(0, 1)]


def test_boot_timeout_of_a_respawn_is_a_failure_and_kills_it() -> None:
    master = serving(1, boot=10.0)
    master.die(*master.good())
    (worker,) = master.booting()
    plan = master.step(10.0)
    assert KillAction(worker.pid, 0, "not ready within 10 s") in plan.actions
    assert only(plan.actions, SpawnAction) == [
        SpawnAction(1, 1)
    ]  # slot 0 is taken until it was reaped
    assert only(master.step(10.0).actions, SpawnAction) == []


def test_backoff_never_shrinks_within_a_row_and_does_not_overflow() -> None:
    backoff = Backoff(random.Random(1))
    delays = []
    for _ in range(2000):
        backoff.fail(backoff.round, now=0.0)
        delays.append(backoff.delay)
    assert delays == sorted(delays)
    assert delays[0] == 0.0
    assert delays[-1] == 30.0


# Reload.


def test_reload_changes_nothing_until_its_canary_is_ready() -> None:
    master = serving(4)
    plan = master.start(2)
    assert plan.actions == [SpawnAction(4, 2)]
    assert (master.pool.current, master.pool.rollout) == (1, 2)
    assert master.step(20.0).actions == []
    assert len(master.good(1)) == 4


def test_reload_replaces_one_by_one_and_each_new_one_is_ready_before_an_old_one_goes() -> None:
    master = serving(3)
    history = []
    plan = master.start(2)
    while not master.outcomes:
        history.append([type(action).__name__ for action in plan.actions])
        master.reap()
        assert len(master.good()) == 3
        assert len(master.booting()) == 1
        plan = master.ready(*master.booting())
    history.append([type(action).__name__ for action in plan.actions])
    assert history == [
        ["SpawnAction"],
        ["SpawnAction", "RetireAction"],
        ["SpawnAction", "RetireAction"],
        ["RetireAction"],
    ]
    assert master.outcomes == [Settled(2)]
    assert (master.pool.current, master.pool.rollout) == (2, None)
    assert len(master.good(2)) == 3


@pytest.mark.parametrize("fault", ["failed", "died", "timeout", "fork", "left"])
def test_failed_canary_leaves_everything_as_it_was(fault: str) -> None:
    master = serving(3)
    before = [(w.slot, w.pid, w.state) for w in master.pool.members()]
    master.pool.start(2, GenerationSettings(7, 30.0, 20.0))
    master.step(fork=fault != "fork")
    if fault == "failed":
        master.pool.boot_failed(master.booting(2)[0].pid, "because", master.now)
    elif fault == "died":
        master.pool.died(master.booting(2)[0].pid, "because", master.now)
    elif fault == "timeout":
        master.now += 30.0
    elif fault == "left":
        master.pool.leaving(master.booting(2)[0].pid, master.now)
    plan = master.step()
    (outcome,) = plan.outcomes
    assert isinstance(outcome, Abandoned)
    assert outcome.generation == 2
    assert only(plan.actions, SpawnAction) == []
    assert only(plan.actions, RetireAction) == []
    master.step(1.0)
    master.reap()
    assert [(w.slot, w.pid, w.state) for w in master.pool.members()] == before
    assert (master.pool.current, master.pool.rollout, master.pool.target) == (1, None, 3)


def test_old_generation_is_maintained_while_the_canary_boots() -> None:
    master = serving(3)
    master.start(2)
    victim, stuck, _ = master.good(1)
    assert master.die(victim).actions == [SpawnAction(0, 1)]
    master.pool.replace_now(stuck.pid, master.now)
    assert master.step().actions == [SpawnAction(4, 1), RetireAction(stuck.pid, stuck.slot)]


def test_after_the_commit_a_dead_old_worker_is_replaced_by_a_new_one() -> None:
    master = serving(4)
    master.start(2)
    master.ready(*master.booting(2))
    plan = master.die(master.good(1)[0])
    assert [spawn.generation for spawn in only(plan.actions, SpawnAction)] == [2]


def test_booting_old_worker_is_not_waited_for_after_the_commit() -> None:
    master = serving(3)
    master.start(2)
    master.die(master.good(1)[0])
    (late,) = master.booting(1)
    plan = master.ready(*master.booting(2))
    assert KillAction(late.pid, late.slot, "no longer wanted") in plan.actions
    assert len(master.good()) + len(master.booting()) == 4


def test_failures_after_the_commit_do_not_eat_up_the_old_generation() -> None:
    master = serving(4)
    master.start(2)
    master.ready(*master.booting(2))
    for _ in range(10):
        plan = master.die(*master.good(2), *master.booting(2))
        while not only(plan.actions, SpawnAction):
            plan = master.wake_up(plan)
        master.ready(*master.booting(2))
        assert len(master.good(1)) == 3
    assert master.pool.rollout == 2


def test_a_rollout_that_is_stuck_says_so_once_and_settles_all_the_same() -> None:
    master = serving(2)
    master.start(2)
    master.ready(*master.booting(2))
    for number in range(1, 8):
        plan = master.die(*master.booting(2), how=f"failure {number}")
        assert master.outcomes == (
            [Stalled(2, "a worker died before it was ready: failure 5")] if number >= 5 else []
        )
        while not only(plan.actions, SpawnAction):
            plan = master.wake_up(plan)
        assert master.pool.rollout == 2
    plan = master.ready(*master.booting(2))
    while not only(plan.outcomes, Settled):
        plan = master.wake_up(plan)
        master.reap()
    assert master.pool.rollout is None
    assert master.good(1) == []


def test_failures_of_a_settled_generation_are_no_stalled_rollout() -> None:
    master = serving(2)
    for _ in range(8):
        plan = master.die(master.good()[0], *master.booting())
        while not only(plan.actions, SpawnAction):
            plan = master.wake_up(plan)
        master.ready(*master.booting())
    assert master.outcomes == []


def test_after_a_failure_an_old_worker_stays_until_a_new_one_has_proved_itself() -> None:
    master = serving(2)
    master.start(2)
    master.ready(*master.booting(2))
    master.die(*master.booting(2))
    master.reap()
    plan = master.ready(*master.booting(2))
    assert only(plan.actions, RetireAction) == []
    assert plan.wake_at == master.now + 5.0
    assert (len(master.good(1)), len(master.good(2))) == (1, 2)
    assert master.outcomes == []
    master.now = wake_time(plan)
    assert len(only(master.step().actions, RetireAction)) == 1
    assert master.outcomes == [Settled(2)]


def test_proof_that_can_not_come_any_more_is_not_waited_for() -> None:
    master = serving(4)
    master.start(2)
    master.die(*master.good(1)[:2])
    master.die(*master.booting(1), sigkill=True)
    master.ready(*master.booting(2))
    first, *others = master.booting(2)
    master.die(first)
    master.ready(*others)
    master.pool.scale(len(master.good()) - 1)
    plan = master.step()
    assert len(only(plan.actions, RetireAction)) == 1
    assert len(master.good()) == master.pool.target


def test_reload_with_fewer_workers_ends_with_fewer() -> None:
    master = serving(4)
    master.start(2, workers=2)
    while master.booting():
        master.ready(*master.booting())
        assert len(master.good()) >= 2
    assert (len(master.good(1)), len(master.good(2))) == (0, 2)
    assert master.outcomes == [Settled(2)]


def test_reload_with_more_workers_keeps_the_old_ones_until_there_are_enough() -> None:
    master = serving(2)
    master.start(2, workers=5)
    plan = master.ready(*master.booting())
    assert [type(action) for action in plan.actions] == [SpawnAction] * 3
    master.ready(*master.booting())
    master.ready(*master.booting())
    assert (len(master.good(1)), len(master.good(2))) == (0, 5)


def test_reload_during_a_reload_supersedes_it_and_kills_its_canary() -> None:
    master = serving(4)
    master.start(2)
    (canary,) = master.booting(2)
    plan = master.start(3)
    assert plan.outcomes == [Superseded(2)]
    assert plan.actions == [SpawnAction(5, 3), KillAction(canary.pid, 4, "no longer wanted")]
    assert master.die(canary).outcomes == []


def test_canary_that_is_ready_just_after_it_was_superseded_is_retired_and_not_committed() -> None:
    master = serving(3)
    master.start(2)
    (canary,) = master.booting(2)
    master.pool.start(3, master.settings)
    plan = master.ready(canary)
    assert master.pool.current == 1
    assert plan.actions == [SpawnAction(4, 3), RetireAction(canary.pid, canary.slot)]


def test_superseded_canary_does_not_fill_a_gap_in_the_old_generation() -> None:
    master = serving(3)
    master.start(2)
    (canary,) = master.booting(2)
    master.pool.start(3, master.settings)
    master.pool.died(master.good(1)[0].pid, "exit status 1", master.now)
    plan = master.ready(canary)
    assert plan.actions == [
        SpawnAction(0, 3),
        SpawnAction(4, 1),
        RetireAction(canary.pid, canary.slot),
    ]


def test_committed_rollout_pauses_while_its_successors_canary_boots() -> None:
    master = serving(4)
    master.start(2)
    master.ready(*master.booting(2))
    (late,) = master.booting(2)
    master.start(3)
    plan = master.ready(late)
    assert (len(master.good(1)), len(master.good(2))) == (2, 2)
    assert only(plan.actions, SpawnAction) == []


def test_worker_that_is_ready_after_all_when_it_is_to_be_killed_is_retired_instead() -> None:
    master = serving(3)
    master.start(2)
    (canary,) = master.booting(2)
    assert only(master.start(3).actions, KillAction)  # not carried out: its channel held a message
    assert canary.order is None
    plan = master.ready(canary)
    assert canary.order is RetireAction
    assert plan.actions == [RetireAction(canary.pid, canary.slot)]
    assert master.step(20.0).actions[-1] == KillAction(
        canary.pid, canary.slot, "still there 20 s after the order to leave"
    )


def test_hundred_reloads_in_a_row_settle_on_the_last() -> None:
    master = serving(4)
    for generation in range(2, 102):
        master.start(generation)
        master.reap()
        assert len(master.good(1)) == 4
    while master.pool.rollout:
        master.ready(*master.booting())
        master.reap()
    assert master.outcomes == [*(Superseded(n) for n in range(2, 101)), Settled(101)]
    assert [w.generation for w in master.pool.members()] == [101] * 4


def test_committed_rollout_is_superseded_only_when_its_successor_commits() -> None:
    master = serving(4)
    master.start(2)
    master.ready(*master.booting(2))
    master.start(3)
    assert master.outcomes == []
    master.ready(*master.booting(3))
    assert master.outcomes == [Superseded(2)]
    while master.booting():
        master.ready(*master.booting())
    assert master.outcomes == [Superseded(2), Settled(3)]
    assert len(master.good(3)) == len(master.good()) == 4


def test_committed_rollout_goes_on_when_its_successor_fails() -> None:
    master = serving(4)
    master.start(2)
    master.ready(*master.booting(2))
    master.start(3)
    master.die(*master.booting(3))
    assert master.pool.rollout == 2
    while master.booting():
        master.ready(*master.booting())
    assert [type(outcome) for outcome in master.outcomes] == [Abandoned, Settled]
    assert len(master.good(2)) == 4


def test_starting_the_same_generation_again_changes_nothing() -> None:
    master = serving(2)
    assert master.start(1).actions == []
    master.start(2)
    plan = master.start(2)
    assert plan.actions == []
    assert plan.outcomes == []


# Leaving.


def test_retire_is_repeated_until_the_worker_says_that_it_leaves() -> None:
    master = serving(1, graceful=20.0)
    (worker,) = master.good()
    master.pool.replace_now(worker.pid, master.now)
    order = RetireAction(worker.pid, worker.slot)
    assert only(master.step().actions, RetireAction) == [order]
    assert master.step(0.05).actions == []
    plan = master.step(0.05)
    assert plan.actions == [order]
    assert plan.wake_at == pytest.approx(master.now + 0.1)
    master.pool.leaving(worker.pid, master.now)
    plan = master.step(0.1)
    assert plan.actions == []
    assert plan.wake_at == pytest.approx(master.now + 19.8)


def test_worker_that_does_not_go_is_killed_after_graceful_timeout_and_only_once() -> None:
    master = serving(1, graceful=20.0)
    (worker,) = master.good()
    master.pool.replace_now(worker.pid, master.now)
    master.step()
    master.ready(*master.booting())
    master.pool.leaving(worker.pid, master.now)
    plan = master.step(20.0)
    assert plan.actions == [KillAction(worker.pid, 0, "still there 20 s after the order to leave")]
    assert plan.wake_at is None
    assert master.step(100.0).actions == []
    assert slots(master.pool.members()) == [0, 1]


def test_graceful_timeout_is_that_of_the_workers_own_generation() -> None:
    master = serving(1, graceful=20.0)
    master.pool.start(2, GenerationSettings(1, 30.0, 3.0))
    master.step()
    (old,) = master.good()
    master.ready(*master.booting())
    master.pool.leaving(old.pid, master.now)
    assert master.step(19.0).actions == []
    assert slots(only(master.step(1.0).actions, KillAction)) == [old.slot]


def test_no_graceful_timeout_means_no_kill() -> None:
    master = serving(1, graceful=0.0)
    (worker,) = master.good()
    master.pool.replace_now(worker.pid, master.now)
    master.step()
    master.ready(*master.booting())
    master.pool.leaving(worker.pid, master.now)
    plan = master.step(1e6)
    assert (plan.actions, plan.wake_at) == ([], None)


def test_expired_worker_is_replaced_at_once_and_saying_it_again_changes_nothing() -> None:
    master = serving(2, graceful=20.0)
    worker = master.good()[0]
    master.pool.replace_now(worker.pid, master.now)
    assert master.step().actions == [SpawnAction(2, 1), RetireAction(worker.pid, 0)]
    master.ready(*master.booting())
    master.pool.leaving(worker.pid, master.now)
    master.now += 19.0
    master.pool.replace_now(worker.pid, master.now)
    assert slots(only(master.step(1.0).actions, KillAction)) == [0]


def test_expired_young_worker_is_no_failure_of_its_generation() -> None:
    master = serving(1)
    for _ in range(10):
        (worker,) = master.good()
        master.pool.replace_now(worker.pid, master.now)
        assert len(only(master.step().actions, SpawnAction)) == 1
        master.ready(*master.booting())


def test_worker_that_leaves_of_its_own_accord_is_replaced_and_gets_no_order() -> None:
    master = serving(2, graceful=20.0)
    worker = master.good()[1]
    master.pool.leaving(worker.pid, master.now)
    plan = master.step()
    assert plan.actions == [SpawnAction(2, 1)]
    master.ready(*master.booting())
    assert slots(only(master.step(20.0).actions, KillAction)) == [1]


def test_slot_of_a_retiring_worker_is_not_given_away_before_its_death() -> None:
    master = serving(2)
    worker = master.good()[0]
    master.pool.replace_now(worker.pid, master.now)
    assert only(master.step().actions, SpawnAction) == [SpawnAction(2, 1)]
    master.die(worker)
    master.pool.scale(3)
    assert master.step().actions == [SpawnAction(0, 1)]


# Scale.


def test_scale_up_spawns_at_once() -> None:
    master = serving(2)
    master.pool.scale(5)
    assert master.step().actions == [SpawnAction(2, 1), SpawnAction(3, 1), SpawnAction(4, 1)]
    assert master.pool.target == 5


def test_scale_down_retires_the_highest_slots() -> None:
    master = serving(5)
    master.pool.scale(2)
    assert slots(only(master.step().actions, RetireAction)) == [2, 3, 4]
    assert slots(master.good()) == [0, 1]


def test_scale_down_kills_booting_workers_before_it_retires_good_ones() -> None:
    master = serving(2)
    master.pool.scale(3)
    master.step()
    (worker,) = master.booting()
    master.pool.scale(2)
    assert master.step().actions == [KillAction(worker.pid, 2, "no longer wanted")]
    assert len(master.good()) == 2


def test_scale_down_in_the_middle_of_a_rollout_keeps_the_bound() -> None:
    master = serving(2)
    master.start(2, workers=4)
    master.ready(*master.booting())
    assert (len(master.good()), len(master.booting())) == (3, 2)
    master.pool.scale(3)
    plan = master.step()
    assert [type(action) for action in plan.actions] == [KillAction]
    assert (len(master.good()), len(master.booting())) == (3, 1)


def test_grow_moves_the_target_but_never_below_one_or_above_the_slots() -> None:
    master = serving(2, max_slots=4)
    for n, target in [(1, 3), (1, 3), (-1, 2), (-1, 1), (-1, 1)]:
        master.pool.grow(n)
        assert master.pool.target == target


@pytest.mark.parametrize("wrong", [0, -1, 4, 5])
def test_count_out_of_range_is_refused(wrong: int) -> None:
    master = serving(2, max_slots=4)
    with pytest.raises(ValueError, match=rf"^{wrong} workers: must be from 1 to 3$"):
        master.pool.scale(wrong)
    with pytest.raises(ValueError, match="must be from 1 to 3"):
        master.pool.start(2, GenerationSettings(wrong, 30.0, 30.0))
    assert (master.pool.target, master.pool.rollout) == (2, None)


@pytest.mark.parametrize("succeeds", [True, False])
def test_scale_during_a_reload_holds_however_the_reload_ends(succeeds: bool) -> None:
    master = serving(2)
    master.start(2)
    master.pool.scale(3)
    master.step()
    if succeeds:
        master.ready(*master.booting(2))
    else:
        master.die(*master.booting(2))
    while master.booting():
        master.ready(*master.booting())
        master.reap()
    assert [w.generation for w in master.good()] == [2 if succeeds else 1] * 3


def test_next_reload_takes_its_own_count_again() -> None:
    master = serving(2)
    master.pool.scale(5)
    master.step()
    master.start(2)
    while master.booting():
        master.ready(*master.booting())
    assert master.pool.target == len(master.good()) == 2


def test_spawn_waits_for_a_free_slot() -> None:
    master = serving(2, max_slots=3)
    first, second = master.good()
    master.pool.replace_now(first.pid, master.now)
    master.pool.replace_now(second.pid, master.now)
    assert only(master.step().actions, SpawnAction) == [SpawnAction(2, 1)]
    assert only(master.die(first).actions, SpawnAction) == [SpawnAction(0, 1)]


def test_canary_waits_for_a_free_slot() -> None:
    master = serving(2, max_slots=3)
    first = master.good()[0]
    master.pool.replace_now(first.pid, master.now)
    master.step()
    assert only(master.start(2).actions, SpawnAction) == []
    assert only(master.die(first).actions, SpawnAction) == [SpawnAction(0, 2)]


# Stop and withdraw.


def test_graceful_stop_drains_the_good_and_kills_the_booting() -> None:
    master = serving(2, graceful=20.0)
    master.pool.scale(3)
    master.step()
    (young,) = master.booting()
    good = master.good()
    master.pool.stop(master.now, graceful=True)
    assert master.pool.stopping
    plan = master.step()
    assert plan.actions == [
        *(StopAction(w.pid, w.slot) for w in good),
        KillAction(young.pid, young.slot, "no longer wanted"),
    ]
    assert [type(a) for a in master.step(0.1).actions] == [StopAction, StopAction]
    for worker in good:
        master.pool.leaving(worker.pid, master.now)
    assert master.die(young, good[0]).actions == []
    assert slots(only(master.step(19.9).actions, KillAction)) == [good[1].slot]
    assert master.die(good[1]).outcomes == [Stopped()]
    assert master.step().outcomes == []


def test_quick_stop_orders_all_to_quit_and_kills_after_a_second() -> None:
    master = serving(3)
    leaver = master.good()[0]
    master.pool.leaving(leaver.pid, master.now)
    master.step()
    master.ready(*master.booting())
    master.pool.stop(master.now, graceful=False)
    assert {a.pid for a in only(master.step().actions, QuitAction)} == {
        w.pid for w in master.pool.members()
    }
    assert len(only(master.step(0.1).actions, QuitAction)) == 4
    assert only(master.step(0.8).actions, KillAction) == []
    assert slots(only(master.step(0.11).actions, KillAction)) == [0, 1, 2, 3]


def test_second_stop_can_make_it_quick_but_not_slow_again() -> None:
    master = serving(1, graceful=20.0)
    master.pool.stop(master.now, graceful=True)
    master.step()
    master.pool.stop(master.now, graceful=False)
    assert [type(a) for a in master.step().actions] == [QuitAction]
    master.pool.stop(master.now, graceful=True)
    assert [type(a) for a in master.step(0.1).actions] == [QuitAction]
    assert [type(a) for a in master.step(1.0).actions] == [KillAction]
    master.pool.stop(master.now, graceful=False)
    assert master.step(1.0).actions == []


def test_quick_stop_says_nothing_to_a_killed_worker() -> None:
    master = serving(1, graceful=20.0)
    master.pool.replace_now(master.good()[0].pid, master.now)
    master.step()
    assert only(master.step(20.0).actions, KillAction)
    master.die(*master.booting())
    master.pool.stop(master.now, graceful=False)
    assert [a for a in master.step().actions if a.slot == 0] == []


def test_quick_stop_stays_quick_for_a_worker_that_is_ready_only_then() -> None:
    master = serving(1)
    master.pool.scale(2)
    master.step()
    (late,) = master.booting()
    master.pool.stop(master.now, graceful=False)
    master.step()
    master.pool.stop(master.now, graceful=True)
    assert QuitAction(late.pid, late.slot) in master.ready(late).actions


def test_quick_stop_does_not_prolong_a_deadline() -> None:
    master = serving(1, graceful=20.0)
    master.pool.stop(master.now, graceful=True)
    master.step()
    master.step(19.5)
    master.pool.stop(master.now, graceful=False)
    assert [type(a) for a in master.step().actions] == [QuitAction]
    assert [type(a) for a in master.step(0.5).actions] == [KillAction]


def test_graceful_stop_said_twice_keeps_the_first_deadline() -> None:
    master = serving(1, graceful=20.0)
    master.pool.stop(master.now, graceful=True)
    master.step()
    master.step(19.0)
    master.pool.stop(master.now, graceful=True)
    assert [type(a) for a in master.step(1.0).actions] == [KillAction]


def test_stop_abandons_what_is_under_way() -> None:
    master = serving(2)
    master.start(2)
    master.ready(*master.booting(2))
    master.start(3)
    master.pool.stop(master.now, graceful=True)
    why = "the server is stopping"
    assert master.step().outcomes == [Abandoned(2, why), Abandoned(3, why)]
    assert master.start(4).outcomes == [Abandoned(4, why)]
    assert only(master.step(1.0).actions, SpawnAction) == []


def test_fork_that_is_answered_after_the_stop_is_killed() -> None:
    master = serving(1)
    master.pool.scale(2)
    (spawn,) = master.pool.advance(master.now).actions
    assert isinstance(spawn, SpawnAction)
    master.pool.stop(master.now, graceful=False)
    master.die(*master.good())
    assert master.outcomes == []  # a worker may be on its way
    master.pool.spawned(spawn.slot, spawn.generation, 77, master.now)
    assert master.step().actions == [KillAction(77, spawn.slot, "no longer wanted")]
    master.pool.died(77, "killed by SIGKILL", master.now)
    assert master.step().outcomes == [Stopped()]


def test_withdraw_retires_all_and_start_brings_them_back() -> None:
    master = serving(3)
    master.pool.withdraw()
    assert [type(a) for a in master.step().actions] == [RetireAction] * 3
    master.reap()
    master.pool.withdraw()
    assert master.step(60.0).actions == []
    assert not master.pool.stopping
    assert only(master.start(2).actions, SpawnAction) == [SpawnAction(0, 2)]
    assert only(master.ready(*master.booting()).actions, SpawnAction) == [
        SpawnAction(1, 2),
        SpawnAction(2, 2),
    ]
    master.ready(*master.booting())
    assert master.outcomes == [Settled(2)]


def test_reload_that_fails_after_a_withdrawal_leaves_it_withdrawn() -> None:
    master = serving(3)
    master.pool.withdraw()
    master.step()
    master.reap()
    master.start(2)
    plan = master.die(*master.booting())
    assert isinstance(plan.outcomes[0], Abandoned)
    assert plan.actions == []
    assert master.pool.members() == []


def test_withdraw_abandons_a_reload() -> None:
    master = serving(2)
    master.start(2)
    master.pool.withdraw()
    plan = master.step()
    assert plan.outcomes == [Abandoned(2, "all workers were withdrawn")]
    assert sorted(type(a).__name__ for a in plan.actions) == [
        "KillAction",
        "RetireAction",
        "RetireAction",
    ]


# The clock, and the rest.


def test_overslept_moves_deadlines() -> None:
    master = serving(1, boot=30.0, graceful=20.0)
    (worker,) = master.good()
    master.pool.replace_now(worker.pid, master.now)
    master.step()
    master.now += 3600.0
    master.pool.overslept(3600.0)
    assert only(master.step().actions, KillAction) == []
    assert slots(only(master.step(20.0).actions, KillAction)) == [worker.slot]
    assert [type(a) for a in master.step(10.0).actions] == [SpawnAction, KillAction]


def test_overslept_moves_the_backoff() -> None:
    master = serving(1)
    master.die(*master.good())
    for _ in range(2):
        plan = master.die(*master.booting())
    wait = wake_time(plan) - master.now
    master.now += 3600.0
    master.pool.overslept(3600.0)
    assert wake_time(master.step()) - master.now == pytest.approx(wait)


def test_plan_asks_for_nothing_twice() -> None:
    master = MadeUpMaster(4)
    master.pool.start(1, master.settings)
    assert len(master.pool.advance(master.now).actions) == 4
    assert master.pool.advance(master.now) == Plan([], [], None)


def test_events_about_unknown_processes_are_ignored() -> None:
    master = serving(2)
    pool, now = master.pool, master.now
    pool.spawned(7, 1, 99, now)
    pool.spawn_failed(7, 1, "fork: EAGAIN", now)
    pool.ready(99, now)
    pool.leaving(99, now)
    pool.boot_failed(99, "because", now)
    pool.replace_now(99, now)
    pool.died(99, "exit status 0", now)
    assert master.step() == Plan([], [], None)
    assert pool.find(99) is None


def test_events_that_come_twice_change_nothing() -> None:
    master = serving(2)
    worker = master.good()[0]
    since = worker.since
    master.ready(worker)
    master.pool.boot_failed(worker.pid, "too late", master.now)
    assert (worker.state, worker.since) == (WorkerState.READY, since)
    assert master.pool.find(worker.pid) is worker
    master.die(worker, worker)
    assert len(master.booting()) == 1


# What a death was.


def verdict(master: MadeUpMaster, worker: Worker, *, sigkill: bool = False) -> DeathVerdict:
    return master.pool.died(worker.pid, "gone", master.now, sigkill=sigkill)


def test_a_worker_that_serves_has_crashed_whatever_ended_it() -> None:
    master = serving(2)
    one, other = master.good()
    assert verdict(master, one) == DeathVerdict(False, False, "crashed")
    assert verdict(master, other, sigkill=True) == DeathVerdict(False, False, "crashed")


def test_a_boot_that_ends_has_failed() -> None:
    master = serving(2)
    master.die(master.good()[0])
    assert verdict(master, master.booting()[0]) == DeathVerdict(False, False, "boot_failed")


def test_the_death_of_a_canary_is_in_the_report_of_its_generation() -> None:
    master = serving(2)
    master.start(2)
    assert verdict(master, master.booting(2)[0]) == DeathVerdict(False, True, "boot_failed")


def test_a_worker_that_a_reload_replaced_was_expected_to_go() -> None:
    master = serving(1)
    master.start(2)
    master.ready(master.booting(2)[0])
    assert verdict(master, master.retiring(1)[0]) == DeathVerdict(True, False, "reload")


def test_a_worker_that_is_killed_on_its_way_out_is_no_restart_of_its_own() -> None:
    master = serving(2)
    master.pool.scale(1)
    master.step()
    assert verdict(master, master.retiring()[0], sigkill=True) == DeathVerdict(False, False, None)


def test_a_kill_of_the_pool_was_reported_with_its_reason() -> None:
    master = serving(2, graceful=5.0)
    master.pool.scale(1)
    master.step()
    master.step(5.0)
    (worker,) = master.retiring()
    assert worker.killed
    assert verdict(master, worker, sigkill=True) == DeathVerdict(False, True, None)


def test_at_the_end_of_the_server_nothing_is_restarted() -> None:
    master = serving(2)
    master.pool.stop(master.now, graceful=True)
    master.step()
    one, other = master.retiring()
    assert verdict(master, one) == DeathVerdict(True, False, None)
    assert verdict(master, other, sigkill=True) == DeathVerdict(False, False, None)


def test_a_recycled_worker_was_counted_when_it_was_marked() -> None:
    master = serving(1)
    assert master.pool.recycle(master.good()[0].pid, master.now)
    master.step()
    master.ready(*master.booting())
    assert verdict(master, master.retiring()[0]) == DeathVerdict(True, False, None)


def test_the_death_of_an_unknown_process_says_nothing() -> None:
    pool = Pool(random.Random(1))
    assert pool.died(7, "gone", 0.0) == DeathVerdict(True, True, None)


def test_empty_pool_has_nothing_to_do() -> None:
    pool = Pool(random.Random(1))
    assert pool.advance(0.0) == Plan([], [], None)
    assert (pool.current, pool.rollout, pool.target, pool.members()) == (None, None, 0, [])
    pool.withdraw()
    pool.stop(0.0, graceful=True)
    assert pool.advance(0.0).outcomes == [Stopped()]


# From one master to the next.


def next_master(master: MadeUpMaster) -> MadeUpMaster:
    """Another master, whose pool has adopted the state, over bytes."""
    data = msgspec.msgpack.encode(master.pool.snapshot())
    other = MadeUpMaster()
    other.settings, other.now, other.pids = master.settings, master.now, master.pids
    numbers = {1, 2, 3}
    state = msgspec.msgpack.decode(data, type=PoolSnapshot)
    other.pool.restore(state, dict.fromkeys(numbers, master.settings))
    return other


def test_adopted_pool_is_the_same_and_has_nothing_to_do() -> None:
    master = serving(3)
    other = next_master(master)
    assert other.pool.members() == master.pool.members()
    assert (other.pool.current, other.pool.target, other.pool.ever_ready) == (1, 3, True)
    assert other.step() == Plan([], [], None)


def test_adopted_pool_replaces_its_workers_by_an_ordinary_start() -> None:
    other = next_master(serving(2))
    old = other.good()
    assert other.start(2).actions == [SpawnAction(2, 2)]
    while other.booting():
        other.ready(*other.booting())
    assert other.outcomes == [Settled(2)]
    assert other.retiring() == old
    assert len(other.good(2)) == 2


def test_adopted_pool_keeps_its_workers_when_the_start_fails() -> None:
    other = next_master(serving(2))
    old = other.good()
    other.start(2)
    other.pool.boot_failed(other.booting()[0].pid, "ImportError", other.now)
    other.step()
    assert other.outcomes == [Abandoned(2, "ImportError")]
    assert other.good() == old


def test_a_dead_worker_is_replaced_after_the_adoption() -> None:
    master = serving(2)
    other = next_master(master)
    assert other.die(other.good()[0], sigkill=True).actions == [SpawnAction(0, 1)]


def test_a_booting_worker_is_adopted_with_its_deadline() -> None:
    master = serving(2, boot=30.0)
    master.die(master.good()[0], sigkill=True)
    other = next_master(master)
    (worker,) = other.booting()
    assert worker.deadline == master.now + 30.0
    assert other.step().actions == []
    other.ready(worker)
    assert len(other.good()) == 2


def test_a_retiring_worker_that_has_not_confirmed_is_ordered_at_once_and_killed_in_time() -> None:
    master = serving(2, graceful=20.0)
    master.pool.scale(1)
    master.step()
    other = next_master(master)
    (worker,) = other.retiring()
    assert other.step().actions == [RetireAction(worker.pid, 1)]
    other.pool.leaving(worker.pid, other.now)
    assert other.step().actions == []
    assert only(other.step(20.0).actions, KillAction) == [
        KillAction(worker.pid, 1, "still there 20 s after the order to leave")
    ]


def test_a_killed_worker_is_not_killed_again_after_the_adoption() -> None:
    master = serving(2, graceful=20.0)
    master.pool.scale(1)
    master.step()
    assert only(master.step(20.0).actions, KillAction)
    other = next_master(master)
    assert other.step(60.0) == Plan([], [], None)


def test_scale_is_adopted() -> None:
    master = serving(2)
    master.pool.scale(5)
    master.step()
    assert next_master(master).pool.target == 5


def test_a_withdrawn_pool_stays_empty_until_the_next_start() -> None:
    master = serving(2)
    master.pool.withdraw()
    master.step()
    master.reap()
    other = next_master(master)
    assert other.step() == Plan([], [], None)
    assert other.start(2).actions == [SpawnAction(0, 2)]


def test_backoff_goes_on_after_the_adoption() -> None:
    master = serving(1)
    for _ in range(2):
        master.die(*master.good())
        master.ready(*master.booting())
    waiting = master.die(*master.good())
    assert waiting.actions == []
    other = next_master(master)
    assert other.step() == waiting
    assert other.step(wake_time(waiting) - other.now).actions == [SpawnAction(0, 1)]


def test_only_between_transactions_there_is_something_to_hand_over() -> None:
    master = MadeUpMaster(2)
    assert not master.pool.between_transactions
    master.start(1)
    assert not master.pool.between_transactions
    master.ready(master.booting()[0])
    assert master.pool.between_transactions  # its first worker serves; others come
    master.ready(*master.booting())
    master.start(2)
    assert not master.pool.between_transactions
    master.ready(*master.booting(2))
    assert master.pool.between_transactions
    master.pool.stop(master.now, graceful=True)
    assert not master.pool.between_transactions


def test_an_unanswered_spawn_is_no_time_to_hand_over() -> None:
    master = serving(1)
    master.pool.died(master.good()[0].pid, "gone", master.now, sigkill=True)
    (spawn,) = master.pool.advance(master.now).actions
    assert isinstance(spawn, SpawnAction)
    assert not master.pool.between_transactions
    master.pool.spawned(spawn.slot, spawn.generation, 5000, master.now)
    assert master.pool.between_transactions


def test_what_was_set_by_hand_holds_for_the_start_after_an_adoption() -> None:
    master = serving(2)
    master.pool.scale(3)
    other = next_master(master)
    other.pool.start(2, other.settings)
    other.pool.carry_over_size()
    other.step()
    while other.booting():
        other.ready(*other.booting())
    assert (other.pool.target, len(other.good(2))) == (3, 3)
    other.pool.start(3, other.settings)  # an ordinary reload
    other.step()
    other.ready(*other.booting())
    assert other.pool.target == 2


def test_what_was_not_set_by_hand_is_the_new_configurations() -> None:
    other = next_master(serving(2))
    other.pool.start(2, GenerationSettings(5, 30.0, 20.0))
    other.pool.carry_over_size()
    other.step()
    other.ready(*other.booting())
    assert other.pool.target == 5


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (PoolBounds(1, 4, 1), PoolBounds(2, 8, 1), PoolBounds(2, 8, 1)),
        (None, PoolBounds(2, 8, 1), PoolBounds(2, 8, 1)),
    ],
    ids=["dynamic before", "fixed before"],
)
def test_bounds_that_were_not_moved_are_the_new_configurations(
    before: PoolBounds | None, after: PoolBounds | None, expected: PoolBounds | None
) -> None:
    other = adopted_with(before, lambda pool, now: None)
    other.pool.start(2, GenerationSettings(2, 30.0, 20.0, after))
    other.pool.carry_over_size()
    other.step()
    other.ready(*other.booting())
    assert other.pool.bounds == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (PoolBounds(1, 4, 1), PoolBounds(2, 8, 1), PoolBounds(2, 5, 1)),
        (None, PoolBounds(2, 8, 1), PoolBounds(3, 3, 1)),
        (PoolBounds(1, 4, 1), None, None),
    ],
    ids=["dynamic before", "fixed before", "fixed after"],
)
def test_bounds_moved_by_hand_hold_after_an_adoption(
    before: PoolBounds | None, after: PoolBounds | None, expected: PoolBounds | None
) -> None:
    other = adopted_with(before, lambda pool, now: pool.grow(1))
    other.pool.start(2, GenerationSettings(2, 30.0, 20.0, after))
    other.pool.carry_over_size()
    other.step()
    other.ready(*other.booting())
    assert (other.pool.target, other.pool.bounds) == (3, expected)


def adopted_with(bounds: PoolBounds | None, change: Callable[[Pool, float], None]) -> MadeUpMaster:
    """A pool of two workers, changed and handed over."""
    master = MadeUpMaster()
    master.settings = GenerationSettings(2, 30.0, 20.0, bounds)
    master.pool.start(1, master.settings)
    if bounds:
        master.pool.resize(2)
    master.step()
    master.ready(*master.booting())
    change(master.pool, master.now)
    master.step()
    master.ready(*master.booting())
    return next_master(master)


def test_a_worn_worker_is_replaced_after_the_adoption() -> None:
    master = serving(2)
    worn = master.good()[0]
    master.pool.recycle(worn.pid, master.now)
    other = next_master(master)
    assert only(other.step().actions, SpawnAction) == [SpawnAction(2, 1)]
    other.ready(*other.booting())
    assert [worker.pid for worker in other.retiring()] == [worn.pid]
