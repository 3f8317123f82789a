"""How many events a turn of an event loop takes, with a real epoll."""

import os
import select
from collections import Counter

import pytest

from prefork.worker.schedule.turn_size import MOST, TURN, TurnSize


def serve(events: list[tuple[int, int]], each: float, size: TurnSize, served: Counter[int]) -> None:
    """A turn in which each event takes so many seconds."""
    count = 0
    for fd, _ in events:
        served[fd] += 1
        count += 1
        if count * each > TURN:
            break
    size.ended(len(events), count, count * each)


@pytest.mark.parametrize("clients", [1, 3, 31, 32, 33, 200])
@pytest.mark.parametrize("each", [TURN * 5, TURN / 3, TURN / 10, TURN / 40, TURN / 1000])
def test_clients_that_are_always_ready_are_served_alike(clients: int, each: float) -> None:
    size, served = TurnSize(), Counter[int]()
    with select.epoll() as epoll:
        fds = [os.eventfd(1) for _ in range(clients)]
        try:
            for fd in fds:
                epoll.register(fd, select.EPOLLIN)
            for _ in range(20 * clients):
                serve(epoll.poll(0, size.events), each, size, served)
        finally:
            for fd in fds:
                os.close(fd)
    counts = [served[fd] for fd in fds]
    # Once it has found its size; before that some are taken and not served.
    assert max(counts) - min(counts) <= 4, counts


def test_it_grows_again_when_there_is_time() -> None:
    size = TurnSize()
    size.ended(MOST, 1, TURN * 2)
    assert size.events == 1
    size.ended(1, 1, TURN * 0.6)
    assert size.events == 1
    for _ in range(10):
        size.ended(size.events, size.events, TURN / 10)
    assert size.events == MOST
