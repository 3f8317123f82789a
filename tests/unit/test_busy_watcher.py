"""What a worker that never rests gives to one that does. The rest of it is in tests/system."""

from collections.abc import Callable
from typing import Any

import pytest

from prefork.worker.schedule.accept import MainAcceptor
from prefork.worker.schedule.busy_watcher import Watcher
from prefork.worker.schedule.pending_work import PendingWork

Work = tuple[int, float]


class Parked:
    """A poller in which all connections are ready."""

    def __init__(self, count: int) -> None:
        self.parked = dict.fromkeys(range(100, 100 + count))

    def fileno(self) -> int:
        return -1

    def wait(self, now: float, limit: float) -> list[tuple[int, int]]:
        return [(fd, 1) for fd in self.parked]


class Service:
    def __init__(self, count: int) -> None:
        self.poller = Parked(count)
        self.given: list[int] = []

    def hand_over(self, fd: int, slot: int | None = None) -> bool:
        assert slot == 7
        self.given.append(fd)
        return True

    def hand_over_all(self) -> bool:
        return False


class Handover:
    """What the scoreboard says, as a test wants it."""

    inbox = object()
    has_no_sibling = False
    receiving_paused = False
    has_idle_receiver = False
    has_receiver = False
    awaits_answer = False

    def __init__(self) -> None:
        self.own: Work = (0, 0.0)
        self.other: Work = (0, 0.0)

    def work_done(self) -> tuple[Work, dict[int, Work]]:
        return self.own, {7: self.other}


Play = Callable[..., list[int]]


@pytest.fixture
def play() -> Play:
    """Half a second of a worker and its sibling, a look each 5 ms; what was given away."""

    def play(
        own: int, other: int, seconds: float, *, busy: int = 10, parked: int = 40
    ) -> list[int]:
        """`own`, `other`: requests in a tick; `seconds` in the application for the other; `busy`:
        at how many of ten looks this worker is."""
        pending, handover, service = PendingWork(), Handover(), Service(parked)
        watcher = Watcher(  # without its thread
            *(pending, MainAcceptor(), handover, None, service),  # type: ignore[arg-type]
            wake=lambda: None,
            inbox_stuck=lambda: None,
            sibling_silent=lambda slot: True,
        )
        for tick in range(100):
            now = 1000 + tick * 0.005
            pending.serving_since = now - 0.001 if tick % 10 < busy else 0.0
            handover.own = (handover.own[0] + own, 0.0)
            handover.other = (handover.other[0] + other, handover.other[1] + seconds)
            watcher._look(now)
        return service.given

    return play


def test_an_eighth_at_a_time(play: Play) -> None:
    given = play(own=10, other=0, seconds=0.0)
    assert given
    assert len(given) % 5 == 0
    assert len(play(own=10, other=0, seconds=0.0, parked=3)) == len(given) // 5


@pytest.mark.parametrize(
    "case",
    [
        {"own": 10, "other": 7, "seconds": 0.0},
        {"own": 10, "other": 10, "seconds": 0.0},
        {"own": 10, "other": 0, "seconds": 0.004},
        {"own": 10, "other": 0, "seconds": 0.0, "busy": 7},
    ],
    ids=["nearly as much", "as much", "long calls", "time to rest"],
)
def test_a_sibling_that_does_enough_is_given_nothing(play: Play, case: dict[str, Any]) -> None:
    assert play(**case) == []
