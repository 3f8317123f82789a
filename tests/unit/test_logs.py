"""Events and their shape; logs opened, gone over to, and rotated."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefork.config import Log
from prefork.logs import (
    AccessLog,
    LogError,
    Logs,
    LogSink,
    configure,
    event,
    events,
    set_role,
    traceback_of,
)
from prefork.logs.line_format import json_line, printable, text_lines

LEVELS = ["debug", "info", "warning", "error"]

Said = Callable[[], str]


def unreadable(key: str, problem: BaseException) -> None:
    pytest.fail(f"{key}: {problem!r}")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Said]]:
    """Configures the logs; what it returns reads what was said."""
    monkeypatch.setattr(events, "_process_fields", {})
    path = tmp_path / "error.log"

    def start(**keys: Any) -> Said:
        configure(Log(error=str(path), **keys))
        return path.read_text

    yield start
    configure(Log())


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Half past five hours east of UTC."""
    monkeypatch.setenv("TZ", "XXX-05:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def descriptors() -> list[str]:
    """What this process holds open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(found)


# The line.


@pytest.mark.usefixtures("zone")
def test_text(start: Callable[..., Said]) -> None:
    said = start()
    set_role("master")
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    event("info", "worker ready", slot=2, pid=123, generation=1, after=0.25)
    stamp, line = said()[:29], said()[29:]
    assert line == (" [info] worker ready role=master slot=2 pid=123 generation=1 after=0.25\n")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \+0530", stamp)
    assert before <= datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S.%f %z") <= datetime.now(UTC)


@pytest.mark.usefixtures("zone")
def test_json(start: Callable[..., Said]) -> None:
    said = start(format="json")
    set_role("master")
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    event("info", "worker ready", slot=2, pid=123, generation=1, after=0.25)
    line = json.loads(said())
    moment = line.pop("time")
    assert line == {
        "level": "info",
        "event": "worker ready",
        "role": "master",
        "slot": 2,
        "pid": 123,
        "generation": 1,
        "after": 0.25,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+05:30", moment)
    assert before <= datetime.fromisoformat(moment) <= datetime.now(UTC)
    assert said().count("\n") == 1


def test_a_line_is_about_the_process_that_speaks_where_no_other_is_named(
    start: Callable[..., Said],
) -> None:
    said = start()
    set_role("worker", slot=3, generation=7)
    event("error", "application failed", request="GET")
    assert said().endswith(
        f"[error] application failed role=worker slot=3 pid={os.getpid()} generation=7"
        " request=GET\n"
    )


def test_what_is_unknown_is_left_out_of_text_and_null_in_json(start: Callable[..., Said]) -> None:
    said = start()
    event("info", "text", reason=None)
    assert said().endswith(f" [info] text pid={os.getpid()}\n")
    said = start(format="json")
    event("info", "json", reason=None)
    line = json.loads(said().splitlines()[1])
    assert [line[key] for key in ("role", "slot", "generation", "reason")] == [None] * 4


def test_a_field_may_be_called_name_as_a_signal_has_one(start: Callable[..., Said]) -> None:
    said = start()
    event("info", "signal", name="SIGHUP")
    assert said().endswith(" name=SIGHUP\n")


@pytest.mark.parametrize("threshold", LEVELS)
def test_levels_below_the_configured_one_are_not_said(
    threshold: Any, start: Callable[..., Said]
) -> None:
    said = start(level=threshold)
    for level in LEVELS:
        event(level, f"of level {level}")  # type: ignore[arg-type]
    heard = re.findall(r"\[(\w+)\] of level (\w+)", said())
    assert heard == [(level, level) for level in LEVELS[LEVELS.index(threshold) :]]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("/path/é", "/path/é"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\"x\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("x\n2026 [info] forged", '"x\\n2026 [info] forged"'),
        ("\r\t\x00", '"\\r\\t\\x00"'),
        ("\x1b[31m", '"\\x1b[31m"'),
        ("\x85\u2028\u202e", '"\\x85\\u2028\\u202e"'),
        ("\udcff", '"\\udcff"'),
        (Path("/a b"), '"/a b"'),
    ],
)
def test_values_are_quoted_where_they_are_not_one_word(
    value: object, shown: str, start: Callable[..., Said]
) -> None:
    said = start()
    event("info", "said", value=value)
    assert said().endswith(f" value={shown}\n")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(), value=st.text())
def test_no_text_makes_a_second_line(name: str, value: str) -> None:
    line = text_lines("info", name, {"value": value})
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    shown = line.removesuffix("\n").partition(f"[info] {printable(name)} value=")[2]
    if shown.startswith('"'):
        assert not re.search(r'(?<!\\)(\\\\)*"', shown[1:-1])  # it ends at the last quote only
    else:
        assert re.fullmatch(r'[^\s"=]+', shown)


@given(name=st.text(), value=st.text(st.characters()))
def test_json_gives_any_text_back(name: str, value: str) -> None:
    line = json_line("info", name, {"value": value})
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line)["event"] == name
    assert json.loads(line)["value"] == value


# Tracebacks.


def failure() -> BaseException:
    try:
        try:
            raise KeyError("first")
        except KeyError as cause:
            raise ValueError("second\n2026 [info] forged\x1b[31m") from cause
    except ValueError as problem:
        return problem


def test_a_traceback_stands_indented_below_its_line(start: Callable[..., Said]) -> None:
    said = start()
    event("error", "application failed", traceback=traceback_of(failure()), request="GET /")
    lines = said().splitlines()
    assert lines[0].endswith(' request="GET /"')
    assert all(line.startswith("    ") for line in lines[1:])
    assert lines[1] == "    Traceback (most recent call last):"
    assert "    KeyError: 'first'" in lines
    assert lines[-2:] == ["    ValueError: second", "    2026 [info] forged\\x1b[31m"]


def test_a_traceback_is_one_string_in_json(start: Callable[..., Said]) -> None:
    said = start(format="json")
    event("error", "application failed", traceback=traceback_of(failure()))
    assert json.loads(said())["traceback"] == traceback_of(failure())


# Opening, going over, reopening.


def test_before_anything_is_configured_stderr_hears(capfd: Any) -> None:
    event("info", "early")
    event("debug", "too fine")
    assert "[info] early" in (err := capfd.readouterr().err)
    assert err.count("\n") == 1


def test_both_logs_are_opened(start: Callable[..., Said], tmp_path: Path) -> None:
    logs = configure(Log(error=str(tmp_path / "e"), access=str(tmp_path / "a")))
    assert logs.access is not None
    assert [logs.error.target, logs.access.target] == [str(tmp_path / "e"), str(tmp_path / "a")]
    assert configure(Log(error=str(tmp_path / "e"))).access is None


@pytest.mark.parametrize("key", ["error", "access"])
def test_a_file_that_cannot_be_opened_leaves_all_as_it_was(
    key: str, start: Callable[..., Said], tmp_path: Path
) -> None:
    said = start()
    open_before = descriptors()
    missing = str(tmp_path / "missing" / "log")
    with pytest.raises(LogError) as caught:
        configure(msgspec.structs.replace(Log(error=str(tmp_path / "other")), **{key: missing}))
    assert str(caught.value) == f"log.{key}: cannot open '{missing}': No such file or directory"
    event("info", "still here")
    assert "still here" in said()
    assert descriptors() == open_before


def test_the_access_log_has_the_configured_format(
    start: Callable[..., Said], tmp_path: Path
) -> None:
    assert configure(Log()).access_log(unreadable) is None
    log = configure(Log(access=str(tmp_path / "a"), access_format="json")).access_log(
        lambda *unreadable: pytest.fail(f"{unreadable}")
    )
    assert isinstance(log, AccessLog)
    log.add({"RAW_URI": "/x"}, 200, 5, 0.0, 0.0)
    log.flush()
    assert json.loads((tmp_path / "a").read_bytes())["uri"] == "/x"


def test_lines_lost_in_one_log_are_said_in_the_other(
    start: Callable[..., Said], tmp_path: Path
) -> None:
    logs = configure(Log(error=str(tmp_path / "e"), access="/dev/full"))
    assert logs.access is not None
    logs.access.write(b"one\ntwo\n")
    assert isinstance(logs.access, LogSink)
    with open(tmp_path / "a", "wb") as file:
        logs.access.replace(file.fileno())
    logs.access.write(b"three\n")
    assert (tmp_path / "a").read_bytes() == b"three\n"
    assert (
        (tmp_path / "e")
        .read_text()
        .endswith(' log=/dev/full lines=2 reason="No space left on device"\n')
    )


def test_an_error_log_reports_its_own_losses_at_any_level(
    start: Callable[..., Said], tmp_path: Path
) -> None:
    logs = configure(Log(error="/dev/full", level="error"))
    event("error", "lost")
    assert isinstance(logs.error, LogSink)
    with open(tmp_path / "e", "wb") as file:
        logs.error.replace(file.fileno())
    event("error", "found")
    found, lost = (tmp_path / "e").read_text().splitlines()
    assert "[error] found" in found
    assert "[error] log lines lost" in lost
    assert lost.endswith(' log=/dev/full lines=1 reason="No space left on device"')


def test_a_reload_goes_over_to_what_was_prepared(
    tmp_path: Path, start: Callable[..., Said]
) -> None:
    said = start()
    logs = configure(Log(error=str(tmp_path / "error.log")))
    new = Log(error=str(tmp_path / "new"), format="json", level="error", access="stdout")
    logs.prepare(new)
    event("info", "before")
    (tmp_path / "new").rename(tmp_path / "moved")  # what is open needs no path any more
    logs.reconfigure(new)
    event("info", "too fine now")
    event("error", "after")
    assert said().count("\n") == 1
    assert "before" in said()
    assert json.loads((tmp_path / "moved").read_text())["event"] == "after"
    assert logs.access is not None
    assert str(tmp_path / "error.log") not in descriptors()


def test_a_reload_that_fails_to_open_its_logs_changes_nothing(
    tmp_path: Path, start: Callable[..., Said]
) -> None:
    said = start()
    logs = configure(Log(error=str(tmp_path / "error.log")))
    for change in (logs.prepare, logs.reconfigure):
        with pytest.raises(LogError):
            change(Log(error=str(tmp_path / "missing" / "log")))
        event("info", "still here")
    assert said().count("still here") == 2


def test_what_a_superseded_reload_opened_is_closed(
    tmp_path: Path, start: Callable[..., Said]
) -> None:
    start()
    logs = configure(Log(error=str(tmp_path / "error.log")))
    logs.prepare(Log(error=str(tmp_path / "first")))
    logs.prepare(Log(error=str(tmp_path / "second")))
    assert str(tmp_path / "first") not in descriptors()
    assert str(tmp_path / "second") in descriptors()
    logs.reconfigure(Log(error=str(tmp_path / "third")))
    event("info", "said")
    assert "said" in (tmp_path / "third").read_text()


def test_an_older_generations_worker_keeps_its_logs(
    tmp_path: Path, start: Callable[..., Said]
) -> None:
    start()
    same = Log(error=str(tmp_path / "error.log"))
    logs = configure(same)
    sink = logs.error
    logs.prepare(Log(error=str(tmp_path / "new")))
    logs.reconfigure(same)
    assert logs.error is sink


def test_rotation_here_and_in_another_process(tmp_path: Path, start: Callable[..., Said]) -> None:
    start()
    config = Log(error=str(tmp_path / "e"), access=str(tmp_path / "a"))
    master, worker = configure(config), Logs(config, lambda *loss: pytest.fail(f"{loss}"))
    assert master.access is not None
    assert worker.access is not None
    for name in ("e", "a"):
        (tmp_path / name).rename(tmp_path / f"{name}.1")
    master.reopen()
    paths, fds = master.files()
    assert paths == (str(tmp_path / "e"), str(tmp_path / "a"))
    assert isinstance(master.error, LogSink)
    assert isinstance(master.access, LogSink)
    assert fds == (master.error.fd, master.access.fd)
    worker.replace(paths, [os.dup(fd) for fd in fds])  # as they come through a channel
    for logs in (master, worker):
        logs.error.write(b"error\n")
        assert logs.access is not None
        logs.access.write(b"access\n")
    worker.close()
    assert (tmp_path / "e").read_bytes() == b"error\n" * 2
    assert (tmp_path / "a").read_bytes() == b"access\n" * 2
    assert (tmp_path / "e.1").read_bytes() == (tmp_path / "a.1").read_bytes() == b""


def test_rotation_of_a_file_that_both_logs_share(
    tmp_path: Path, start: Callable[..., Said]
) -> None:
    start()
    logs = configure(Log(error=str(tmp_path / "both"), access=str(tmp_path / "both")))
    (tmp_path / "both").rename(tmp_path / "both.1")
    before = len(descriptors())
    logs.reopen()
    paths, _ = logs.files()
    assert len(descriptors()) == before
    logs.error.write(b"error\n")
    assert logs.access is not None
    logs.access.write(b"access\n")
    assert paths == (str(tmp_path / "both"),)
    assert (tmp_path / "both").read_bytes() == b"error\naccess\n"


def test_rotation_while_a_reload_is_under_way_reaches_both_generations(
    tmp_path: Path, start: Callable[..., Said]
) -> None:
    start()
    old, new = Log(error=str(tmp_path / "old")), Log(error=str(tmp_path / "new"))
    logs = configure(old)
    logs.prepare(new)
    for name in ("old", "new"):
        (tmp_path / name).rename(tmp_path / f"{name}.1")
    logs.reopen()
    assert logs.files()[0] == (str(tmp_path / "old"), str(tmp_path / "new"))
    event("info", "before")
    logs.reconfigure(new)
    event("info", "after")
    assert "before" in (tmp_path / "old").read_text()
    assert "after" in (tmp_path / "new").read_text()


def test_files_of_another_generation_are_closed_and_replace_nothing(
    tmp_path: Path, start: Callable[..., Said]
) -> None:
    said = start()
    logs = configure(Log(error=str(tmp_path / "error.log")))
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    logs.replace((str(tmp_path / "other"), "dropped on the way"), [other])
    event("info", "here")
    assert "here" in said()
    assert str(tmp_path / "other") not in descriptors()


def test_a_rotation_that_fails_goes_on_in_all_old_files(
    tmp_path: Path, start: Callable[..., Said]
) -> None:
    start()
    (tmp_path / "logs").mkdir()
    logs = configure(Log(error=str(tmp_path / "e"), access=str(tmp_path / "logs" / "a")))
    (tmp_path / "logs").rename(tmp_path / "moved")
    (tmp_path / "e").rename(tmp_path / "e.1")
    with pytest.raises(LogError, match=r"log\.access: cannot open"):
        logs.reopen()
    event("info", "still here")
    assert "still here" in (tmp_path / "e.1").read_text()
    assert str(tmp_path / "e") not in descriptors()
