"""Parked connections: which are ready, which are late, and which thread owns them."""

import contextlib
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from time import monotonic

import pytest

from prefork.worker.schedule.poller import (
    EPOLLIN,
    EPOLLOUT,
    ConnectionPoller,
    SharedConnectionPoller,
)


@dataclass(eq=False)
class Parked:
    sock: socket.socket
    peer: socket.socket
    deadline: float = 0.0
    events: int = 0
    wheel_time: float = inf

    def __post_init__(self) -> None:
        self.fd = self.sock.fileno()


@pytest.fixture(params=[ConnectionPoller, SharedConnectionPoller])
def poller(request: pytest.FixtureRequest) -> ConnectionPoller[Parked]:
    made: ConnectionPoller[Parked] = request.param()
    return made


@pytest.fixture
def made() -> Iterator[list[Parked]]:
    connections = []
    for _ in range(40):
        ours, theirs = socket.socketpair()
        connections.append(Parked(ours, theirs))
    yield connections
    for connection in connections:
        connection.sock.close()
        connection.peer.close()


def ready(poller: ConnectionPoller[Parked]) -> dict[int, int]:
    return dict(poller.wait(0.0, 0.0))


def test_nothing_is_ready_until_a_byte_comes(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    first, second = made[:2]
    poller.park(first, EPOLLIN)
    poller.park(second, EPOLLIN)
    assert ready(poller) == {}
    second.peer.send(b"x")
    assert ready(poller) == {second.fd: EPOLLIN}


def test_a_connection_that_waits_to_write_is_ready_when_there_is_room(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    connection = made[0]
    connection.sock.setblocking(False)
    connection.peer.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            connection.sock.send(b"x" * 65536)
    poller.park(connection, EPOLLOUT)
    assert ready(poller) == {}
    with contextlib.suppress(BlockingIOError):
        while True:
            connection.peer.recv(1 << 20)
    assert ready(poller) == {connection.fd: EPOLLOUT}


def test_a_connection_is_claimed_once(poller: ConnectionPoller[Parked], made: list[Parked]) -> None:
    connection = made[0]
    poller.park(connection, EPOLLIN)
    assert poller.claim(connection.fd) is connection
    assert poller.claim(connection.fd) is None
    assert not poller.parked


def test_parked_anew_it_waits_for_what_it_waits_for_now(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    connection = made[0]
    connection.peer.send(b"x")
    poller.park(connection, EPOLLIN)
    assert ready(poller) == {connection.fd: EPOLLIN}
    poller.claim(connection.fd)
    poller.park(connection, EPOLLOUT)
    assert ready(poller) == {connection.fd: EPOLLOUT}
    poller.claim(connection.fd)
    poller.park(connection, EPOLLIN)
    assert ready(poller) == {connection.fd: EPOLLIN}


def test_an_unregistered_connection_has_no_events(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    connection = made[0]
    poller.park(connection, EPOLLIN)
    poller.claim(connection.fd)
    poller.unregister(connection)
    connection.peer.send(b"x")
    assert ready(poller) == {}
    poller.unregister(connection)  # as often as one likes
    poller.park(connection, EPOLLIN)
    assert ready(poller) == {connection.fd: EPOLLIN}


def test_a_removed_connection_leaves_nothing_behind(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    """Not even where another process still has it open (epoll(7), question 6)."""
    connection = made[0]
    connection.deadline = 1.0
    poller.park(connection, EPOLLIN)
    shared = connection.sock.dup()
    poller.claim(connection.fd)
    poller.remove(connection)
    connection.sock.close()
    with shared:
        connection.peer.send(b"x")
        assert ready(poller) == {}
    assert poller.claim_expired(100.0) == []


# Deadlines.


def test_no_connection_is_late_before_its_deadline_and_each_is_soon_after(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    """The wheel has a quarter of a second: late by that much at most, early never."""
    rng = random.Random(1)
    for connection in made:
        connection.deadline = 1000 + rng.uniform(0, 5)
        poller.park(connection, EPOLLIN)
    now, ended = 999.0, set()
    while now < 1006:
        for connection in poller.claim_expired(now):
            assert connection.deadline <= now <= connection.deadline + 0.25 + 0.01
            assert connection not in ended
            ended.add(connection)
        now += 0.01
    assert ended == set(made)
    assert not poller.parked


def test_a_deadline_that_has_moved_is_the_one_that_counts(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    later, sooner, never = made[:3]
    for connection in (later, sooner, never):
        connection.deadline = 10.0
        poller.park(connection, EPOLLIN)
    for connection, deadline in ((later, 20.0), (sooner, 5.0), (never, 0.0)):
        poller.claim(connection.fd)
        connection.deadline = deadline
        poller.park(connection, EPOLLIN)
    assert poller.claim_expired(6.0) == [sooner]
    assert poller.claim_expired(19.9) == []
    assert poller.claim_expired(20.3) == [later]
    assert poller.claim_expired(1e6) == []
    assert poller.parked == {never.fd: never}


def test_what_is_being_served_is_not_late(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    connection = made[0]
    connection.deadline = 10.0
    poller.park(connection, EPOLLIN)
    poller.claim(connection.fd)
    assert poller.claim_expired(50.0) == []
    connection.deadline = 60.0
    poller.park(connection, EPOLLIN)
    assert poller.claim_expired(59.9) == []
    assert poller.claim_expired(60.3) == [connection]


def test_a_descriptor_used_again_has_its_own_deadline(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    old, peer = socket.socketpair()
    first = Parked(old, peer, deadline=10.0)
    poller.park(first, EPOLLIN)
    number = first.fd
    poller.claim(number)
    poller.remove(first)
    old.close()
    new, other = socket.socketpair()
    second = Parked(new, other, deadline=100.0)
    with new, other, peer:
        assert second.fd == number
        poller.park(second, EPOLLIN)
        assert poller.claim_expired(50.0) == []
        assert poller.claim_expired(100.3) == [second]


def test_it_waits_no_longer_than_to_the_next_deadline(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    connection = made[0]
    connection.deadline = 10.0
    poller.park(connection, EPOLLIN)
    # Without a limit, and with nothing to come: these return, or the test hangs.
    assert poller.wait(10.2) == []
    assert poller.wait(1e6) == []
    assert poller.claim_expired(10.3) == [connection]


def test_with_a_limit_it_comes_back_all_the_same(poller: ConnectionPoller[Parked]) -> None:
    assert poller.wait(0.0, 0.0) == []


def test_all_that_is_ready_is_returned_by_one_wait(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    for connection in made:
        poller.park(connection, EPOLLIN)
        connection.peer.send(b"x")
    assert ready(poller) == {connection.fd: EPOLLIN for connection in made}


def test_a_watched_descriptor_is_reported_and_is_no_connection(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    watched = made[0]
    poller.watch(watched.fd)
    watched.peer.send(b"x")
    assert ready(poller) == {watched.fd: EPOLLIN}
    assert ready(poller) == {watched.fd: EPOLLIN}, "until it is read"
    assert poller.claim(watched.fd) is None
    assert ready(poller) == {watched.fd: EPOLLIN}


def test_an_edge_is_reported_once(poller: ConnectionPoller[Parked], made: list[Parked]) -> None:
    watched = made[0]
    poller.watch(watched.fd, edge=True)
    watched.peer.send(b"x")
    assert ready(poller) == {watched.fd: EPOLLIN}
    assert ready(poller) == {}
    watched.peer.send(b"x")
    assert ready(poller) == {watched.fd: EPOLLIN}


def test_only_the_one_that_is_meant_is_claimed(
    poller: ConnectionPoller[Parked], made: list[Parked]
) -> None:
    gone = made[0]
    poller.park(gone, EPOLLIN)
    assert poller.claim_connection(gone)
    assert not poller.claim_connection(gone), "somebody has it"
    poller.remove(gone)
    successor = Parked(gone.sock, gone.peer)  # of the same number
    poller.park(successor, EPOLLIN)
    assert not poller.claim_connection(gone)
    gone.peer.send(b"x")
    assert ready(poller) == {successor.fd: EPOLLIN}
    assert poller.claim_connection(successor)


# Several threads: the one that waits is told of what another serves.


@pytest.fixture
def shared() -> SharedConnectionPoller[Parked]:
    return SharedConnectionPoller()


def told_of_what_another_serves(shared: SharedConnectionPoller[Parked], connection: Parked) -> None:
    shared.park(connection, EPOLLIN)
    assert shared.claim(connection.fd) is connection
    connection.peer.send(b"x")
    assert ready(shared) == {connection.fd: EPOLLIN}
    assert shared.claim(connection.fd) is None


def test_what_another_thread_serves_is_reported_once(
    shared: SharedConnectionPoller[Parked], made: list[Parked]
) -> None:
    connection = made[0]
    told_of_what_another_serves(shared, connection)
    assert ready(shared) == {}
    assert shared.claim(connection.fd) is None, "one that has it from an earlier look"
    connection.peer.close()
    assert ready(shared) == {}, "not of its end either"
    shared.park(connection, EPOLLIN)
    assert connection.fd in ready(shared)
    assert shared.claim(connection.fd) is connection


def test_parked_anew_it_waits_for_something_else(
    shared: SharedConnectionPoller[Parked], made: list[Parked]
) -> None:
    connection = made[0]
    told_of_what_another_serves(shared, connection)
    shared.park(connection, EPOLLOUT)
    assert ready(shared) == {connection.fd: EPOLLOUT}


@pytest.mark.parametrize("way", ["unregister", "remove"])
def test_it_ends_or_leaves_for_another_worker(
    shared: SharedConnectionPoller[Parked], made: list[Parked], way: str
) -> None:
    connection = made[0]
    told_of_what_another_serves(shared, connection)
    getattr(shared, way)(connection)
    assert connection.events == 0
    assert ready(shared) == {}
    shared.park(connection, EPOLLIN)  # the next with its number
    assert ready(shared) == {connection.fd: EPOLLIN}


def test_nothing_is_lost_among_threads(
    shared: SharedConnectionPoller[Parked], made: list[Parked]
) -> None:
    """Each byte is read, whoever is told of it, and however often."""
    connections, bytes_each = made[:4], 300
    read = Counter[int]()
    for connection in connections:
        connection.sock.setblocking(False)
        shared.park(connection, EPOLLIN)

    def serve() -> None:
        while sum(read.values()) < len(connections) * bytes_each and monotonic() < end:
            for fd, _ in shared.wait(0.0, 0.01):
                connection = shared.claim(fd)
                if connection is None:
                    continue
                with contextlib.suppress(BlockingIOError):
                    read[fd] += len(connection.sock.recv(1))
                if read[fd] % 7 == 0:
                    shared.unregister(connection)
                shared.park(connection, EPOLLIN)

    end = monotonic() + 30
    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(bytes_each):
        for connection in connections:
            connection.peer.send(b"x")
    for thread in threads:
        thread.join()
    assert read == dict.fromkeys((connection.fd for connection in connections), bytes_each)
