"""The access log: its formats, what it escapes, and that no line is lost."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from prefork import unpatched
from prefork.logs import AccessLog, LogSink

Format = Literal["common", "combined", "json"]

STARTED = 1_793_113_445.75  # 2026-10-27 15:04:05.75 UTC

ENVIRON = {
    "REMOTE_ADDR": "192.0.2.7",
    "REQUEST_METHOD": "GET",
    "RAW_URI": "/a%20b?c=d",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_REFERER": "http://example.org/",
    "HTTP_USER_AGENT": "Agent/1.0 (test)",
}


class Written(LogSink):
    """Writes nowhere: keeps what each write was given."""

    def __init__(self) -> None:
        super().__init__("access", "stderr", lambda target, lines, reason: None)
        self.writes: list[bytes] = []

    def write(self, data: bytes, level: str = "info") -> None:
        self.writes.append(data)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the time zone for the test."""

    def zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    zone("UTC0")
    yield zone
    monkeypatch.undo()
    time.tzset()


def unreadable(key: str, problem: BaseException) -> None:
    pytest.fail(f"{key}: {problem!r}")


def line_of(format: Format, environ: dict[str, Any] = ENVIRON, **other: Any) -> str:
    """The line of one response."""
    written = Written()
    log = AccessLog(written, format, unreadable)
    given = {"status": 200, "size": 1234, "started": STARTED, "elapsed": 0.25} | other
    log.add(environ, **given)
    log.flush()
    [data] = written.writes
    return data.decode("ascii")


def with_values(**values: Any) -> dict[str, Any]:
    return ENVIRON | values


@pytest.mark.usefixtures("zone")
def test_common() -> None:
    assert line_of("common") == (
        '192.0.2.7 - - [27/Oct/2026:15:04:05 +0000] "GET /a%20b?c=d HTTP/1.1" 200 1234\n'
    )


@pytest.mark.usefixtures("zone")
def test_combined() -> None:
    assert line_of("combined") == (
        '192.0.2.7 - - [27/Oct/2026:15:04:05 +0000] "GET /a%20b?c=d HTTP/1.1" 200 1234'
        ' "http://example.org/" "Agent/1.0 (test)"\n'
    )


@pytest.mark.usefixtures("zone")
def test_json() -> None:
    line = line_of("json", with_values(REMOTE_USER="ann"))
    assert line.endswith("}\n")
    assert json.loads(line) == {
        "time": "2026-10-27T15:04:05.750+00:00",
        "remote_addr": "192.0.2.7",
        "remote_user": "ann",
        "method": "GET",
        "uri": "/a%20b?c=d",
        "protocol": "HTTP/1.1",
        "status": 200,
        "size": 1234,
        "referer": "http://example.org/",
        "user_agent": "Agent/1.0 (test)",
        "elapsed": 0.25,
    }


@pytest.mark.usefixtures("zone")
def test_what_is_absent_is_a_dash_in_text() -> None:
    environ = {"REQUEST_METHOD": "GET", "RAW_URI": "/", "SERVER_PROTOCOL": "HTTP/1.0"}
    line = line_of("combined", environ | {"REMOTE_ADDR": ""}, size=0, status=304)
    assert line == '- - - [27/Oct/2026:15:04:05 +0000] "GET / HTTP/1.0" 304 - "-" "-"\n'
    assert line == line_of("combined", environ, size=0, status=304)


def test_what_is_absent_is_null_in_json() -> None:
    environ = {"REQUEST_METHOD": "GET", "RAW_URI": "/", "SERVER_PROTOCOL": "HTTP/1.0"}
    line = json.loads(line_of("json", environ | {"REMOTE_ADDR": ""}, size=0))
    absent = ("remote_addr", "remote_user", "referer", "user_agent")
    assert [line[key] for key in absent] == [None] * 4
    assert line["size"] == 0


def test_the_user_is_named_if_the_application_names_it() -> None:
    assert line_of("common", with_values(REMOTE_USER="ann")).startswith("192.0.2.7 - ann [")


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        ('a"b', 'a\\"b'),
        ("a\\b", "a\\\\b"),
        ('\\"', '\\\\\\"'),
        ("a\nb\r\tc\v\b", "a\\nb\\r\\tc\\v\\b"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x00\x1f\x7f", "\\x00\\x1f\\x7f"),
        ("caf\xe9 \x9b", "caf\\xe9 \\x9b"),
        ("\u20ac", "\\xe2\\x82\\xac"),
        ("\udc80", "\\xed\\xb2\\x80"),
        ("plain ~!#[]^{}'", "plain ~!#[]^{}'"),
    ],
)
def test_text_is_escaped_as_apache_does(value: str, logged: str) -> None:
    values = with_values(RAW_URI=value, HTTP_REFERER=value, HTTP_USER_AGENT=value)
    line = line_of("combined", values)
    assert line.endswith(f'"GET {logged} HTTP/1.1" 200 1234 "{logged}" "{logged}"\n')
    peer = line_of("common", with_values(REMOTE_ADDR=value, REMOTE_USER=value))
    assert peer.startswith(f"{logged} - {logged} [")


@pytest.mark.parametrize("value", ['a"b\\', "a\nb", "\x9b\x7f\x00", "\u2028\u20ac", "\udc80"])
def test_json_gives_any_text_back_and_is_one_line_of_ascii(value: str) -> None:
    values = with_values(RAW_URI=value, HTTP_USER_AGENT=value)
    line = line_of("json", values)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["uri"] == json.loads(line)["user_agent"] == value


@pytest.mark.parametrize("format", ["common", "combined", "json"])
def test_an_environ_that_the_application_spoiled_is_logged_all_the_same(format: Format) -> None:
    line = line_of(format, {"REMOTE_ADDR": 7, "HTTP_USER_AGENT": None, "REMOTE_USER": object()})
    assert "7" in line


@pytest.mark.parametrize(
    ("name", "clf", "iso"),
    [
        ("XXX-05:30", "[27/Oct/2026:20:34:05 +0530]", "2026-10-27T20:34:05.750+05:30"),
        ("XXX09:30", "[27/Oct/2026:05:34:05 -0930]", "2026-10-27T05:34:05.750-09:30"),
        ("XXX-10", "[28/Oct/2026:01:04:05 +1000]", "2026-10-28T01:04:05.750+10:00"),
    ],
)
def test_time_is_local_with_its_offset(
    name: str, clf: str, iso: str, zone: Callable[[str], None]
) -> None:
    zone(name)
    assert clf in line_of("common")
    assert json.loads(line_of("json"))["time"] == iso


@pytest.mark.usefixtures("zone")
def test_each_second_has_its_own_date() -> None:
    written = Written()
    log = AccessLog(written, "common", unreadable)
    for started in (59.0, 59.9, 60.0, 2_678_400.0, 59.5):
        log.add(ENVIRON, 200, 1, started, 0.0)
    log.flush()
    dates = [line.split()[3][1:].decode() for line in written.writes[0].splitlines()]
    assert dates == [
        "01/Jan/1970:00:00:59",
        "01/Jan/1970:00:00:59",
        "01/Jan/1970:00:01:00",
        "01/Feb/1970:00:00:00",
        "01/Jan/1970:00:00:59",
    ]


@pytest.mark.usefixtures("zone")
def test_json_times_of_one_second_differ_in_their_milliseconds() -> None:
    written = Written()
    log = AccessLog(written, "json", unreadable)
    for started in (59.0, 59.25, 60.5):
        log.add(ENVIRON, 200, 1, started, 0.0)
    log.flush()
    times = [json.loads(line)["time"][14:] for line in written.writes[0].splitlines()]
    assert times == ["00:59.000+00:00", "00:59.250+00:00", "01:00.500+00:00"]


def test_lines_are_kept_back_and_written_at_once() -> None:
    written = Written()
    log = AccessLog(written, "common", unreadable)
    for _ in range(10):
        log.add(ENVIRON, 200, 1, STARTED, 0.0)
    assert written.writes == []
    log.flush()
    assert [data.count(b"\n") for data in written.writes] == [10]
    log.flush()
    assert len(written.writes) == 1


def test_a_full_batch_is_written_without_being_asked_for() -> None:
    written = Written()
    log = AccessLog(written, "common", unreadable)
    one = len(line_of("common", size=1))
    enough = -(-65536 // one)
    for _ in range(enough - 1):
        log.add(ENVIRON, 200, 1, STARTED, 0.0)
    assert written.writes == []
    log.add(ENVIRON, 200, 1, STARTED, 0.0)
    assert [len(data) for data in written.writes] == [enough * one]
    log.add(ENVIRON, 200, 1, STARTED, 0.0)
    assert len(written.writes) == 1  # the next batch begins empty


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_no_line_of_many_threads_is_lost_or_doubled(tmp_path: Path) -> None:
    sink = LogSink("access", str(tmp_path / "log"), lambda *loss: pytest.fail(f"{loss}"))
    log = AccessLog(sink, "common", unreadable)
    done = threading.Event()

    def add(thread: int) -> None:
        for number in range(3000):
            log.add(with_values(RAW_URI=f"/{thread}/{number}"), 200, 1, STARTED, 0.0)

    def flush() -> None:
        while not done.wait(0.0001):
            log.flush()

    adding = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    flushing = [threading.Thread(target=flush) for _ in range(2)]
    for thread in adding + flushing:
        thread.start()
    for thread in adding:
        thread.join()
    done.set()
    for thread in flushing:
        thread.join()
    log.flush()
    sink.close()
    found = [line.split()[6] for line in (tmp_path / "log").read_bytes().splitlines()]
    expected = [b"/%d/%d" % (t, n) for t in range(4) for n in range(3000)]
    assert sorted(found) == sorted(expected)


def test_a_flush_inside_a_flush_does_not_hang_and_loses_nothing() -> None:
    """As when SIGQUIT comes while a batch is written, and its handler flushes."""

    class Interrupted(Written):
        def write(self, data: bytes, level: str = "info") -> None:
            super().write(data)
            if len(self.writes) == 1:
                log.add(with_values(RAW_URI="/last"), 200, 1, STARTED, 0.0)
                log.flush()

    written = Interrupted()
    log = AccessLog(written, "common", unreadable)
    log.add(with_values(RAW_URI="/first"), 200, 1, STARTED, 0.0)
    log.flush()
    assert {line.split()[6] for line in b"".join(written.writes).splitlines()} == {
        b"/first",
        b"/last",
    }


def test_a_batch_goes_to_a_file_in_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = LogSink("access", str(tmp_path / "log"), lambda *loss: pytest.fail(f"{loss}"))
    log = AccessLog(sink, "combined", unreadable)
    for _ in range(100):
        log.add(ENVIRON, 200, 1, STARTED, 0.0)
    sizes: list[int] = []
    write = os.write

    def counted(fd: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr(unpatched.os, "write", counted)
    log.flush()
    sink.close()
    assert sizes == [(tmp_path / "log").stat().st_size]


class Raising:
    """An object of an application that cannot be read."""

    def __init__(self, problem: BaseException) -> None:
        self.problem = problem

    def __str__(self) -> str:
        raise self.problem


class NoTruth:
    def __bool__(self) -> bool:
        raise LookupError("the database is away")


class NotText:
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Formatted(str):
    def __format__(self, how: str) -> str:
        raise LookupError("the database is away")


def cycle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


OBJECTS = [
    Raising(LookupError("the database is away")),
    Raising(SystemExit()),
    Raising(KeyboardInterrupt()),
    Raising(RecursionError()),
    NoTruth(),
    NotText(),
    Formatted("x"),
    cycle(),
    float("nan"),
    {NotText(): 1},
    b"\xff",
]


@pytest.mark.parametrize("format", ["common", "combined", "json"])
@pytest.mark.parametrize("key", [*ENVIRON, "prefork.request_id"])
@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
def test_any_object_in_the_environ_makes_a_line(format: Format, key: str, value: object) -> None:
    """Whatever the application left there, each response has its line, and JSON is JSON."""
    written = Written()
    reported = []
    log = AccessLog(written, format, lambda key, problem: reported.append(key))
    log.add({**ENVIRON, key: value}, 200, 1234, STARTED, 0.25)
    log.add(ENVIRON, 200, 1234, STARTED, 0.25)
    log.flush()
    first, second = b"".join(written.writes).decode("ascii").splitlines(keepends=True)
    assert second == line_of(format)
    if format == "json":
        json.loads(first, parse_constant=lambda name: pytest.fail(name))
    if "(unreadable)" in first:
        assert reported == [key]
    else:
        assert not reported
