"""When the WebSockets of a worker that leaves are closed."""

from prefork.worker.service.closing_times import closing_times, time_to_tell


def test_one_alone_is_closed_at_once() -> None:
    (only,) = closing_times(1, 24.0)
    assert 0 <= only <= 0.02


def test_many_are_spread_over_a_time_that_grows_with_them() -> None:
    for count in (10, 100, 1000):
        times = closing_times(count, 24.0)
        assert len(times) == count
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= count * 0.02
    assert len({int(each) for each in times}) == 20  # of a thousand, some come in each second


def test_all_are_closed_in_the_time_that_there_is() -> None:
    assert closing_times(10_000, 24.0)[-1] <= 24.0
    assert closing_times(3, 0.0) == [0.0] * 3
    assert closing_times(0, 24.0) == []


def test_the_time_is_a_share_of_graceful_timeout() -> None:
    assert time_to_tell(10.0) == 8.0
    assert time_to_tell(0.0) == 24.0
