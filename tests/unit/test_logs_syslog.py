"""The machine's log as a destination, and the journal's levels."""

import os
import re
import socket
from pathlib import Path

import pytest

from prefork.config import Log
from prefork.logs import LogError, Logs
from prefork.logs.syslog import Syslog
from tests.support.waiting import PATIENCE

Losses = list[tuple[str, int, str]]


def no_loss(target: str, lines: int, reason: str) -> None:
    pytest.fail(f"{target}: {lines} lines lost: {reason}")


def daemon(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    sock.settimeout(PATIENCE)
    return sock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def text(message: bytes) -> str:
    found = re.fullmatch(
        rf"<\d+>\w\w\w [ \d]\d [\d:]{{8}} prefork\[{os.getpid()}\]: (.*)", message.decode()
    )
    assert found, message
    return found[1]


def test_a_line_is_a_message_with_its_level(path: Path) -> None:
    with daemon(path) as syslogd:
        log = Syslog("error", f"syslog:{path}", lambda *loss: pytest.fail(f"{loss}"))
        log.write(b"one\ntwo\n", "warning")
        messages = [syslogd.recv(65536) for _ in range(2)]
        assert [text(message) for message in messages] == ["one", "two"]
        assert all(message.startswith(b"<28>") for message in messages)  # daemon, warning
        log.write(b"x" * 100_000 + b"\n", "debug")
        message = syslogd.recv(200_000)
        assert message.startswith(b"<31>")
        assert len(message) == 8192
        log.close()


def test_a_daemon_that_was_restarted_gets_the_next_line(path: Path) -> None:
    first = daemon(path)
    log = Syslog("error", f"syslog:{path}", lambda *loss: pytest.fail(f"{loss}"))
    first.close()
    path.unlink()
    with daemon(path) as second:
        log.write(b"after\n")
        assert text(second.recv(65536)) == "after"
    log.close()


def test_what_no_daemon_takes_is_counted_and_reported(path: Path) -> None:
    losses: Losses = []
    first = daemon(path)
    log = Syslog("access", f"syslog:{path}", lambda *loss: losses.append(loss))
    first.close()
    log.write(b"one\ntwo\n")
    assert losses == []
    path.unlink()
    with daemon(path) as second:
        log.write(b"three\n")
        assert text(second.recv(65536)) == "three"
    assert losses == [(f"syslog:{path}", 2, "Connection refused")]
    log.close()


def test_where_no_daemon_listens_the_start_fails(path: Path) -> None:
    with pytest.raises(LogError, match=r"log\.access: no syslog daemon at .*: No such file"):
        Logs(Log(access=f"syslog:{path}"), no_loss)


def test_in_the_journal_each_line_has_its_level(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    fields = {"traceback": "first\nsecond"}
    Logs(Log(), no_loss).write_event("error", "it happened", fields)
    Logs(Log(format="json"), no_loss).write_event("info", "it happened", {})
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    Logs(Log(), no_loss).write_event("info", "it happened", {})
    lines = capfd.readouterr().err.splitlines()
    assert [line[:4] for line in lines[:3]] == ["<3>2", "<3> ", "<3> "]
    assert lines[3].startswith('<6>{"time": ')
    assert lines[4].startswith("2")
