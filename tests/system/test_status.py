"""What `prefork status` tells of workers while clients do this and that."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prefork.scoreboard import LINE
from tests.support.server import Server, Start
from tests.support.waiting import until

BASIC = "tests.apps.basic:app"


def workers(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.status()["workers"]
    return found


def test_a_worker_reports_slow_clients(start: Start) -> None:
    # Without limits of time: on a busy machine each look at the status takes its own.
    limits = ("keepalive", "header_timeout", "write_timeout")
    settings = [part for each in limits for part in ("--set", f"http.{each}=0")]
    server = start(BASIC, "--workers", "1", *settings).wait_ready(1)

    def told(**expected: object) -> dict[str, Any]:
        def as_expected() -> dict[str, Any] | None:
            (worker,) = workers(server)
            return worker if worker | expected == worker else None

        found: dict[str, Any] = until(as_expected, f"a worker with {expected}")
        return found

    assert told(state="idle", held=0, parked=0)["bytes"] == 0
    # Each connects when it sends: the kernel keeps one that says nothing for a second only.
    with ExitStack() as clients:
        idle = clients.enter_context(server.connect())
        idle.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(15) == b"HTTP/1.1 200 OK"
        told(state="idle", held=1, parked=1, requests=1)
        half = clients.enter_context(server.connect())
        half.sendall(b"GET /pid HTTP/1.1\r\nHo")
        told(state="reading", held=2, parked=2)
        deaf = clients.enter_context(server.connect())
        deaf.sendall(b"GET /big?n=20000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        worker = told(state="writing", held=3, parked=3, requests=2)
        assert worker["bytes"] >= 20_000_000
        assert 0 < worker["mean"] < 30
        half.sendall(b"st: x\r\n\r\n")
        assert half.recv(15) == b"HTTP/1.1 200 OK"
        deaf.close()
        told(state="idle", held=2, parked=2, requests=3)
    told(state="idle", held=0, parked=0)


def test_the_calls_of_several_threads_and_the_total(start: Start, tmp_path: Path) -> None:
    server = start(BASIC, "--workers", "1", "--threads", "3").wait_ready(1)
    held = [tmp_path / "a", tmp_path / "b"]  # each request stays until its file is gone
    with server.connect() as one, server.connect() as other:
        for client, path in zip((one, other), held, strict=True):
            client.sendall(f"GET /hold?path={path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

        def both() -> list[dict[str, Any]] | None:
            calls: list[dict[str, Any]] = workers(server)[0]["calls"]
            return calls if len(calls) == 2 else None

        calls = until(both, "two calls at one time")
        assert {call["request"] for call in calls} == {
            f"GET /hold?path={path}"[:LINE] for path in held
        }
        assert len({call["thread"] for call in calls}) == 2
        (worker,) = workers(server)
        assert worker["state"] == "busy"
        lines = server.command("status").stdout.splitlines()
        assert sum("GET /hold" in line and " for 127.0.0.1, " in line for line in lines) == 2
        for client, path in zip((one, other), held, strict=True):
            path.unlink()
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        # A call is over when its answer is on its way, and counted after that.
        until(lambda: workers(server)[0]["requests"] == 2, "both calls are over")
    server.expected_errors.add("worker died")
    server.workers()[0].kill()
    server.wait("worker ready", 2)
    server.get("/pid")
    until(lambda: workers(server)[0]["requests"] == 1, "its call is over")
    told = server.status()
    assert told["requests"] == 3
    assert told["restarts"] == {"crashed": 1}
