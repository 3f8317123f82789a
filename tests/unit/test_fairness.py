"""Which worker may take the connection that waits in a listener's queue."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from prefork.scoreboard import Scoreboard, ThreadRecord
from prefork.worker.schedule import fairness
from prefork.worker.schedule.accept import MainAcceptor
from prefork.worker.schedule.fairness import AcceptFairness
from prefork.worker.schedule.handover import Handover
from prefork.worker.schedule.worker_listener import WorkerListener

KIND = 5
NUMBER = 3
"""Of the listener."""


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def connect(listening: socket.socket) -> Iterator[Callable[[], None]]:
    made = []
    yield lambda: made.append(socket.create_connection(listening.getsockname()))
    for each in made:
        each.close()


class Worker:
    """One of two."""

    def __init__(self, board: Scoreboard, slot: int, listening: socket.socket) -> None:
        handover = Handover(board, slot, 1)
        fds = [one.detach() for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
        handover.set_inboxes(KIND, (1 - slot,), fds, own=True)
        handover.start_receiving()
        self.handover = handover
        self.record: ThreadRecord = board.record(slot, 0)
        self.fairness = AcceptFairness(listening, board.accept_flags(slot), handover, NUMBER)


@pytest.fixture
def workers(listening: socket.socket) -> Iterator[tuple[Worker, Worker]]:
    board = Scoreboard()
    pair = Worker(board, 0, listening), Worker(board, 1, listening)
    yield pair
    for each in pair:
        each.handover.after_fork_in_child()


Workers = tuple[Worker, Worker]


@pytest.fixture(autouse=True)
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine changes nothing."""
    monkeypatch.setattr(fairness, "_GRACE", 3600.0)
    monkeypatch.setattr(fairness, "_NAPS", 10**9)


def test_a_connection_that_no_sibling_waits_for_is_for_all(
    workers: Workers, connect: Callable[[], None]
) -> None:
    one, _ = workers
    assert not one.fairness.may_take()
    one.fairness.yield_to_woken()
    connect()
    assert one.fairness.may_take()
    one.fairness.yield_to_woken()


def test_a_connection_is_for_the_sibling_that_waited(
    workers: Workers, connect: Callable[[], None], listening: socket.socket
) -> None:
    one, other = workers
    other.fairness.set_waiting()
    connect()
    assert not one.fairness.may_take()
    connect()
    assert one.fairness.may_take(), "the other can take one only"
    listening.accept()[0].close()
    assert not one.fairness.may_take()
    other.fairness.clear_waiting()
    assert one.fairness.may_take()


def test_a_worker_yields_to_the_one_that_was_woken(
    workers: Workers, connect: Callable[[], None], listening: socket.socket
) -> None:
    one, other = workers
    other.fairness.set_waiting()
    connect()
    passed = threading.Thread(target=one.fairness.yield_to_woken, daemon=True)
    passed.start()
    passed.join(0.05)
    assert passed.is_alive()
    listening.accept()[0].close()
    passed.join(30)
    assert not passed.is_alive()


def test_its_own_flag_and_a_busy_or_stopping_sibling_do_not_count(
    workers: Workers, connect: Callable[[], None]
) -> None:
    one, other = workers
    connect()
    one.fairness.set_waiting()
    assert one.fairness.may_take()
    other.fairness.set_waiting()
    other.record.start(1.0, b"GET /")
    assert one.fairness.may_take(), "an acceptor thread of a busy worker"
    other.record.end(2.0)
    assert not one.fairness.may_take()
    other.handover.stop_receiving()
    assert one.fairness.may_take()


def test_no_worker_waits_for_ever_for_a_sibling(
    workers: Workers, connect: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = workers
    other.fairness.set_waiting()
    connect()
    assert not one.fairness.may_take()
    monkeypatch.setattr(fairness, "_GRACE", 0.0)
    monkeypatch.setattr(fairness, "_NAPS", 3)
    assert one.fairness.may_take()
    one.fairness.yield_to_woken()


def test_the_flag_is_set_while_the_main_thread_waits(
    workers: Workers, connect: Callable[[], None], listening: socket.socket
) -> None:
    one, other = workers
    listener = WorkerListener(listening.dup())
    listener.fairness = one.fairness
    counts = []
    connect()
    main, accept = MainAcceptor(), listener.sock._accept  # type: ignore[attr-defined]

    class Listener:
        def _accept(self) -> tuple[int, object]:
            counts.append(other.handover.count_waiting(NUMBER))
            return accept()  # type: ignore[no-any-return]

    sock, listener.sock = listener.sock, Listener()  # type: ignore[assignment]
    got: list[tuple[int, object]] = []
    assert main.accept(listener, got) is None
    assert (counts, other.handover.count_waiting(NUMBER)) == ([1], 0)
    socket.socket(fileno=got[0][0]).close()
    sock.close()
