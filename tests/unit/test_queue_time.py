"""What proxies write into X-Request-Start."""

import pytest

from prefork.http.queue_time import waited

NOW = 1_700_000_000.5


@pytest.mark.parametrize(
    "value",
    ["t=1700000000.250", "1700000000.25", "t=1700000000250000", "1700000000250", "t=1700000000250"],
)
def test_seconds_milliseconds_and_microseconds_are_told_apart(value: str) -> None:
    assert waited(value, NOW) == pytest.approx(0.25)


def test_a_clock_that_is_a_little_ahead_is_no_wait() -> None:
    assert waited("1700000001.0", NOW) == 0.0


@pytest.mark.parametrize(
    "value",
    ["", "t=", "now", "-5", "1e9", "1700000009.0", "1600000000", "t=0", "9" * 30, "1,7", "nan"],
)
def test_what_can_not_be_true_says_nothing(value: str) -> None:
    assert waited(value, NOW) is None
