"""Sockets passed by systemd, as sd_listen_fds(3) tells of them, and what it is told."""

import os
import socket
from pathlib import Path

import pytest

from prefork.systemd import (
    MOST_FDS,
    Notifier,
    is_journal,
    listen_fds,
    remove_variables,
    watchdog_interval,
    with_priority,
)
from tests.support.waiting import PATIENCE

PID = 4711


def passed(**environ: str) -> list[tuple[int, str]]:
    return listen_fds({"LISTEN_PID": str(PID), **environ}, PID)


def test_descriptors_count_up_from_three_and_have_their_names() -> None:
    assert passed(LISTEN_FDS="2", LISTEN_FDNAMES="web:admin") == [(3, "web"), (4, "admin")]


def test_without_names_every_socket_is_unknown() -> None:
    assert passed(LISTEN_FDS="2") == [(3, "unknown"), (4, "unknown")]


def test_several_sockets_may_have_one_name_and_a_name_may_be_empty() -> None:
    names = passed(LISTEN_FDS="3", LISTEN_FDNAMES="web::web")
    assert names == [(3, "web"), (4, ""), (5, "web")]


def test_nothing_is_passed_without_the_variables() -> None:
    assert listen_fds({}, PID) == []
    assert passed() == []
    assert listen_fds({"LISTEN_FDS": "1"}, PID) == []


def test_sockets_for_another_process_are_not_ours() -> None:
    assert listen_fds({"LISTEN_PID": str(PID + 1), "LISTEN_FDS": "1"}, PID) == []


@pytest.mark.parametrize("text", ["", "x", "-1", "+3", " 3", "3_0", "3.0", "٣", "9" * 11])
@pytest.mark.parametrize("key", ["LISTEN_PID", "LISTEN_FDS"])
def test_what_is_no_number_is_refused_by_name(key: str, text: str) -> None:
    environ = {"LISTEN_PID": str(PID), "LISTEN_FDS": "1", key: text}
    with pytest.raises(ValueError, match=f"^{key} is .*must be a decimal number$"):
        listen_fds(environ, PID)


@pytest.mark.parametrize("count", [0, MOST_FDS + 1])
def test_a_count_that_no_process_can_have_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"^LISTEN_FDS is {count}: it must be from 1 to"):
        passed(LISTEN_FDS=str(count))


@pytest.mark.parametrize("names", ["", "web", "web:admin:more"])
def test_names_and_descriptors_must_be_as_many(names: str) -> None:
    found = len(names.split(":"))
    with pytest.raises(ValueError, match=rf"^LISTEN_FDNAMES has {found} names?, .* is 2$"):
        passed(LISTEN_FDS="2", LISTEN_FDNAMES=names)


# What is told to the service manager.


@pytest.mark.parametrize("abstract", [False, True])
def test_states_are_sent_in_one_datagram(tmp_path: Path, abstract: bool) -> None:
    name = f"@prefork-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        manager.settimeout(PATIENCE)
        notifier = Notifier.from_environment({"NOTIFY_SOCKET": name})
        assert notifier is not None
        assert notifier.send(READY=1, STATUS="up")
        assert manager.recv(4096) == b"READY=1\nSTATUS=up"


def test_a_manager_that_is_gone_or_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    assert not notifier.send(READY=1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        assert any(not notifier.send(WATCHDOG=1) for _ in range(100_000))


def test_without_a_socket_no_notification_is_sent() -> None:
    assert Notifier.from_environment({}) is None
    for bad in ("relative", "@", "/"):
        with pytest.raises(ValueError, match="NOTIFY_SOCKET is"):
            Notifier.from_environment({"NOTIFY_SOCKET": bad})


def test_the_watchdog_is_for_the_process_that_it_names() -> None:
    assert watchdog_interval({}, 7) is None
    assert watchdog_interval({"WATCHDOG_USEC": "1500000"}, 7) == 1.5
    assert watchdog_interval({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "7"}, 7) == 1.5
    assert watchdog_interval({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "8"}, 7) is None
    assert watchdog_interval({"WATCHDOG_USEC": "0"}, 7) is None
    with pytest.raises(ValueError, match="WATCHDOG_USEC is '-1'"):
        watchdog_interval({"WATCHDOG_USEC": "-1"}, 7)


def test_an_application_finds_nothing_of_it() -> None:
    environ = dict.fromkeys(("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID"), "1")
    environ["PATH"] = "/bin"
    remove_variables(environ)
    assert environ == {"PATH": "/bin"}


def test_lines_of_the_journal_have_their_level(tmp_path: Path) -> None:
    with open(tmp_path / "stream", "w") as stream:
        status = os.fstat(stream.fileno())
        named = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(named, stream.fileno())
        assert not is_journal({"JOURNAL_STREAM": "1:2"}, stream.fileno())
        assert not is_journal({}, stream.fileno())
    assert not is_journal(named, 9999)
    assert with_priority(3, "one\n  two\n") == "<3>one\n<3>  two\n"
