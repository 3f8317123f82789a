"""Who has the place in the epoll, and who gets it next."""

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from prefork.scoreboard import Scoreboard, ThreadRecord
from prefork.worker.schedule.threads import LeaderFollowers

PATIENCE = 30.0
Turn = tuple[ThreadRecord, threading.Event]


class Stage:
    """A crew whose threads tell when they lead, and go on when they are let go."""

    def __init__(self, threads: int, *, slow: bool) -> None:
        board = Scoreboard()
        self.records = [board.record(0, number) for number in range(threads)]
        self.woken = threading.Semaphore(0)
        self.crew = LeaderFollowers(self.records, self.woken.release, slow=slow)
        self.leads: SimpleQueue[Turn] = SimpleQueue()
        self.work: Callable[[ThreadRecord], None] = lambda record: None
        self.turns: list[threading.Event] = []
        self.over = False
        self.crew.start(self._lead)

    @property
    def main(self) -> ThreadRecord:
        return self.records[0]

    def _lead(self, record: ThreadRecord) -> None:
        go = threading.Event()
        self.turns.append(go)
        self.leads.put((record, go))
        go.wait(PATIENCE)
        if self.over:
            threading.Event().wait()  # a daemon: it ends with the process
        self.work(record)

    def leader(self) -> Turn:
        return self.leads.get(timeout=PATIENCE)


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(threads: int = 3, *, slow: bool = False) -> Stage:
        made.append(Stage(threads, slow=slow))
        return made[-1]

    yield make
    for one in made:
        one.over = True
        for turn in one.turns:
            turn.set()


Make = Callable[..., Stage]


def test_the_main_thread_begins_and_a_short_call_changes_nothing(stage: Make) -> None:
    crew = stage().crew
    before = crew.holder
    assert before is not None
    for _ in range(100):
        crew.enter(before)
        crew.leave(0.0001)
    assert crew.holder is before
    assert crew.idle


def test_where_calls_are_slow_another_takes_the_place_at_once(stage: Make) -> None:
    one = stage(slow=True)
    one.crew.enter(one.main)
    record, _ = one.leader()
    assert record is not one.main
    assert one.crew.holder is record


def test_it_learns_that_calls_are_slow_and_that_they_are_not(stage: Make) -> None:
    one = stage()
    crew = one.crew
    crew.leave(0.1)
    crew.enter(one.main)
    record, _ = one.leader()
    assert crew.holder is record
    for _ in range(50):
        crew.leave(0.0001)
    crew.enter(record)
    assert crew.holder is record


def test_one_that_takes_long_is_relieved_as_long_as_somebody_is_free(stage: Make) -> None:
    one = stage(3)
    assert one.crew.relieve()
    first, _ = one.leader()
    assert one.crew.relieve()
    second, _ = one.leader()
    assert {first, second} == set(one.records[1:])
    assert not one.crew.relieve()
    assert one.crew.holder is second


def test_with_nobody_free_the_first_that_comes_back_has_the_place(stage: Make) -> None:
    one = stage(2, slow=True)
    crew = one.crew
    one.work = crew.enter
    crew.enter(one.main)
    record, go = one.leader()
    go.set()  # it calls the application too, and nobody is left; then it comes back
    again, _ = one.leader()
    assert again is record
    assert crew.holder is record


def test_the_main_thread_gets_the_place_when_it_comes_back(stage: Make) -> None:
    one = stage(2)
    assert one.crew.relieve()
    _, go = one.leader()
    back = threading.Thread(target=one.crew.take)
    back.start()
    assert one.woken.acquire(timeout=PATIENCE)  # so that the other leaves the epoll
    assert one.crew.main_waits
    go.set()
    back.join(PATIENCE)
    assert not back.is_alive()
    assert one.crew.holder is one.main
    assert one.crew.idle
    assert not one.crew.main_waits


def test_the_main_thread_comes_before_others_that_are_free(stage: Make) -> None:
    one = stage(3)
    assert one.crew.relieve()
    one.leader()
    back = threading.Thread(target=one.crew.take)
    back.start()
    assert one.woken.acquire(timeout=PATIENCE)
    assert one.crew.relieve()  # the other is in the application
    back.join(PATIENCE)
    assert one.crew.holder is one.main


def test_who_was_relieved_says_when_it_is_free_to_whom_that_matters(stage: Make) -> None:
    one = stage(3)
    one.crew.report = True
    assert one.crew.relieve()
    _, go = one.leader()
    assert one.crew.relieve()
    one.leader()
    assert not one.crew.idle
    go.set()
    assert one.woken.acquire(timeout=PATIENCE)
