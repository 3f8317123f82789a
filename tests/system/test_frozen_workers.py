"""A worker that does not run, though it looks idle: no client waits for it, and it is replaced."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.load import Gate, Kept
from tests.support.processes import stopped, system_calls
from tests.support.server import Server, Start
from tests.support.waiting import until

APP = "tests.apps.frozen:app"
PATIENT = ("--set", "http.keepalive=0", "--set", "http.header_timeout=0")
FUTEX = 202  # x86-64


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


def serving(start: Start, count: int, *more: str) -> tuple[Server, list[int]]:
    """A server of which each worker has served, and their process ids."""
    server = start(APP, "--workers", str(count), *PATIENT, *more).wait_ready(count)
    pids = server.worker_pids()
    for pid in pids:
        with Kept(server.port, pid, count=1) as kept:
            kept.rest()
    return server, pids


def stop(server: Server, pid: int) -> None:
    """Stops a worker while it is idle."""

    def idle() -> bool:
        os.kill(pid, signal.SIGSTOP)
        until(lambda: stopped(pid), "it is stopped")
        shown = server.status()["workers"]
        if any(worker["pid"] == pid and worker["state"] == "idle" for worker in shown):
            return True
        os.kill(pid, signal.SIGCONT)  # it had not ended its last call
        return False

    until(idle, "a worker that was stopped while it was idle")


def freeze(server: Server, pid: int, gate: Gate) -> None:
    """A thread of this worker holds the interpreter from now on."""
    with Kept(server.port, pid, count=1) as kept:
        kept.mine[0].ask(gate.target.replace("/hold", "/freeze"))
        gate.arrived()
        kept.rest()
        before = system_calls(pid).count(FUTEX)
        gate.open()
        until(lambda: system_calls(pid).count(FUTEX) > before, "a thread waits for itself")


@pytest.mark.parametrize("way", ["stopped", "interpreter held"])
def test_no_client_waits_for_a_frozen_worker_while_a_sibling_is_idle(
    start: Start, gate: Gate, tmp_path: Path, way: str
) -> None:
    # The one whose interpreter is held is killed at the end.
    server, pids = serving(start, 3, "--set", "workers.graceful_timeout=1")
    with Kept(server.port, count=8) as kept:
        busy, *others = kept.mine
        frozen, free = set(pids) - {kept.holder}
        if way == "stopped":
            stop(server, frozen)
        else:
            freeze(server, frozen, Gate(tmp_path / "freeze"))
        kept.occupy(busy, gate)
        for connection in others:
            connection.send("/pid")
        # The frozen one stays so: what it was sent was taken back.
        assert [int(connection.receive().body) for connection in others] == [free] * len(others)
        for connection in (*others, *others):
            assert int(connection.ask("/pid").body) == free
        gate.open()
        assert int(busy.receive().body) == kept.holder


def test_a_stopped_worker_that_goes_on_is_handed_connections_again(
    start: Start, gate: Gate
) -> None:
    server, pids = serving(start, 2)
    with Kept(server.port, count=3) as kept:
        busy, *others = kept.mine
        (other,) = set(pids) - {kept.holder}
        stop(server, other)
        server.wait("worker frozen", pid=other)
        os.kill(other, signal.SIGCONT)
        server.wait("worker runs again", pid=other)
        kept.occupy(busy, gate)
        for connection in others:
            assert int(connection.ask("/pid").body) == other
        gate.open()
        busy.receive()


@pytest.mark.parametrize("handover", ["true", "false"])
def test_a_stopped_worker_is_reported_and_replaced(start: Start, handover: str) -> None:
    server, pids = serving(
        start,
        *(2, "--set", "workers.request_timeout=2"),
        *("--set", f"workers.handover={handover}"),
    )
    server.expected_errors.add("frozen worker replaced")
    stop(server, pids[0])
    assert "SIGSTOP" in server.wait("worker frozen", pid=pids[0])["reason"]
    server.wait("frozen worker replaced", pid=pids[0])
    server.wait("worker ready", 3)
    # It goes on once more, to leave as one that is well would.
    server.wait("worker exited", pid=pids[0])
    assert not server.find("worker killed")
    assert server.status()["restarts"]["frozen"] == 1


def test_a_client_of_a_stopped_worker_is_answered_when_that_is_replaced(start: Start) -> None:
    server, pids = serving(start, 2, "--set", "workers.request_timeout=2")
    server.expected_errors.add("frozen worker replaced")
    with Kept(server.port, pids[0], count=1) as kept:
        kept.rest()
        stop(server, pids[0])
        assert kept.mine[0].ask("/pid").status == 200
        server.wait("worker leaving", pid=pids[0])
        assert int(kept.mine[0].ask("/pid").body) != pids[0]


def test_a_worker_that_is_stopped_in_a_call_goes_on_when_that_is_late(
    start: Start, gate: Gate
) -> None:
    server, pids = serving(start, 2, "--set", "workers.request_timeout=2")
    server.expected_errors |= {"request timed out", "application failed"}
    with Kept(server.port, pids[0], count=1) as kept:
        kept.occupy(kept.mine[0], gate)
        os.kill(pids[0], signal.SIGSTOP)
        until(lambda: stopped(pids[0]), "it is stopped")
        gate.open()
        server.wait("worker frozen", pid=pids[0])
        server.wait("request timed out", pid=pids[0])
        server.wait("worker exited", pid=pids[0])
    assert not server.find("worker killed")


def test_a_worker_whose_interpreter_is_held_is_replaced_and_its_stack_shown(
    start: Start, gate: Gate
) -> None:
    server, pids = serving(
        start,
        *(2, "--set", "workers.request_timeout=2", "--set", "workers.graceful_timeout=1"),
    )
    server.expected_errors |= {"frozen worker replaced", "worker died"}
    # It was sent nothing: only that the other one answers shows that it should.
    with Kept(server.port, pids[1], count=1) as kept:
        freeze(server, pids[0], gate)
        until(
            lambda: kept.mine[0].ask("/pid").body and server.find("worker frozen", pid=pids[0]),
            "it is seen",
        )
    event = server.wait("worker frozen", pid=pids[0])
    assert "_freeze_after" in event["traceback"]
    assert "holds the interpreter" in event["reason"]
    server.wait("frozen worker replaced", pid=pids[0])
    server.wait("worker ready", 3)
    server.wait("worker killed", pid=pids[0])
