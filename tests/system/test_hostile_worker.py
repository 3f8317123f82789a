"""A worker that an attacker controls can end itself, and neither the master nor its siblings."""

import contextlib
import http.client
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest

from tests.support.commands import run_prefork
from tests.support.server import Server, Start
from tests.support.waiting import until

APP = "tests.apps.hostile:app"
PRELOAD = pytest.mark.parametrize("preload", ["false", "true"])


def attack(server: Server, query: str) -> int:
    """Lets one worker do it; returns its process id."""
    status, body = server.get(f"/?{query}")
    assert status == 200
    return int(body)


def plain(text: str) -> bool:
    """Whether it can do nothing to a terminal."""
    return bool(text) and text.replace("\n", "").isprintable()


def serves(server: Server) -> None:
    """The master answers, and so does a worker; one that leaves may still be there."""
    until(lambda: len(server.status()["workers"]) == 2, "two workers")
    assert server.get("/")[0] == 200


@PRELOAD
def test_a_packet_that_is_no_report_is_the_end_of_its_worker(start: Start, preload: str) -> None:
    server = start(APP, "--workers", "2", "--set", f"workers.preload={preload}").wait_ready(2)
    server.expected_errors = {"worker killed", "worker died"}
    master = server.pid
    for count, packet in enumerate(("deep", "nested", "pid", "bytes", "unknown"), 1):
        with contextlib.suppress(OSError, http.client.HTTPException):  # it may have no time left
            attack(server, f"packet={packet}")
        killed = server.wait("worker killed", count)
        assert "report that cannot be read" in killed["reason"]
        server.wait("worker died", pid=killed["pid"], how="killed by SIGKILL")
        until(lambda: len(server.workers()) == 2, "a new worker")
        serves(server)
    assert server.pid == master


@PRELOAD
def test_reports_at_the_wrong_time_are_no_flood_of_the_log(start: Start, preload: str) -> None:
    server = start(APP, "--workers", "2", "--set", f"workers.preload={preload}").wait_ready(2)
    server.expected_errors = {"worker failed to boot"}
    for report in ("ready", "failed", "crowded"):
        attack(server, f"report={report}&count=1000")
        serves(server)
    assert len(server.find("worker ready")) == 2
    assert len(server.find("worker failed to boot")) <= 2


def test_a_zygote_that_is_taken_over_cannot_shrink_the_memory_that_the_master_reads(
    start: Start,
) -> None:
    """The application tries when it is imported; the master would die of SIGBUS."""
    server = start(APP, "--workers", "2", "--set", "workers.preload=true").wait_ready(2)
    serves(server)
    server.ask("reload")
    serves(server)


def test_descriptors_do_not_reach_the_master(start: Start) -> None:
    server = start(APP, "--workers", "2").wait_ready(2)
    master = psutil.Process(server.pid)
    attack(server, "descriptors=1")
    serves(server)  # the inboxes are there
    before = master.num_fds()
    for _ in range(4):
        attack(server, "descriptors=1")
        serves(server)  # it did not wait in close(2)
    until(lambda: master.num_fds() <= before, "only the control clients' descriptors came and went")


@PRELOAD
def test_stacks_are_text_and_nothing_that_a_worker_does_blocks_them(
    start: Start, preload: str
) -> None:
    server = start(APP, "--workers", "2", "--set", f"workers.preload={preload}").wait_ready(2)
    spoiled = attack(server, "stacks=1")
    [slot] = [w["slot"] for w in server.status()["workers"] if w["pid"] == spoiled]
    for _ in range(3):
        shown = server.command("status", "--stack", str(slot))
        assert plain(shown.stdout)
        assert plain(server.command("status", "--stack", str(slot), "--json").stdout)
    serves(server)


@pytest.mark.parametrize("how", ["empty", "files", "deep", "shutdown", "path", "strange", "kinds"])
def test_what_a_worker_puts_into_inboxes_harms_neither_siblings_nor_the_master(
    start: Start, how: str
) -> None:
    server = start(APP, "--workers", "2").wait_ready(2)
    server.expected_errors = {"connection lost", "worker died"}
    master = server.pid
    siblings = server.worker_pids()
    for _ in range(3):
        attack(server, f"inboxes={how}")
        serves(server)
    assert server.worker_pids() == siblings
    # Vacant slots are the master's to look after.
    for pid in siblings:
        os.kill(pid, signal.SIGKILL)
    server.wait("worker ready", 4)
    serves(server)
    for _ in range(20):
        assert server.get("/")[0] == 200
    assert server.pid == master
    # It waits, and does not turn round and round at an inbox that has ended.
    until(lambda: psutil.Process(master).status() == psutil.STATUS_SLEEPING, "the master sleeps")
    assert len(server.find("connection lost")) < 200


def test_a_listener_that_was_shut_down_serves_again(start: Start) -> None:
    """Each worker holds it, and shutdown(2) ends it for all."""
    server = start(APP, "--workers", "2").wait_ready(2)
    server.expected_errors = {"listener shut down"}
    for count in (1, 2):
        attack(server, "listeners=1")
        assert "it listens again" in server.wait("listener shut down", count)["reason"]
        for _ in range(8):
            serves(server)


def test_a_unix_socket_that_was_shut_down_is_reported_once(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = start(APP, "--workers", "1", bind=(f"unix:{path}", "127.0.0.1:0")).wait_ready(1)
    server.expected_errors = {"listener shut down"}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /?listeners=1 HTTP/1.0\r\n\r\n")
        assert client.recv(100)
    told = server.wait("listener shut down", address=f"unix:{path}")
    assert told["reason"].endswith("restart the server")
    tcp = server.addresses[1]
    server.wait("listener shut down", address=tcp)
    with socket.create_connection(("127.0.0.1", int(tcp.rpartition(":")[2]))) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert len(server.find("listener shut down", address=f"unix:{path}")) == 1


EVIL = "raise RuntimeError('\\x1b]0;title\\x07 \\x9b2J \\u202e')"
GOOD = "def app(environ, start):\n    start('200 OK', [])\n    return []\n"


def test_the_text_of_a_failed_import_does_nothing_to_a_terminal(
    start: Start, tmp_path: Path
) -> None:
    module = tmp_path / "evil.py"
    module.write_text(EVIL)
    options = ("evil:app", "--workers", "1", "--set", f"server.chdir={tmp_path}")
    serve = ("serve", *options, "--bind", "127.0.0.1:0", "--set", f"server.name={tmp_path.name}")
    failed = run_prefork(*serve)
    assert failed.returncode == 3
    assert "RuntimeError" in failed.stderr
    assert plain(failed.stderr)
    log = f"log.error={tmp_path / 'log'}"
    failed = run_prefork(*serve, "--set", "process.daemon=true", "--set", log)
    assert failed.returncode == 3
    assert plain(failed.stderr)

    module.write_text(GOOD)
    server = start(*options).wait_ready(1)
    server.expected_errors = {"reload failed", "upgrade failed"}
    module.write_text(EVIL)
    for command in ("reload", "upgrade"):
        failed = server.command(command, check=False)
        assert failed.returncode == 1
        assert "RuntimeError" in failed.stderr
        assert plain(failed.stderr)
