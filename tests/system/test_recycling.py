"""Workers that have served long enough are replaced, and nobody notices."""

import os
import socket
import threading
from pathlib import Path

import pytest

from tests.support.path_load import PathLoad, tcp
from tests.support.server import Server, Start
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE

APP = "tests.apps.renewal:app"
OVER = "worker to be recycled"


def at_once(server: Server) -> tuple[int, int]:
    """By the log: the fewest ready workers since all of them were, and the most that lived."""
    ready: set[int] = set()
    alive: set[int] = set()
    full, fewest, most = 0, 1 << 20, 0
    assert server.find("worker forked"), "needs log.level=debug"
    for event in list(server.events):
        name, pid = event["event"], event["pid"]
        if name == "worker forked":
            alive.add(pid)
        elif name == "worker ready":
            ready.add(pid)
        elif name in ("worker leaving", "worker exited", "worker died"):
            ready.discard(pid)
        elif name == "generation settled":
            full = len(ready)
        if name in ("worker exited", "worker died"):
            alive.discard(pid)
        if full:
            fewest = min(fewest, len(ready))
        most = max(most, len(alive))
    return fewest, most


@pytest.mark.parametrize(("threads", "preload"), [("1", "false"), ("4", "false"), ("1", "true")])
def test_recycling_every_50_requests_under_load_fails_none(
    start: Start, threads: str, preload: str
) -> None:
    keys = ("workers.max_requests=50", "log.level=debug", f"workers.preload={preload}")
    settings = [part for key in keys for part in ("--set", key)]
    server = start(APP, "--workers", "3", "--threads", threads, *settings)
    server.wait("generation settled")
    load = PathLoad(tcp(server.port), one_shot=6, kept=6)
    server.wait(OVER, 9)
    server.wait("worker exited", 8)
    load.end()
    assert not load.failures, load.failures
    assert load.answers > 50 * 8
    assert all(int(event["reason"].split()[0]) >= 50 for event in server.find(OVER))
    fewest, most = at_once(server)
    assert fewest == 3  # never fewer ready workers than there should be
    assert most == 4  # never more than one on the way


def test_a_worker_with_fewer_requests_stays(start: Start) -> None:
    """Only the one that has answered enough goes; which is which, each answer tells."""
    server = start(APP, "--workers", "1", "--set", "workers.max_requests=5").wait_ready(1)
    first = server.get("/pid")[1]
    assert [server.get("/pid")[1] for _ in range(3)] == [first] * 3
    assert not server.find(OVER)
    server.get("/pid")
    assert server.wait(OVER, pid=int(first))["reason"] == "5 requests"
    server.wait("worker exited", pid=int(first))
    assert server.get("/pid")[1] != first


def test_a_connection_to_a_tcp_handler_is_a_request(start: Start) -> None:
    settings = ("--tcp", "--set", "workers.max_requests=20", "--set", "log.level=debug")
    server = start("tests.apps.tcp_apps:echo", "--workers", "2", *settings)
    server.wait("generation settled")
    failures: list[str] = []
    over = threading.Event()

    def client() -> None:
        message = os.urandom(20_000)
        while not over.is_set():
            try:
                with server.connect() as sock:
                    sock.sendall(message)
                    sock.shutdown(socket.SHUT_WR)
                    answer = read_all(sock)
            except OSError as error:
                failures.append(repr(error))
            else:
                if answer != message:
                    failures.append(f"{len(answer)} bytes")

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    try:
        server.wait("worker exited", 4)
    finally:
        over.set()
        for thread in clients:
            thread.join(PATIENCE)
    # A worker that leaves shuts its one connection for reading: a message that was only half there
    # is cut off, which is what a handler is promised.
    assert len(failures) <= len(server.find("worker leaving")), failures
    assert at_once(server) == (2, 3)


def test_max_age(start: Start) -> None:
    settings = ("--set", "workers.max_age=1", "--set", "log.level=debug")
    server = start(APP, "--workers", "3", *settings)
    server.wait("generation settled")
    # The log, since on a busy machine the first replacement may be there already.
    first = {event["pid"] for event in server.find("worker ready")[:3]}
    assert len(first) == 3
    for pid in first:
        assert server.wait(OVER, pid=pid)["reason"] == "its age"
        server.wait("worker exited", pid=pid)
    assert server.get("/")[0] == 200
    assert at_once(server) == (3, 4)


def test_a_worker_that_leaks_is_replaced_and_its_sibling_is_not(start: Start) -> None:
    settings = ("--set", "workers.max_memory=200MiB", "--set", "workers.handover=false")
    server = start(APP, "--workers", "2", *settings).wait_ready(2)
    kept = server.http()
    kept.request("GET", "/leak?n=1")  # one connection: without hand-over it stays with one worker
    leaky = int(kept.getresponse().read())
    while not server.find(OVER):
        kept.request("GET", "/leak?n=20")
        answer = kept.getresponse()
        assert answer.status == 200
        assert int(answer.read()) == leaky
    kept.close()
    event = server.wait(OVER)
    assert event["pid"] == leaky
    assert int(event["reason"].split()[0]) >= 200
    server.wait("worker exited", pid=leaky)
    before = {ready["pid"] for ready in server.find("worker ready", generation=1)}
    assert len(before) == 3
    assert {worker.pid for worker in server.workers()} == before - {leaky}


def test_the_old_worker_serves_on_while_no_replacement_can_boot(
    start: Start, tmp_path: Path
) -> None:
    app = tmp_path / "renewed.py"
    good = Path("tests/apps/version_app.py").read_text()
    app.write_text(good)
    settings = ("--set", f"server.chdir={tmp_path}", "--set", "workers.max_requests=3")
    server = start("renewed:app", "--workers", "1", *settings, env={"PYTHONDONTWRITEBYTECODE": "1"})
    server.wait_ready(1)
    server.expected_errors = {"worker failed to boot"}
    (old,) = server.workers()
    app.write_text("raise RuntimeError('broken since the start')")
    for _ in range(3):
        assert server.get("/") == (200, b"one")
    server.wait(OVER, pid=old.pid)
    assert "broken since the start" in server.wait("worker failed to boot", 4)["traceback"]
    assert server.get("/") == (200, b"one")
    assert not server.find("worker leaving")
    app.write_text(good.replace('"one"', '"two"'))
    server.wait("worker leaving", pid=old.pid)
    server.wait("worker exited", pid=old.pid)
    assert server.get("/") == (200, b"two")
