"""Hand-over: nobody waits behind a busy worker while a sibling is idle, and nothing is lost.

A gate holds a worker in its application.  What is answered while it is shut was answered by
another one, however long that took.
"""

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.load import Gate, Kept
from tests.support.processes import asleep, peers_of, stopped
from tests.support.server import Server, Start, servers
from tests.support.waiting import until

APP = "tests.apps.crowded:app"
PATIENT = ("--set", "http.keepalive=0", "--set", "http.header_timeout=0")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two workers, for what leaves it as it was."""
    for start in servers(tmp_path_factory.mktemp("shared")):
        yield start(APP, "--workers", "2", *PATIENT).wait_ready(2)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


def stop_unseen(server: Server, pid: int) -> None:
    """Stops the master, and a worker that looks idle: siblings go on sending to it, as long as they
    can't know.  The master must go on before the next command."""
    with Kept(server.port, pid, count=1):  # it has begun to serve
        pass
    until(lambda: asleep(pid), "it rests")
    os.kill(server.pid, signal.SIGSTOP)
    until(lambda: stopped(server.pid), "the master is stopped")
    os.kill(pid, signal.SIGSTOP)
    until(lambda: stopped(pid), "it is stopped")


def test_kept_connections_of_a_busy_worker_are_answered_by_its_sibling(
    shared: Server, gate: Gate
) -> None:
    with Kept(shared.port) as kept:
        busy, *others = kept.mine
        kept.occupy(busy, gate)
        for connection in (*others, *others):
            answered = int(connection.ask("/pid").body)
            assert answered in shared.worker_pids()
            assert answered != kept.holder
        gate.open()
        assert int(busy.receive().body) == kept.holder


def test_fresh_connections_are_answered_while_a_worker_is_busy(shared: Server, gate: Gate) -> None:
    """One of them may have been accepted by the busy one, just before it was busy."""
    with Kept(shared.port, count=2) as kept:
        busy = kept.mine[0]
        kept.occupy(busy, gate)
        for _ in range(6):
            status, body = shared.get("/pid")
            assert status == 200
            assert int(body) != kept.holder
        gate.open()
        assert int(busy.receive().body) == kept.holder


@pytest.mark.parametrize(
    ("first", "rest", "answer"),
    [
        (b"G", b"ET /pid HTTP/1.1\r\nHost: t\r\n\r\n", None),
        (b"GET /pid HTTP/1.1\r\nHost: t\r\nX-One: 1\r\nX-Tw", b"o: 2\r\n\r\n", None),
        (b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n", b"0123456789", b"0"),
        (b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\n01234", b"56789", b"0"),
        (
            b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5",
            b"\r\n56789\r\n0\r\n\r\n",
            b"0",
        ),
    ],
    ids=["a letter", "half a head", "a head", "half a body", "half a chunk"],
)
def test_a_half_read_request_is_gone_on_with_by_the_sibling(
    shared: Server, gate: Gate, first: bytes, rest: bytes, answer: bytes | None
) -> None:
    with Kept(shared.port, count=3) as kept:
        half, other, busy = kept.mine
        half.sock.sendall(first)
        half.arrived()
        other.ask("/pid")  # after that, the worker has read what came before
        kept.occupy(busy, gate)
        half.sock.sendall(rest)
        got = half.receive().body
        if answer is None:
            assert int(got) != kept.holder
        else:
            assert got == b"0123456789"
        # It is a connection like any other.
        assert int(half.ask("/pid").body) != kept.holder
        gate.open()
        assert int(busy.receive().body) == kept.holder


def test_a_client_that_waits_for_100_gets_one(shared: Server, gate: Gate) -> None:
    with Kept(shared.port, count=2) as kept:
        half, busy = kept.mine
        half.sock.sendall(
            b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert half.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        kept.occupy(busy, gate)
        half.sock.sendall(b"01")
        half.sock.sendall(b"234")
        assert half.receive().body == b"01234"
        gate.open()
        assert int(busy.receive().body) == kept.holder


def test_switched_off_each_worker_serves_its_own_connections(start: Start, gate: Gate) -> None:
    server = start(APP, "--workers", "2", *PATIENT, "--set", "workers.handover=false")
    server.wait_ready(2)
    with Kept(server.port, count=2) as kept:
        busy, other = kept.mine
        (idle,) = set(server.worker_pids()) - {kept.holder}
        with Kept(server.port, idle, count=1) as theirs:
            kept.occupy(busy, gate)
            other.send("/pid")
            other.arrived()
            for _ in range(50):
                assert int(theirs.mine[0].ask("/pid").body) == idle
        gate.open()
        assert int(other.receive().body) == kept.holder
        assert int(busy.receive().body) == kept.holder


def test_what_is_in_the_inbox_of_a_killed_worker_is_answered_by_another(
    start: Start, gate: Gate
) -> None:
    server = start(APP, "--workers", "2", *PATIENT).wait_ready(2)
    server.expected_errors.add("worker died")
    with Kept(server.port, count=5) as kept:
        busy, *others = kept.mine
        (victim,) = set(server.worker_pids()) - {kept.holder}
        stop_unseen(server, victim)
        kept.occupy(busy, gate)
        ports = {connection.port for connection in others}
        for connection in others:
            connection.send("/pid")
        until(
            lambda: len(ports & peers_of(kept.holder, server.port)) < len(ports),
            "one is in the inbox of the stopped one",
        )
        assert not ports & peers_of(victim, server.port)
        os.kill(victim, signal.SIGKILL)
        os.kill(server.pid, signal.SIGCONT)
        # The busy one is still busy: only the successor can answer.
        answers = {int(connection.receive().body) for connection in others}
        assert answers == set(server.worker_pids()) - {kept.holder}
        gate.open()
        assert int(busy.receive().body) == kept.holder


def test_what_a_worker_has_no_descriptor_for_the_master_gives_to_another(
    start: Start, gate: Gate, tmp_path: Path
) -> None:
    server = start(APP, "--workers", "3", *PATIENT).wait_ready(3)
    server.expected_errors.add("accept failed")
    with Kept(server.port, count=4) as kept:
        busy, *others = kept.mine
        crowded, free = set(server.worker_pids()) - {kept.holder}
        with Kept(server.port, free, count=1) as theirs:
            stop_unseen(server, crowded)
            # It is the only one that looks idle.
            second = Gate(tmp_path / "second")
            theirs.mine[0].send(second.target)
            second.arrived()
            kept.occupy(busy, gate)
            ports = {connection.port for connection in others}
            for connection in others:
                connection.send("/pid")
            until(
                lambda: len(ports & peers_of(kept.holder, server.port)) < len(ports),
                "one is in the inbox of the stopped one",
            )
            soft, hard = resource.prlimit(crowded, resource.RLIMIT_NOFILE)
            resource.prlimit(crowded, resource.RLIMIT_NOFILE, (3, hard))
            second.open()
            theirs.mine[0].receive()
            os.kill(crowded, signal.SIGCONT)
            os.kill(server.pid, signal.SIGCONT)
            for connection in others:
                assert int(connection.receive().body) == free
            resource.prlimit(crowded, resource.RLIMIT_NOFILE, (soft, hard))
            gate.open()
            assert int(busy.receive().body) == kept.holder
    assert not server.find("worker exited")


def test_a_worker_short_of_descriptors_is_sent_nothing(start: Start, gate: Gate) -> None:
    limit = 128
    server = start(
        *(APP, "--workers", "2", *PATIENT),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
    ).wait_ready(2)
    with Kept(server.port, count=3) as kept:
        busy, other, third = kept.mine
        (crowded,) = set(server.worker_pids()) - {kept.holder}
        with Kept(server.port, crowded, count=1) as theirs:
            theirs.rest()
            theirs.mine[0].ask("/crowd")
            # accept4 has a number already when it begins to wait; the next is at the brim.
            with Kept(server.port, crowded, count=2):
                kept.occupy(busy, gate)
                other.send("/pid")
                other.arrived()
                for _ in range(50):
                    assert int(theirs.mine[0].ask("/pid").body) == crowded
                gate.open()
                assert int(other.receive().body) == kept.holder
                assert int(busy.receive().body) == kept.holder
            theirs.rest()
            theirs.mine[0].ask("/free")
        # It looks again by itself.
        again = Gate(gate.path.with_name("again"))
        kept.occupy(busy, again)
        assert int(third.ask("/pid").body) == crowded
        again.open()
        assert int(busy.receive().body) == kept.holder


def test_what_was_sent_to_a_worker_without_descriptors_is_answered_by_another(
    start: Start, gate: Gate
) -> None:
    """Its last descriptor goes while it is idle, so that nobody could know."""
    server = start(APP, "--workers", "2", *PATIENT).wait_ready(2)
    server.expected_errors = {"accept failed"}
    full, holder = server.worker_pids()
    # One that has answered takes connections: before that it would see that it has no descriptors.
    with Kept(server.port, full, count=1), Kept(server.port, holder, count=3) as kept:
        busy, *others = kept.mine
        kept.occupy(busy, gate)
        os.kill(server.pid, signal.SIGSTOP)  # or it would have passed them on before we look
        until(lambda: stopped(server.pid), "the master is stopped")
        limits = resource.prlimit(full, resource.RLIMIT_NOFILE)
        resource.prlimit(full, resource.RLIMIT_NOFILE, (3, limits[1]))
        for other in others:
            other.send("/pid")
        ports = {other.port for other in others}
        until(
            lambda: len(ports & peers_of(holder, server.port)) < len(ports), "one was handed over"
        )
        os.kill(server.pid, signal.SIGCONT)
        gate.open()
        for other in others:
            assert int(other.receive().body) == holder
        assert int(busy.receive().body) == holder
        resource.prlimit(full, resource.RLIMIT_NOFILE, limits)


def test_a_kept_connection_outlives_reloads(start: Start, gate: Gate) -> None:
    """Idle ones, and one that is being answered; the old workers do not wait for their clients."""
    server = start(APP, "--workers", "2", *PATIENT).wait_ready(2)
    with Kept(server.port, count=4) as kept:
        busy, half, *idle = kept.mine
        half.sock.sendall(b"GET /pid HT")
        half.arrived()
        for number in (2, 3):
            former = set(server.worker_pids())
            server.ask("reload")
            for pid in former:
                server.wait("worker exited", pid=pid)
            for connection in idle:
                assert int(connection.ask("/pid").body) in set(server.worker_pids()) - former
            server.wait("generation settled", generation=number)
        half.sock.sendall(b"TP/1.1\r\nHost: t\r\n\r\n")
        assert int(half.receive().body) in server.worker_pids()
        # In the middle of an answer: it ends where it began, and goes on elsewhere.
        busy.send(gate.target)
        gate.arrived()
        former = set(server.worker_pids())
        server.ask("reload")
        assert int(server.get("/pid")[1]) not in former  # their successors are at work
        gate.open()
        answer = busy.receive()
        assert int(answer.body) in former
        assert not answer.last
        assert int(busy.ask("/pid").body) not in former
        for pid in former:
            server.wait("worker exited", pid=pid)


def test_a_kept_connection_outlives_an_upgrade(start: Start) -> None:
    server = start(APP, "--workers", "2", *PATIENT).wait_ready(2)
    with Kept(server.port, count=3) as kept:
        former = set(server.worker_pids())
        server.ask("upgrade")
        for pid in former:
            server.wait("worker exited", pid=pid)
        for connection in kept.mine:
            assert int(connection.ask("/pid").body) not in former


def test_at_the_end_of_the_server_kept_connections_end(start: Start) -> None:
    server = start(APP, "--workers", "2", "--set", "http.keepalive=0.5").wait_ready(2)
    with Kept(server.port, count=3) as kept:
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        for connection in kept.mine:
            assert connection.sock.recv(1) == b""


def test_what_a_stuck_worker_has_parked_goes_on_before_it_is_killed(
    start: Start, gate: Gate
) -> None:
    server = start(
        *(APP, "--workers", "1", *PATIENT),
        *("--set", "workers.request_timeout=0.5", "--set", "workers.graceful_timeout=20"),
    ).wait_ready(1)
    server.expected_errors |= {"request timed out", "application failed"}
    with Kept(server.port, count=3) as kept:
        busy, *idle = kept.mine
        kept.occupy(busy, gate)
        server.wait("request timed out", pid=kept.holder)
        server.wait("worker ready", 2)
        # It is stuck still, and for as long as the test likes.
        for connection in idle:
            assert int(connection.ask("/pid").body) != kept.holder
        assert busy.receive().status == 504
        gate.open()
        server.wait("worker exited", pid=kept.holder)
