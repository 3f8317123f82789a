"""What was slow, and where in the code: told while it runs, and without harm to it."""

import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prefork.scoreboard import LINE
from tests.support.load import Gate
from tests.support.server import Event, Server, Start
from tests.support.sockets import read_all

SLOW = "tests.apps.slow:app"
LIMITS = ("--set", "workers.slow_request=0.1", "--set", "workers.request_timeout=0")


def entry(server: Server, path: str, event: str = "slow request") -> Event:
    return server.wait(event, request=f"GET {path}"[:LINE])


def test_each_slow_request_is_reported_with_its_stack_and_answered(
    start: Start, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    paths = ["/backtrack?n=24", "/asleep?s=1", f"/locked?fifo={tmp_path / 'gate'}"]
    server = start(SLOW, "--workers", "4", *LIMITS).wait_ready(4)
    with ThreadPoolExecutor(3) as clients:
        answers = [clients.submit(server.get, path) for path in paths]
        for path in paths:
            told = entry(server, path)
            assert told["level"] == "warning"
            assert told["peer"] == "127.0.0.1"
            assert told["elapsed"] >= 0.1
            function = path[1:].partition("?")[0]
            stack = told["traceback"]
            assert f"in {function}\n" in stack
            assert "in app" in stack
            # What is the same in every worker, how the master came to fork it, is left out.
            assert "prefork/master" not in stack
        stuck = entry(server, paths[2])
        assert "in holder" in stuck["traceback"]  # every thread, not only that of the request
        # The name of re.match since CPython 3.15 is the other one.
        assert re.search(r"in (match|prefixmatch)\n", entry(server, paths[0])["traceback"])
        asked = server.command("status", "--stack", str(stuck["slot"])).stdout
        assert "in locked\n" in asked
        call = _status(server, stuck["slot"])["calls"][0]
        assert (call["request"], call["peer"]) == (f"GET {paths[2]}"[:LINE], "127.0.0.1")
        gate.arrived().open()
        assert [answer.result()[0] for answer in answers] == [200] * 3
        assert [int(answer.result()[1]) for answer in answers] == [
            entry(server, path)["pid"] for path in paths
        ]
    assert server.get("/pid")[0] == 200
    assert len(server.find("slow request")) == 3


def test_a_worker_that_runs_python_code_reports_it_without_a_signal(
    start: Start, tmp_path: Path
) -> None:
    # The signal's handler may read a frame that is half made (prefork.stack_dump).
    gate = Gate(tmp_path / "gate")
    server = start(SLOW, "--workers", "1").wait_ready(1)
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(server.get, f"/calling?fifo={tmp_path / 'gate'}")
        gate.arrived()
        told = ""
        for _ in range(20):  # on a busy machine the answer may be late, and the signal sent
            told = server.command("status", "--stack", "0").stdout
            if "Current thread" not in told:  # which is who wrote it, and not shown
                break
        gate.open()
        assert "in calling\n" in told
        assert "Current thread" not in told
        assert answer.result()[0] == 200


def test_at_the_timeout_the_stack_is_in_the_error(start: Start, tmp_path: Path) -> None:
    # A busy machine has two seconds to have the worker write its stacks before it is killed.
    limits = ("request_timeout=0.4", "graceful_timeout=2", "preload=true")
    settings = [part for each in limits for part in ("--set", f"workers.{each}")]
    access = tmp_path / "access.log"
    settings += ["--set", f"log.access={access}", "--set", "log.access_format=common"]
    server = start(SLOW, "--workers", "1", *settings).wait_ready(1)
    server.expected_errors |= {"request timed out", "worker died", "worker exited"}
    with server.connect() as client:
        client.sendall(b"GET /backtrack?n=64 HTTP/1.1\r\nHost: x\r\n\r\n")
        told = entry(server, "/backtrack?n=64", "request timed out")
        assert "in backtrack\n" in told["traceback"]
        server.wait("worker killed", pid=told["pid"])
        assert read_all(client).startswith(b"HTTP/1.1 504 ")
    server.wait("worker ready", 2)
    # One that comes to an end after all had the answer of the timeout, not its own.
    assert server.get("/asleep?s=0.6")[0] == 504
    server.wait("worker exited", pid=server.find("worker ready")[1]["pid"])
    server.wait("worker ready", 3)
    assert server.get("/pid")[0] == 200
    restarts = server.status()["restarts"]
    assert restarts == {"request_timeout": 2}
    (line,) = (line for line in access.read_text().splitlines() if "/asleep" in line)
    assert line.split()[-2] == "504"


def test_a_server_that_stood_still_reports_no_slow_request(start: Start, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    limits = ("slow_request=2", "request_timeout=0", "boot_timeout=0")
    settings = [part for each in limits for part in ("--set", f"workers.{each}")]
    server = start(SLOW, "--workers", "1", *settings).wait_ready(1)
    (worker,) = server.workers()
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(server.get, f"/locked?fifo={tmp_path / 'gate'}")
        gate.arrived()
        worker.suspend()
        server.signal(signal.SIGSTOP)
        # Longer than the master ever waits here, by more than what it takes for a busy machine.
        time.sleep(4)
        server.signal(signal.SIGCONT)
        for count in (1, 2):  # at the second, a round has gone by in which it could look
            server.signal(signal.SIGUSR1)
            server.wait("signal received", count, signal="SIGUSR1")
        worker.resume()
        gate.open()
        assert answer.result()[0] == 200
    # The stacks for a slow request, if they had been asked for, would be written before these.
    server.command("status", "--stack", "0")
    server.stop()
    assert server.find("slow request") == []


def test_a_worker_that_cannot_answer_for_itself(start: Start) -> None:
    server = start(SLOW, "--workers", "1").wait_ready(1)
    (worker,) = server.workers()
    worker.suspend()
    try:
        failed = server.command("status", "--stack", "0", check=False)
    finally:
        worker.send_signal(signal.SIGCONT)
    assert failed.returncode == 1
    assert f"worker {worker.pid} has not written its stacks" in failed.stderr
    unknown = server.command("status", "--stack", "7", check=False)
    assert "no worker has slot 7; slots with a worker: 0" in unknown.stderr
    assert server.get("/pid") == (200, str(worker.pid).encode())


def _status(server: Server, slot: int) -> Event:
    workers: list[Event] = server.status()["workers"]
    return next(worker for worker in workers if worker["slot"] == slot)
