"""How a system call is shown."""

import ssl

import pytest

from prefork.client import SystemCall, format_call, format_duration
from prefork.client.trace import show, traced


def test_a_call_is_traced_with_its_result_and_passed_on() -> None:
    calls: list[SystemCall] = []
    assert traced(calls.append, "recv", (3, 65536), lambda: b'a"b\r\n') == b'a"b\r\n'
    (call,) = calls
    assert (call.name, call.arguments, call.result) == (
        "recv",
        "3, 65536",
        r'5 bytes "a\"b\r\n"',
    )
    assert 0 <= call.seconds < 60


def test_a_failed_call_is_traced_with_its_error_and_raised() -> None:
    calls: list[SystemCall] = []

    def fail() -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(ConnectionRefusedError):
        traced(calls.append, "connect", (3, "h:1"), fail)
    assert [call.result for call in calls] == ["-1 ECONNREFUSED (Connection refused)"]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (TimeoutError("timed out"), "-1 timed out"),
        (TimeoutError(110, "Connection timed out"), "-1 ETIMEDOUT (Connection timed out)"),
        (ssl.SSLWantReadError(2, "not done"), "-1 SSLWantReadError"),
        (OSError("AF_UNIX path too long"), "-1 OSError (AF_UNIX path too long)"),
    ],
)
def test_errors_that_are_not_the_systems(error: OSError, shown: str) -> None:
    calls: list[SystemCall] = []

    def fail() -> None:
        raise error

    with pytest.raises(OSError):  # noqa: PT011
        traced(calls.append, "x", (), fail)
    assert calls[0].result == shown


def test_a_call_that_the_user_interrupts_is_traced_too() -> None:
    calls: list[SystemCall] = []

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        traced(calls.append, "recv", (3,), fail)
    assert [call.result for call in calls] == ["interrupted"]


def test_nothing_is_shown_without_a_trace() -> None:
    assert traced(None, "x", (), lambda: 7) == 7


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "0"),
        (0, "0"),
        (b"", "0 bytes"),
        (b"\x1b[31m\xff", r'6 bytes "\x1b[31m\xff"'),
        (memoryview(b"a" * 100), '100 bytes "' + "a" * 48 + '"...'),
        ("127.0.0.1:80", "127.0.0.1:80"),
    ],
)
def test_values_are_safe_for_a_terminal(value: object, shown: str) -> None:
    assert show(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0000123, "12 us"), (0.0123, "12.3 ms"), (0.9994, "999 ms"), (1.5, "1.50 s")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


def test_a_line() -> None:
    call = SystemCall("close", "3", "0", at=0.0, seconds=0.000_009)
    assert format_call(call) == "close(3) = 0 [9 us]"
