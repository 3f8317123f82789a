"""How a dynamic pool follows demand, with an invented clock and invented readings."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from prefork.master.periodic import next_tick
from prefork.master.pool.sizing import (
    BUSY_LOOK,
    CALM,
    CALM_LOOK,
    PACE,
    Demand,
    Sizing,
    busy_workers,
)
from prefork.pool_bounds import PoolBounds

IDLE = Demand(busy=0, queued=0)


class Pool:
    """Looks at the right times; its workers are ready at once, unless they are told not to be."""

    def __init__(self, target: int = 1, *, bounds: tuple[int, int, int] = (1, 16, 1)) -> None:
        self.bounds = PoolBounds(*bounds)
        self.sizing = Sizing()
        self.target = self.ready = target
        self.now = 100.0

    def look(self, busy: int = 0, queued: int = 0, *, ready: bool = True) -> int:
        demand = Demand(busy, queued)
        self.target = self.sizing.decide(
            self.bounds, demand, target=self.target, ready=self.ready, now=self.now
        )
        if ready:
            self.ready = self.target
        self.now = next_tick(self.now, BUSY_LOOK if demand.any else CALM_LOOK)
        return self.target

    def calm(self, seconds: float, busy: int = 0) -> list[int]:
        """The targets at the looks of `seconds` seconds."""
        until = self.now + seconds
        seen = []
        while self.now < until:
            seen.append(self.look(busy))
        return seen


def test_an_idle_pool_keeps_its_spare_workers() -> None:
    assert Pool(1).look() == 1
    assert Pool(1, bounds=(1, 16, 3)).look() == 2  # grows towards three
    assert Pool(4, bounds=(4, 16, 1)).look() == 4


def test_it_grows_by_1_2_4_while_demand_lasts() -> None:
    pool = Pool(1)
    assert [pool.look(busy=pool.target, queued=50) for _ in range(6)] == [2, 4, 8, 16, 16, 16]


def test_it_grows_no_further_than_demand() -> None:
    pool = Pool(1)
    assert [pool.look(busy=1, queued=3) for _ in range(5)] == [2, 4, 5, 5, 5]


def test_a_connection_in_the_queue_is_demand_as_a_busy_worker_is() -> None:
    assert Pool(2, bounds=(1, 16, 1)).look(busy=2) == 3
    assert Pool(2, bounds=(1, 16, 1)).look(queued=2) == 3
    assert Pool(2, bounds=(1, 16, 1)).look(busy=1) == 2


def test_a_step_waits_for_the_workers_of_the_last_one() -> None:
    pool = Pool(1)
    assert pool.look(busy=1, queued=50, ready=False) == 2
    assert [pool.look(busy=1, queued=50, ready=False) for _ in range(20)] == [2] * 20
    pool.ready = 2
    assert pool.look(busy=2, queued=50) == 4


def test_the_step_is_1_again_after_demand_was_met() -> None:
    pool = Pool(1)
    assert [pool.look(busy=3) for _ in range(2)] == [2, 4]
    assert pool.look(busy=3) == 4  # met
    assert pool.look(busy=12) == 5


def test_it_shrinks_one_by_one_after_a_calm_period() -> None:
    pool = Pool(4)
    targets = pool.calm(CALM)
    assert targets == [4] * len(targets)
    assert pool.calm(PACE * 5) == [3, 2, 1, 1, 1]


def test_it_shrinks_while_some_are_busy_too() -> None:
    pool = Pool(8)
    assert set(pool.calm(CALM, busy=2)) == {8}
    assert pool.calm(CALM * 3, busy=2)[-1] == 3


def test_demand_that_just_fits_begins_the_calm_period_anew() -> None:
    pool = Pool(4)
    pool.calm(CALM - 1)
    assert pool.look(busy=3) == 4
    targets = pool.calm(CALM)
    assert targets == [4] * len(targets)
    assert pool.look() == 3


def test_demand_in_the_midst_of_shrinking_ends_it() -> None:
    pool = Pool(6)
    pool.calm(CALM)
    assert pool.look() == 5
    assert pool.look(busy=5) == 6
    targets = pool.calm(CALM)
    assert targets == [6] * len(targets)


def test_a_target_out_of_its_bounds_comes_back_at_once() -> None:
    assert Pool(9, bounds=(1, 4, 1)).look() == 4
    assert Pool(1, bounds=(3, 4, 1)).look() == 3


@pytest.mark.parametrize(
    ("calls", "busy"),
    [
        ([], 0),
        ([(0, 1), (1, 1), (1, 1)], 2),
        ([(1, 4), (1, 4)], 1),
        ([(4, 4), (1, 4)], 2),
        ([(1, 3)] * 3, 1),
        ([(1, 10)] * 10, 1),
        ([(1, 10)] * 11, 2),
    ],
)
def test_busy_workers_are_counted_by_their_threads(calls: list[tuple[int, int]], busy: int) -> None:
    assert busy_workers(calls) == busy


def test_bounds_move_between_one_and_the_most() -> None:
    assert PoolBounds(2, 4, 1).moved(1, 16) == PoolBounds(3, 5, 1)
    assert PoolBounds(2, 4, 1).moved(-3, 16) == PoolBounds(1, 1, 1)
    assert PoolBounds(2, 15, 1).moved(3, 16) == PoolBounds(5, 16, 1)
    assert PoolBounds(2, 4, 1).at(9) == PoolBounds(9, 9, 1)


def test_looks_share_their_ticks() -> None:
    assert [next_tick(now, 0.25) for now in (10.0, 10.1, 10.25, 10.9)] == [10.25, 10.25, 10.5, 11]
    assert next_tick(10.3, 1.0) == 11.0


LOOKS = st.lists(
    st.tuples(
        st.integers(0, 20),  # busy
        st.integers(0, 30),  # queued
        st.booleans(),  # whether what was asked for is ready
        st.sampled_from([0.25, 1.0, 1.0, 12.0]),  # seconds until the next look
    ),
    max_size=80,
)


@given(low=st.integers(1, 8), room=st.integers(0, 16), spare=st.integers(1, 5), looks=LOOKS)
def test_whatever_is_seen(
    low: int, room: int, spare: int, looks: list[tuple[int, int, bool, float]]
) -> None:
    """It stays in its bounds, grows only for need and as told, shrinks only out of calm."""
    bounds = PoolBounds(low, low + room, spare)
    sizing, now, target, ready = Sizing(), 100.0, bounds.fit(spare), 0
    step, shrunk = 1, 0.0  # the next step of growth; when it last shrank
    calm_from: float | None = None
    for busy, queued, booted, seconds in looks:
        ready = target if booted else ready
        before, need = target, bounds.fit(busy + queued + spare)
        target = sizing.decide(bounds, Demand(busy, queued), target=target, ready=ready, now=now)
        assert bounds.min <= target <= bounds.max
        if need > before:
            assert target == (before if ready < before else min(before + step, need))
            step = step * 2 if target > before else step
        else:
            assert before - 1 <= target <= before
            assert target >= need
            step = 1
        if need >= before:
            calm_from = None
        elif calm_from is None:
            calm_from = now
        if target < before:
            assert calm_from is not None
            assert now - calm_from >= CALM
            assert now - shrunk >= PACE
            shrunk = now
        now += seconds
