"""[log] writer: a worker has pipes in place of the log files, and no line of it is lost."""

import contextlib
import json
import os
import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.support.passable import passable
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE, until

APP = "tests.apps.log_thief:app"
PRELOAD = pytest.mark.parametrize("preload", ["false", "true"])
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PROCESS = ("--set", "log.writer=process")


def log_process(server: Server) -> psutil.Process:
    [found] = until(lambda: server.children("logs"), "it has its title")
    return found


def logged(path: Path) -> Counter[str]:
    """The paths of the requests in an access log: of its whole lines.

    A file may be read while a write to it is under way, and then ends within a line."""
    whole = path.read_text().rpartition("\n")[0]
    return Counter(json.loads(line)["uri"] for line in whole.splitlines())


def until_logged(path: Path, expected: Counter[str]) -> None:
    """Waits until an access log has a line of each request, and no other.

    What is said if that never comes: which lines are missing, and which are too many."""
    with contextlib.suppress(AssertionError):
        until(lambda: logged(path) == expected)
    found = logged(path)
    assert (expected - found, found - expected) == (Counter(), Counter())


def access(path: Path) -> tuple[str, ...]:
    return ("--set", f"log.access={path}", "--set", "log.access_format=json")


@needs_root
@PRELOAD
def test_a_worker_of_another_user_cannot_empty_the_log_files(
    start: Start, tmp_path: Path, preload: str
) -> None:
    """Nor can the zygote, and a redirected stderr is safe, too."""
    lines, shell = tmp_path / "access.log", tmp_path / "stdout"
    with shell.open("ab") as stdout:
        server = start(
            *(APP, "--workers", "2", "--set", f"workers.preload={preload}", *access(lines)),
            *("--set", "process.user=nobody"),
            wrapper=passable(),
            stdout=stdout,
        ).wait_ready(2)
        expected: Counter[str] = Counter()
        for round_ in range(3):
            for number in range(4):
                path = f"/{round_}/{number}?empty=1"
                assert server.get(path) == (200, b"0 0")
                expected[path] += 1
            if round_ == 0:
                # A line is written when its response has been sent: a worker that is killed in
                # between does not write it.
                until_logged(lines, expected)
                for pid in server.worker_pids():
                    os.kill(pid, signal.SIGKILL)
                server.wait("worker ready", 4)
            elif round_ == 1:
                server.ask("upgrade")
        server.expected_errors = {"worker died"}
        until_logged(lines, expected)
        assert "log process" not in server.log()


def test_a_process_that_dies_at_once_is_started_later_and_later(
    start: Start, tmp_path: Path
) -> None:
    """What is logged meanwhile is written at the stop, before the next one would be started."""
    lines = tmp_path / "access.log"
    server = start(APP, "--workers", "1", *access(lines), *PROCESS).wait_ready(1)
    server.expected_errors = {"log process died"}
    nexts = []
    for count in range(1, 7):
        until(lambda: len(server.children("logs")) == 1, "another one")
        log_process(server).send_signal(signal.SIGABRT)
        nexts.append(server.wait("log process died", count)["next"])
    assert nexts[0] == 0.0
    # Doubled each time, and varied by a fifth.
    assert all(0.79 * 2**n <= 10 * delay <= 1.21 * 2**n for n, delay in enumerate(nexts[1:])), nexts
    failed = "log process: failed 6 times in a row (killed by SIGABRT)"
    assert failed in server.command("status").stdout
    assert server.get("/last?empty=1")[0] == 200
    server.stop()
    assert logged(lines) == Counter(["/last?empty=1"])


def test_by_default_workers_of_the_same_user_write_themselves(start: Start, tmp_path: Path) -> None:
    server = start(APP, "--workers", "1", *access(tmp_path / "access.log")).wait_ready(1)
    assert server.get("/?empty=1") == (200, b"1 1")
    assert server.children("logs") == []


@PRELOAD
def test_no_line_is_lost_or_doubled_when_the_process_is_killed_under_load(
    start: Start, tmp_path: Path, preload: str
) -> None:
    lines = tmp_path / "access.log"
    server = start(
        *(APP, "--workers", "2", "--set", f"workers.preload={preload}", *access(lines), *PROCESS),
        *("--set", "log.level=debug"),
    ).wait_ready(2)
    server.expected_errors = {"log process died"}
    done = threading.Event()
    sent: list[list[str]] = []

    def ask(client: int) -> None:
        mine: list[str] = []
        sent.append(mine)
        connection = server.http()
        while not done.is_set():
            path = f"/{client}/{len(mine)}"
            connection.request("GET", path)
            connection.getresponse().read()
            mine.append(path)
        connection.close()

    clients = [threading.Thread(target=ask, args=(client,)) for client in range(3)]
    for client in clients:
        client.start()
    until(lambda: len(server.children("logs")) == 1 and lines.exists(), "it has begun")
    for count in range(1, 9):
        before = lines.stat().st_size
        until(lambda: lines.stat().st_size > before + 2000, "lines come")  # noqa: B023
        log_process(server).kill()
        server.wait("log process died", count)
        until(lambda: len(server.children("logs")) == 1, "another one")
    done.set()
    for client in clients:
        client.join()
    expected = Counter(path for mine in sent for path in mine)
    until(lambda: sum(logged(lines).values()) >= sum(expected.values()), "all lines")
    assert not expected - logged(lines), "lost"
    # It may be killed in the few instructions between a write and its note of that.
    assert sum((logged(lines) - expected).values()) <= 64 * 8


def test_files_are_reopened_by_the_process(start: Start, tmp_path: Path) -> None:
    lines, old = tmp_path / "access.log", tmp_path / "access.log.1"
    server = start(APP, "--workers", "2", *access(lines), *PROCESS).wait_ready(2)
    for number in range(4):
        server.get(f"/before/{number}")
    until(lambda: sum(logged(lines).values()) == 4, "the first lines")
    lines.rename(old)
    server.ask("reopen")
    until(lines.exists, "a new file")
    for number in range(4):
        assert server.get(f"/after/{number}?empty=1") == (200, b"0 0")
    until(lambda: sum(logged(lines).values()) == 4, "the next lines")
    assert {path.split("/")[1] for path in logged(old)} == {"before"}
    # It keeps the new file over a death.
    server.expected_errors = {"log process died"}
    log_process(server).kill()
    server.get("/last")
    until(lambda: logged(lines)["/last"] == 1, "the last line")


def test_a_stop_writes_the_last_lines_and_leaves_no_process(start: Start, tmp_path: Path) -> None:
    lines, errors = tmp_path / "access.log", tmp_path / "error.log"
    server = start(
        *(APP, "--workers", "2", *access(lines), *PROCESS, "--set", f"log.error={errors}"),
        *("--set", f"process.pidfile={tmp_path / 'pid'}"),
    )
    until(lambda: errors.exists() and errors.read_text().count("worker ready") == 2, "ready")
    [port] = [
        json.loads(line)["address"].split(":")[1]
        for line in errors.read_text().splitlines()
        if '"listening"' in line
    ]
    for number in range(20):
        with socket.create_connection(("127.0.0.1", int(port))) as sock:
            sock.sendall(b"GET /%d HTTP/1.0\r\n\r\n" % number)
            assert sock.recv(100)
    process = log_process(server)
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    assert sum(logged(lines).values()) == 20
    assert not process.is_running()
    events = [json.loads(line)["event"] for line in errors.read_text().splitlines()]
    assert events.count("worker exited") == 2
    assert events[-1] == "stopped"


def test_lines_are_written_after_the_master_was_killed(start: Start, tmp_path: Path) -> None:
    lines = tmp_path / "access.log"
    server = start(APP, "--workers", "1", *access(lines), *PROCESS).wait_ready(1)
    connection = server.http()
    connection.request("GET", "/before")
    connection.getresponse().read()
    process = log_process(server)
    process.suspend()
    connection.request("GET", "/held")
    connection.getresponse().read()
    server.signal(signal.SIGKILL)
    server.process.wait()
    process.resume()
    process.wait(PATIENCE)
    assert logged(lines) == Counter(["/before", "/held"])


def test_what_an_application_prints_and_its_tracebacks_are_whole(
    start: Start, tmp_path: Path
) -> None:
    """With a daemon, the error log is its standard error; here the shell redirects it."""
    shell = tmp_path / "stdout"
    with shell.open("ab") as stdout:
        server = start(APP, "--workers", "1", *PROCESS, stdout=stdout).wait_ready(1)
        server.expected_errors = {"application failed"}
        assert server.get("/?fail=x")[0] == 500
        event = server.wait("application failed")
        assert event["traceback"].endswith("x" * 1000)
