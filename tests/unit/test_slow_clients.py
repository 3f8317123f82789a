"""How long a worker that retires stays for its clients: each case with an invented clock."""

import pytest

from prefork.master.pool.plan import GenerationSettings, KillAction, RetireAction
from prefork.master.rollout.slow_clients import LOOK, stays_until
from prefork.scoreboard import CallRecord, WorkerStats
from tests.support.made_up_master import MadeUpMaster, only

SETTINGS = GenerationSettings(1, 30.0, 20.0, drain_timeout=600.0)
ORDERED = 100.0
NOW = 125.0
"""Past graceful_timeout."""

NOTHING = WorkerStats(0, 0, 0, 0, 90.0, "", 0.0)
DOWNLOAD = NOTHING._replace(held=1, parked=1, writing=1)
UPLOAD = NOTHING._replace(held=1, parked=1, reading=1)
NO_CALL = CallRecord(0, 0.0, "", "", "", ended=95.0)


def running(started: float, **progress: float) -> CallRecord:
    return CallRecord(0, started, "GET /", "", "", **progress)


def stays(
    call: CallRecord, stats: WorkerStats, now: float = NOW, ordered: float = ORDERED
) -> float:
    return stays_until(SETTINGS, [call], stats, ordered, now)


@pytest.mark.parametrize("stats", [DOWNLOAD, UPLOAD])
def test_what_only_waits_for_its_client_goes_on(stats: WorkerStats) -> None:
    assert stays(NO_CALL, stats) == NOW + LOOK


@pytest.mark.parametrize("stats", [DOWNLOAD, UPLOAD])
def test_drain_timeout_bounds_it(stats: WorkerStats) -> None:
    assert stays(NO_CALL, stats, now=699.5) == 700.0
    assert stays(NO_CALL, stats, now=700.0) == 700.0


def test_without_drain_timeout_nothing_does() -> None:
    settings = GenerationSettings(1, 30.0, 20.0, drain_timeout=0.0)
    assert stays_until(settings, [NO_CALL], DOWNLOAD, ORDERED, 1e6) == 1e6 + LOOK


@pytest.mark.parametrize("stats", [NOTHING, DOWNLOAD])
def test_an_application_at_work_has_graceful_timeout_from_the_order(stats: WorkerStats) -> None:
    assert stays(running(99.0), stats) == ORDERED + 20.0


def test_with_a_free_thread_it_does_not_cut_the_clients_of_others() -> None:
    calls = [running(90.0), NO_CALL]
    until = stays_until(SETTINGS, calls, DOWNLOAD, ORDERED, NOW, free=True)
    assert until == NOW + LOOK
    assert stays_until(SETTINGS, calls, NOTHING, ORDERED, NOW, free=True) == ORDERED + 20.0


def test_a_call_that_began_after_the_order_has_it_from_then() -> None:
    assert stays(running(124.0), UPLOAD) == min(NOW + LOOK, 144.0)
    assert stays(running(124.0), NOTHING) == 144.0


def test_a_response_that_is_made_as_fast_as_it_is_taken_goes_on() -> None:
    taken = running(90.0, resumed=124.0, waited=30.0)
    assert stays(taken, NOTHING) == NOW + LOOK
    assert stays(taken._replace(waiting=124.5), NOTHING) == NOW + LOOK


def test_a_stream_that_its_application_paces_has_graceful_timeout() -> None:
    assert stays(running(90.0, resumed=124.9), NOTHING) == ORDERED + 20.0


def test_an_application_that_is_stuck_after_long_waits_is_at_work() -> None:
    call = running(90.0, resumed=104.0, waited=14.0)
    assert stays(call._replace(waited=60.0), NOTHING, now=123.0) == 124.0
    assert stays(call._replace(waited=60.0), NOTHING, now=124.0) == 120.0


def test_the_end_of_the_process_has_its_time_once_the_clients_are_served() -> None:
    assert stays(NO_CALL, NOTHING) == ORDERED + 20.0
    served = NOTHING._replace(changed=124.0)
    assert stays(NO_CALL, served) == 144.0
    assert stays(NO_CALL._replace(ended=124.5), NOTHING) == 144.5


# What the pool makes of it.


def retiring() -> MadeUpMaster:
    """A master with one worker that retires, and has confirmed that."""
    master = MadeUpMaster(1)
    master.settings = SETTINGS
    master.start(1)
    master.pool.ready(1001, master.now)
    master.step()
    master.start(2)
    master.pool.ready(1002, master.now)
    assert only(master.step().actions, RetireAction) == [RetireAction(1001, 0)]
    master.pool.leaving(1001, master.now)
    return master


def test_a_worker_that_is_postponed_is_killed_when_that_is_over() -> None:
    master = retiring()
    master.now += 20.0
    (worker,) = master.pool.overdue(master.now)
    master.pool.postpone(worker, master.now + 5.0)
    plan = master.step()
    assert (plan.actions, plan.wake_at) == ([], master.now + 5.0)
    reason = "still there 25 s after the order to leave"
    assert master.step(5.0).actions == [KillAction(1001, 0, reason)]
    assert master.pool.overdue(master.now) == []


def test_a_worker_that_has_not_confirmed_that_it_leaves_gets_no_more_time() -> None:
    master = MadeUpMaster(1)
    master.settings = SETTINGS
    master.start(1)
    master.pool.ready(1001, master.now)
    master.step()
    master.pool.replace_now(1001, master.now)
    master.step()
    assert master.pool.overdue(master.now + 20.0) == []


def test_a_stop_gives_all_workers_the_same_time() -> None:
    master = retiring()
    master.now += 20.0
    (worker,) = master.pool.overdue(master.now)
    master.pool.postpone(worker, master.now + 1.0)
    master.step()
    master.pool.stop(master.now, graceful=True)
    master.step(19.0)
    assert worker.deadline == master.now + 1.0
    assert master.pool.overdue(master.now + 1.0) == []
    assert KillAction(1001, 0, worker.kill_reason) in master.step(1.0).actions


def test_recycling_does_not_wait_for_slow_clients() -> None:
    master = MadeUpMaster(2)
    master.settings = GenerationSettings(2, 30.0, 20.0, drain_timeout=600.0)
    master.start(1)
    for pid in (1001, 1002):
        master.pool.ready(pid, master.now)
        assert master.pool.recycle(pid, master.now)
    master.step()
    master.pool.ready(1003, master.now)
    master.step()
    (worker,) = [each for each in master.pool.members() if each.order]
    master.pool.leaving(worker.pid, master.now)
    assert master.pool.find(1004) is None  # one at a time
    master.now += 20.0
    master.pool.postpone(worker, master.now + 500.0)
    master.step()
    assert master.pool.find(1004) is not None
