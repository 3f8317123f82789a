"""Queues that stay full, with real sockets and an invented clock."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from prefork import address, linux, logs
from prefork.listeners import Listener
from prefork.master.observe.listen_queues import QueueWatch

Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    events: Told = []
    monkeypatch.setattr(logs, "event", lambda level, name, **fields: events.append((name, fields)))
    return events


@pytest.fixture
def listener() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.listen(4)
        yield Listener(address.parse("127.0.0.1:0"), sock)


def fill(listener: Listener, count: int) -> list[socket.socket]:
    return [socket.create_connection(listener.sock.getsockname()) for _ in range(count)]


def test_a_queue_that_stays_above_the_share_is_reported_once(
    listener: Listener, told: Told
) -> None:
    watch = QueueWatch(lambda: [listener], lambda: 0.5)
    clients = fill(listener, 2)
    for now in (0.0, 2.0, 4.0):
        watch.run(now)
    assert told == []
    clients += fill(listener, 1)
    watch.run(6.0)
    assert told == []  # a burst, so far
    for now in (8.0, 10.0, 12.0):
        watch.run(now)
    assert told == [("listen queue fills up", {"address": listener.name, "depth": 3, "limit": 4})]
    accepted = listener.sock.accept()[0]
    watch.run(14.0)
    assert told[1:] == [
        ("listen queue is taken again", {"address": listener.name, "depth": 2, "limit": 4})
    ]
    for sock in (*clients, accepted):
        sock.close()


def test_it_looks_no_more_often_than_is_due(listener: Listener, told: Told) -> None:
    watch = QueueWatch(lambda: [listener], lambda: 0.5)
    clients = fill(listener, 4)
    watch.run(0.0)
    for _ in range(5):
        watch.run(1.9)
    assert told == []
    assert watch.due == 2.0
    for sock in clients:
        sock.close()


def test_without_a_share_queues_are_not_read(listener: Listener, told: Told) -> None:
    watch = QueueWatch(lambda: [listener], lambda: 0.0)
    watch.run(0.0)
    assert watch.due is None
    watch.generation_changed()
    assert watch.due == 0.0


def test_dropped_handshakes_are_reported_while_a_queue_is_full(
    listener: Listener, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = iter([5, 5, 7, 9])
    monkeypatch.setattr(linux, "listen_overflows", lambda: next(counted))
    watch = QueueWatch(lambda: [listener], lambda: 0.5)
    clients = fill(listener, 3)
    watch.run(0.0)
    watch.run(2.0)
    assert told[-1] == ("connections dropped", {"handshakes": 2})
    for _ in range(2):
        listener.sock.accept()[0].close()
    watch.run(4.0)
    # Somebody else's, as far as can be known.
    assert [name for name, _ in told] == [
        *("listen queue fills up", "connections dropped", "listen queue is taken again")
    ]
    for sock in clients:
        sock.close()
