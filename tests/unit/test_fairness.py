"""Whose connection it is that waits in the queue of a listener."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from prefork.scoreboard import Scoreboard, ThreadRecord
from prefork.worker.schedule import fairness
from prefork.worker.schedule.accept import MainAcceptor, WorkerListener
from prefork.worker.schedule.fairness import AcceptFairness
from prefork.worker.schedule.handover import Handover

KIND = 5
NUMBER = 3
"""Of the listener."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def connect(listener: socket.socket) -> Iterator[Callable[[], None]]:
    made = []
    yield lambda: made.append(socket.create_connection(listener.getsockname()))
    for each in made:
        each.close()


class Worker:
    """One of two."""

    def __init__(self, board: Scoreboard, slot: int, listener: socket.socket) -> None:
        handover = Handover(board, slot, 1)
        fds = [one.detach() for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
        handover.learn(KIND, (1 - slot,), fds, own=True)
        handover.open()
        self.handover = handover
        self.record: ThreadRecord = board.record(slot, 0)
        self.turn = AcceptFairness(listener, board.accept_flags(slot), handover, NUMBER)


@pytest.fixture
def workers(listener: socket.socket) -> Iterator[tuple[Worker, Worker]]:
    board = Scoreboard()
    pair = Worker(board, 0, listener), Worker(board, 1, listener)
    yield pair
    for each in pair:
        each.handover.in_child()


Workers = tuple[Worker, Worker]


@pytest.fixture(autouse=True)
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine changes nothing."""
    monkeypatch.setattr(fairness, "_PATIENCE", 3600.0)
    monkeypatch.setattr(fairness, "_NAPS", 10**9)


def test_what_nobody_waits_for_is_for_all(workers: Workers, connect: Callable[[], None]) -> None:
    one, _ = workers
    assert not one.turn.mine()
    one.turn.let_pass()
    connect()
    assert one.turn.mine()
    one.turn.let_pass()


def test_a_connection_is_for_the_sibling_that_waited(
    workers: Workers, connect: Callable[[], None], listener: socket.socket
) -> None:
    one, other = workers
    other.turn.begin()
    connect()
    assert not one.turn.mine()
    connect()
    assert one.turn.mine(), "the other can take one only"
    listener.accept()[0].close()
    assert not one.turn.mine()
    other.turn.end()
    assert one.turn.mine()


def test_one_that_waits_lets_the_woken_one_pass(
    workers: Workers, connect: Callable[[], None], listener: socket.socket
) -> None:
    one, other = workers
    other.turn.begin()
    connect()
    passed = threading.Thread(target=one.turn.let_pass, daemon=True)
    passed.start()
    passed.join(0.05)
    assert passed.is_alive()
    listener.accept()[0].close()
    passed.join(30)
    assert not passed.is_alive()


def test_its_own_place_and_a_busy_or_leaving_sibling_do_not_count(
    workers: Workers, connect: Callable[[], None]
) -> None:
    one, other = workers
    connect()
    one.turn.begin()
    assert one.turn.mine()
    other.turn.begin()
    other.record.start(1.0, b"GET /")
    assert one.turn.mine(), "an acceptor thread of a busy worker"
    other.record.end(2.0)
    assert not one.turn.mine()
    other.handover.shut()
    assert one.turn.mine()


def test_nobody_waits_for_ever_for_a_sibling(
    workers: Workers, connect: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = workers
    other.turn.begin()
    connect()
    assert not one.turn.mine()
    monkeypatch.setattr(fairness, "_PATIENCE", 0.0)
    monkeypatch.setattr(fairness, "_NAPS", 3)
    assert one.turn.mine()
    one.turn.let_pass()


def test_a_place_is_told_while_it_is_held(
    workers: Workers, connect: Callable[[], None], listener: socket.socket
) -> None:
    one, other = workers
    door = WorkerListener(listener.dup())
    door.turn = one.turn
    told = []
    connect()
    place, accept = MainAcceptor(), door.sock._accept  # type: ignore[attr-defined]

    class Listener:
        def _accept(self) -> tuple[int, object]:
            told.append(other.handover.waiting(NUMBER))
            return accept()  # type: ignore[no-any-return]

    sock, door.sock = door.sock, Listener()  # type: ignore[assignment]
    got: list[tuple[int, object]] = []
    assert place.accept(door, got) is None
    assert (told, other.handover.waiting(NUMBER)) == ([1], 0)
    socket.socket(fileno=got[0][0]).close()
    sock.close()
