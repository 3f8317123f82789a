"""The times of a WebSocket: pings, their answers, age, stop, and the closing."""

import pytest

from prefork.websocket.websocket_clock import (
    CLOSE_TIMEOUT,
    ClockAction,
    PingRules,
    WebsocketClock,
)

NOTHING, PING, CLOSE, GIVE_UP = (
    *(ClockAction.NOTHING, ClockAction.PING),
    *(ClockAction.CLOSE, ClockAction.GIVE_UP),
)


def clock(interval: float = 8.0, timeout: float = 4.0, age: float = 0.0) -> WebsocketClock:
    return WebsocketClock(PingRules(interval, timeout), age, 100.0)


def test_a_ping_follows_silence() -> None:
    one = clock()
    assert one.due == 108.0
    assert one.look(107.9) is NOTHING
    assert one.look(108.0) is PING
    assert one.due == 112.0
    one.heard(109.0)
    assert one.due == 117.0
    assert one.look(112.0) is NOTHING
    assert one.look(117.0) is PING


def test_what_is_heard_meanwhile_delays_a_ping_at_no_cost() -> None:
    one = clock()
    one.heard(103.3)
    assert one.due == 108.0  # it is not moved for each message
    assert one.look(108.0) is NOTHING
    assert one.due == 112.0


@pytest.mark.parametrize("since", [100.0, 100.3, 100.9, 101.0])
def test_pings_of_many_clients_come_due_together(since: float) -> None:
    one = WebsocketClock(PingRules(8.0, 4.0), 0.0, since)
    assert one.due == (108.0 if since == 100.0 else 109.0)


def test_no_answer_ends_it() -> None:
    one = clock()
    assert one.look(108.0) is PING
    assert one.look(111.9) is NOTHING
    assert one.look(112.0) is GIVE_UP
    assert one.code == 1011


def test_an_answer_that_is_not_read_is_not_missed() -> None:
    one = clock()
    assert one.look(108.0) is PING
    assert one.look(112.0, deaf=True) is NOTHING
    assert one.due == 120.0


def test_either_can_be_off() -> None:
    assert clock(interval=0.0).due == 0.0
    one = clock(timeout=0.0)
    assert one.look(108.0) is PING
    assert one.due == 0.0
    one.heard(200.0)
    assert one.due == 208.0


def test_age() -> None:
    one = clock(age=5.0)
    assert one.due == 105.0
    assert one.look(105.0) is CLOSE
    assert one.code == 1001


def test_a_stop_comes_before_pings_and_shortens_the_closing() -> None:
    one = clock()
    one.stop(102.0, 1012, 3.0)
    assert one.due == 102.0
    assert one.look(102.0) is CLOSE
    assert one.code == 1012
    one.closing(102.0)
    assert one.due == 105.0
    assert one.look(104.0) is NOTHING
    assert one.look(105.0) is GIVE_UP
    other = clock()
    other.closing(100.0)
    assert other.due == 100.0 + CLOSE_TIMEOUT
    other.stop(101.0, 1001, 3.0)
    assert other.due == 104.0
