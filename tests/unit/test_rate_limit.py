"""How often an event is logged, with an invented clock."""

import pytest

from prefork.logs import rate_limit
from prefork.logs.rate_limit import RateLimit


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(rate_limit, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_one_in_so_many_seconds_with_the_number_of_those_between(clock: Clock) -> None:
    limit = RateLimit(5.0)
    assert [limit.due() for _ in range(4)] == [True, False, False, False]
    assert limit.skipped == 0
    clock.now += 4.9
    assert not limit.due()
    clock.now += 0.1
    assert limit.due()
    assert limit.skipped == 4
    clock.now += 100
    assert [limit.due() for _ in range(2)] == [True, False]
    assert limit.skipped == 0


def test_a_burst_is_what_a_quiet_time_saves_up(clock: Clock) -> None:
    limit = RateLimit(5.0, burst=3)
    assert sum(limit.due() for _ in range(1000)) == 3
    clock.now += 5
    assert sum(limit.due() for _ in range(1000)) == 1
    assert limit.skipped == 997
    clock.now += 10
    assert sum(limit.due() for _ in range(1000)) == 2
    clock.now += 1000
    assert sum(limit.due() for _ in range(1000)) == 3
