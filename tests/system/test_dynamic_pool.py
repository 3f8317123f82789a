"""A dynamic pool grows with demand, shrinks after it, and costs an idle server next to nothing."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.server import Server, Start
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE, until

APP = "tests.apps.renewal:app"


def dynamic(low: int, high: int, spare: int = 1) -> tuple[str, ...]:
    keys = {"min": low, "max": high, "spare": spare}
    return tuple(
        part for key, value in keys.items() for part in ("--set", f"workers.{key}={value}")
    )


def targets(server: Server) -> list[int]:
    return [event["workers"] for event in server.find("pool resized")]


def send(sock: socket.socket, path: str) -> socket.socket:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
    return sock


@contextlib.contextmanager
def held(server: Server, clients: int, gate: Path) -> Iterator[list[socket.socket]]:
    """Clients whose requests stay in the application, or in the queue, until the gate is there."""
    with contextlib.ExitStack() as stack:
        yield [
            send(stack.enter_context(server.connect()), f"/gate?file={gate}")
            for _ in range(clients)
        ]


def all_busy(server: Server) -> bool:
    return all(worker["state"] == "busy" for worker in server.status()["workers"])


def answers(clients: list[socket.socket], gate: Path) -> set[bytes]:
    """Opens the gate; the process ids that the clients are told."""
    gate.touch()
    heads_and_bodies = [read_all(client).partition(b"\r\n\r\n") for client in clients]
    assert all(head.startswith(b"HTTP/1.1 200 ") for head, _, _ in heads_and_bodies)
    return {body for _, _, body in heads_and_bodies}


def test_it_grows_from_one_to_the_most_under_slow_requests_and_shrinks_back(
    start: Start, tmp_path: Path
) -> None:
    server = start(APP, *dynamic(1, 4)).wait_ready(1)
    server.wait("generation settled")
    assert len(server.workers()) == 1
    with held(server, 8, tmp_path / "gate") as clients:
        server.wait("worker ready", 4)
        assert targets(server)[-1] == 4
        # Steps of 1, 2, ...: more than one came at a time.
        assert len(targets(server)) < 3 or targets(server) == [2, 3, 4]
        assert server.status()["target"] == 4
        until(lambda: all_busy(server), "each has a request")
        assert len(answers(clients, tmp_path / "gate")) == 4
    server.wait("pool resized", workers=1)
    assert targets(server)[-3:] == [3, 2, 1]
    server.wait("worker exited", 3)
    assert len(server.workers()) == 1
    assert server.get("/")[0] == 200


def test_it_grows_no_further_than_demand_and_its_spare_worker(start: Start, tmp_path: Path) -> None:
    server = start(APP, *dynamic(1, 16)).wait_ready(1)
    with held(server, 4, tmp_path / "gate") as clients:
        server.wait("worker ready", 5)
        assert server.get("/")[0] == 200  # by the spare one
        assert targets(server)[-1] == 5
        assert len(answers(clients, tmp_path / "gate")) == 4


@pytest.mark.parametrize("kind", ["tcp", "unix", "abstract"])
def test_connections_in_the_listen_queue_are_demand(
    start: Start, tmp_path: Path, kind: str
) -> None:
    """The only worker stands still and looks idle; that a queue grows is all there is to see."""
    path = {"unix": str(tmp_path / "app.sock"), "abstract": f"\0prefork-test-{os.getpid()}"}
    bind = {
        "tcp": "127.0.0.1:0",
        "unix": f"unix:{path['unix']}",
        "abstract": f"unix:@{path['abstract'][1:]}",
    }[kind]
    server = start(APP, *dynamic(1, 8), bind=(bind,)).wait_ready(1)
    (first,) = server.workers()
    first.suspend()
    try:
        until(lambda: first.status() == psutil.STATUS_STOPPED, "a stopped worker")
        with contextlib.ExitStack() as stack:
            clients = []
            for _ in range(3):
                if kind == "tcp":
                    client = server.connect()
                else:
                    client = socket.socket(socket.AF_UNIX)
                    client.settimeout(PATIENCE)
                    client.connect(path[kind])
                clients.append(send(stack.enter_context(client), "/pid"))
            told = {read_all(client).rpartition(b"\n")[2] for client in clients}
        assert str(first.pid).encode() not in told
        event = server.wait("pool resized")
        assert (event["before"], event["workers"], event["busy"]) == (1, 2, 0)
        assert event["queued"] >= 1
    finally:
        first.resume()


def test_a_workers_free_threads_are_spare_ones(start: Start, tmp_path: Path) -> None:
    server = start(APP, "--threads", "4", *dynamic(1, 8)).wait_ready(1)
    with held(server, 4, tmp_path / "gate") as clients:
        server.wait("worker ready", 2)
        with held(server, 3, tmp_path / "gate") as more:
            server.wait("worker ready", 3)
            assert len(answers([*clients, *more], tmp_path / "gate")) >= 2
    # No more than two workers' threads were busy at any look, and one worker is spare; who was
    # still in the queue then is counted besides.
    for event in server.find("pool resized"):
        assert event["busy"] <= 2
        assert event["workers"] <= event["busy"] + event["queued"] + 1


def test_a_reload_under_load_begins_with_as_many_workers_as_there_are(
    start: Start, tmp_path: Path
) -> None:
    server = start(APP, *dynamic(1, 4)).wait_ready(1)
    with held(server, 6, tmp_path / "gate") as clients:
        server.wait("worker ready", 4)
        server.signal(signal.SIGHUP)
        server.wait("worker ready", 4, generation=2)
        server.wait("generation settled", generation=2)
        answers(clients, tmp_path / "gate")


def test_scale_and_signals_move_the_bounds_until_the_next_reload(start: Start) -> None:
    server = start(APP, *dynamic(1, 4)).wait_ready(1)
    assert "target 1 worker (of 1 to 4, 1 spare)" in server.command("status").stdout
    server.signal(signal.SIGTTIN)
    server.wait("worker ready", 2)
    assert server.status()["bounds"] == {"min": 2, "max": 5, "spare": 1}
    server.signal(signal.SIGTTOU)
    server.wait("worker leaving")
    assert server.status()["bounds"] == {"min": 1, "max": 4, "spare": 1}
    server.ask("scale", count=3)
    server.wait("worker ready", 4)
    assert server.status()["bounds"] == {"min": 3, "max": 3, "spare": 1}
    assert server.status()["target"] == 3
    server.ask("reload")
    assert server.status()["bounds"] == {"min": 1, "max": 4, "spare": 1}


def wake_ups_within(seconds: float, pids: list[int]) -> int:
    """How often threads of processes give up the CPU by themselves meanwhile (proc(5))."""

    def so_far() -> int:
        threads = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/status")]
        lines = [line for thread in threads for line in thread.read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))

    first = so_far()
    threading.Event().wait(seconds)
    return so_far() - first


def test_a_fixed_pool_has_no_bounds_in_its_status(start: Start) -> None:
    server = start(APP, "--workers", "1").wait_ready(1)
    assert server.status()["bounds"] is None


def test_an_idle_server_wakes_less_than_twice_a_second(start: Start) -> None:
    """With all that is to be looked at; a wake-up is where a thread has given up the CPU itself."""
    settings = ("workers.max_requests=100", "workers.max_memory=1GiB", "workers.max_age=3600")
    server = start(APP, *dynamic(2, 4), *(part for key in settings for part in ("--set", key)))
    server.wait("generation settled")
    assert server.get("/")[0] == 200
    pids = [server.pid, *server.worker_pids()]
    assert len(pids) == 3
    # What the request left behind ends within a few seconds; one that never rests never gets there.
    until(lambda: wake_ups_within(3, pids) < 6, "fewer than two a second")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_idle_server_of_asgi_wakes_once_in_two_seconds(start: Start, loop: str) -> None:
    """And that is the master."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    args = ("--set", "server.protocol=asgi", "--set", f"workers.loop={loop}", "--workers", "2")
    server = start("tests.apps.async_basic:app", *args)
    server.wait("generation settled")
    with server.connect() as kept:
        kept.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(1000).startswith(b"HTTP/1.1 200 ")
        until(lambda: wake_ups_within(4, [server.pid]) <= 2, "once in two seconds")
    until(lambda: wake_ups_within(1, server.worker_pids()) == 0, "none of the workers")
