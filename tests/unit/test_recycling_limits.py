"""When a worker has served long enough."""

import random
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from prefork.config import Workers
from prefork.master.observe.recycler import resident
from prefork.master.pool.recycling import AGE_JITTER, LOOK, RecyclingLimits, draw

RNG = random.Random(3)


def allowance(**limits: Any) -> RecyclingLimits:
    return draw(Workers(count=1, **limits), 1000.0, RNG)


def look_of(limited: RecyclingLimits, now: float) -> float:
    """When it is to be looked at next: there is such a time."""
    look = limited.next_look(now)
    assert look is not None
    return look


def test_without_limits_a_worker_serves_for_ever_and_is_not_looked_at() -> None:
    free = allowance()
    assert free.exceeded(1e9, requests=10**9, memory=2**60) is None
    assert free.next_look(1000.0) is None


def test_requests() -> None:
    limited = allowance(max_requests=50)
    assert limited.exceeded(1001.0, requests=49, memory=0) is None
    assert limited.exceeded(1001.0, requests=53, memory=0) == ("max_requests", "53 requests")
    assert 1001.3 < look_of(limited, 1001.3) <= 1001.3 + LOOK


def test_memory() -> None:
    limited = allowance(max_memory=100 << 20)
    assert limited.exceeded(1001.0, requests=9, memory=(100 << 20) - 1) is None
    assert limited.exceeded(1001.0, requests=9, memory=120 << 20) == (
        "max_memory",
        "120 MiB of memory",
    )
    assert 1001.3 < look_of(limited, 1001.3) <= 1001.3 + LOOK


def test_a_limit_that_each_new_worker_is_above_is_to_be_raised() -> None:
    reached = RecyclingLimits(memory=100 << 20).exceeded(1.0, requests=0, memory=120 << 20)
    assert reached == (
        "max_memory",
        "120 MiB of memory before its first request; raise workers.max_memory",
    )


def test_age_is_looked_at_when_it_is_due_and_not_before() -> None:
    limited = allowance(max_age=3600)
    due = look_of(limited, 1001.0)
    assert limited.next_look(2000.0) == due
    assert limited.exceeded(due - 0.001, requests=0, memory=0) is None
    assert limited.exceeded(due, requests=0, memory=0) == ("max_age", "its age")


@given(seed=st.integers(), requests=st.integers(1, 1000), jitter=st.integers(0, 1000))
def test_jitter_keeps_its_range(seed: int, requests: int, jitter: int) -> None:
    workers = Workers(count=1, max_requests=requests, max_requests_jitter=jitter, max_age=100.0)
    drawn = draw(workers, 1000.0, random.Random(seed))
    assert requests <= drawn.requests <= requests + jitter
    assert 1000.0 + 100.0 * (1 - AGE_JITTER) <= drawn.until <= 1100.0


def test_workers_that_began_together_do_not_end_together() -> None:
    limited = [allowance(max_requests=1000, max_requests_jitter=500, max_age=60) for _ in range(20)]
    assert len({one.requests for one in limited}) > 10
    assert len({one.until for one in limited}) == 20


def test_the_memory_of_a_process_that_is_gone_is_none() -> None:
    assert resident(2**22 + 1) == 0  # beyond the largest process id, proc(5)
