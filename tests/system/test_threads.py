"""Workers of several threads: who is in the application holds nobody up, and no more than allowed
are in it at a time.

Gates hold requests in the application; what is answered while they are shut was answered by another
thread.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.load import Connection, Gate
from tests.support.processes import tcp_states
from tests.support.server import Server, Start
from tests.support.waiting import until

APP = "tests.apps.supervised:app"


@pytest.fixture
def gates(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    made: list[Gate] = []

    def gate() -> Gate:
        made.append(Gate(tmp_path / f"gate-{len(made)}"))
        return made[-1]

    yield gate
    for one in made:
        one.open()


def serve(start: Start, threads: int, *more: str) -> Server:
    settings = ("--set", "http.keepalive=0", *more)
    server = start(APP, "--workers", "1", "--threads", str(threads), *settings)
    return server.wait_ready(1)


def test_while_one_thread_is_in_the_application_another_serves(
    start: Start, gates: Callable[[], Gate]
) -> None:
    server = serve(start, 2)
    with Connection(server.port) as held, Connection(server.port) as kept:
        assert kept.ask("/pid").status == 200
        gate = gates()
        held.send(gate.target)
        gate.arrived()
        for _ in range(3):
            assert kept.ask("/pid").status == 200
            assert server.get("/pid")[0] == 200
        gate.open()
        assert held.receive().status == 200
        assert kept.ask("/pid").status == 200


def test_every_thread_is_there_before_the_first_connection(start: Start) -> None:
    """One that is born later would leave its maker able to take a signal that is for the main
    thread, and that would go on waiting: of TERM from outside some were lost so."""
    server = serve(start, 2)
    (worker,) = (event["pid"] for event in server.find("worker ready"))
    assert server.get("/pid")[0] == 200  # accepted by the main thread, once it has made the others
    at_first = os.listdir(f"/proc/{worker}/task")
    assert len(at_first) == 5  # two that serve, the acceptor, the watcher, and the stack writer
    with Connection(server.port) as kept:
        assert kept.ask("/pid").status == server.get("/pid")[0] == kept.ask("/pid").status == 200
        assert os.listdir(f"/proc/{worker}/task") == at_first


def test_no_more_than_the_number_of_threads_are_in_the_application(
    start: Start, gates: Callable[[], Gate]
) -> None:
    server = serve(start, 3)
    connections = [Connection(server.port) for _ in range(4)]
    try:
        shut = []
        for connection in connections[:3]:
            gate = gates()
            connection.send(gate.target)
            shut.append(gate.arrived())
        # All three are in there: a fourth waits.
        connections[3].send("/pid")
        connections[3].arrived()
        shut[1].open()
        assert connections[1].receive().status == 200
        assert connections[3].receive().status == 200
        for gate, connection in ((shut[0], connections[0]), (shut[2], connections[2])):
            gate.open()
            assert connection.receive().status == 200
        for connection in connections:
            assert connection.ask("/pid").status == 200
    finally:
        for connection in connections:
            connection.close()


def test_a_long_one_holds_no_short_ones_up_again_and_again(
    start: Start, gates: Callable[[], Gate]
) -> None:
    """The worker learns that calls are slow, and forgets it; both ways lead to an answer."""
    server = serve(start, 2)
    with Connection(server.port) as first, Connection(server.port) as second:
        for _ in range(8):
            gate = gates()
            first.send(gate.target)
            gate.arrived()
            for _ in range(3):
                assert second.ask("/pid").status == 200
            gate.open()
            assert first.receive().status == 200
            for _ in range(20):
                assert second.ask("/pid").status == 200
            first, second = second, first


def test_a_connection_says_its_end_while_all_threads_are_busy_and_is_closed_after(
    start: Start, gates: Callable[[], Gate]
) -> None:
    server = serve(start, 2)
    with Connection(server.port) as one, Connection(server.port) as other:
        with Connection(server.port) as gone:
            assert gone.ask("/pid").status == 200
            shut = []
            for connection in (one, other):
                gate = gates()
                connection.send(gate.target)
                shut.append(gate.arrived())
        for gate, connection in zip(shut, (one, other), strict=True):
            gate.open()
            assert connection.receive().status == 200
        (worker,) = server.workers()
        until(
            lambda: len(tcp_states(worker.pid, server.port)) == 3,
            "the listener and two connections",
        )


def test_ordered_to_leave_it_answers_what_its_threads_serve(
    start: Start, gates: Callable[[], Gate]
) -> None:
    server = serve(start, 3)
    with Connection(server.port) as one, Connection(server.port) as other:
        shut = []
        for connection in (one, other):
            gate = gates()
            connection.send(gate.target)
            shut.append(gate.arrived())
        (worker,) = server.workers()
        server.ask("reload")
        server.wait("worker leaving", pid=worker.pid)
        assert int(server.get("/pid")[1]) != worker.pid  # its successor is at work
        for gate, connection in zip(shut, (one, other), strict=True):
            gate.open()
            answer = connection.receive()
            assert int(answer.body) == worker.pid
            assert not answer.last
            # The connection goes on in the next generation.
            assert int(connection.ask("/pid").body) != worker.pid
        server.wait("worker exited", pid=worker.pid)
