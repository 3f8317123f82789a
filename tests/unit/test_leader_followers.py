"""Which thread leads, and which one is promoted next."""

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import pytest

from prefork.scoreboard import Scoreboard, ThreadRecord
from prefork.worker.schedule.threads import LeaderFollowers
from tests.support.waiting import PATIENCE

Turn = tuple[ThreadRecord, threading.Event]


class Stage:
    """Threads that report when they lead, and go on when they are let go."""

    def __init__(self, threads: int, *, slow: bool) -> None:
        board = Scoreboard()
        self.records = [board.record(0, number) for number in range(threads)]
        self.woken = threading.Semaphore(0)
        self.threads = LeaderFollowers(self.records, self.woken.release, slow=slow)
        self.leads: SimpleQueue[Turn] = SimpleQueue()
        self.work: Callable[[ThreadRecord], None] = lambda record: None
        self.turns: list[threading.Event] = []
        self.over = False
        self.threads.start(self._lead)

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
    threads = stage().threads
    before = threads.leader
    assert before is not None
    for _ in range(100):
        threads.before_call(before)
        threads.after_call(0.0001)
    assert threads.leader is before
    assert threads.all_free


def test_if_calls_are_slow_another_leads_at_once(stage: Make) -> None:
    one = stage(slow=True)
    one.threads.before_call(one.main)
    record, _ = one.leader()
    assert record is not one.main
    assert one.threads.leader is record


def test_it_learns_that_calls_are_slow_and_that_they_are_not(stage: Make) -> None:
    one = stage()
    threads = one.threads
    threads.after_call(0.1)
    threads.before_call(one.main)
    record, _ = one.leader()
    assert threads.leader is record
    for _ in range(50):
        threads.after_call(0.0001)
    threads.before_call(record)
    assert threads.leader is record


def test_a_leader_that_takes_long_is_replaced_as_long_as_a_thread_is_free(stage: Make) -> None:
    one = stage(3)
    assert one.threads.promote_follower()
    first, _ = one.leader()
    assert one.threads.promote_follower()
    second, _ = one.leader()
    assert {first, second} == set(one.records[1:])
    assert not one.threads.promote_follower()
    assert one.threads.leader is second


def test_with_no_free_thread_the_first_that_comes_back_leads(stage: Make) -> None:
    one = stage(2, slow=True)
    threads = one.threads
    one.work = threads.before_call
    threads.before_call(one.main)
    record, go = one.leader()
    go.set()  # it calls the application too, and nobody is left; then it comes back
    again, _ = one.leader()
    assert again is record
    assert threads.leader is record


def test_the_main_thread_leads_when_it_comes_back(stage: Make) -> None:
    one = stage(2)
    assert one.threads.promote_follower()
    _, go = one.leader()
    back = threading.Thread(target=one.threads.lead_from_main)
    back.start()
    assert one.woken.acquire(timeout=PATIENCE)  # so that the other leaves the epoll
    assert one.threads.main_waiting
    go.set()
    back.join(PATIENCE)
    assert not back.is_alive()
    assert one.threads.leader is one.main
    assert one.threads.all_free
    assert not one.threads.main_waiting


def test_the_main_thread_comes_before_others_that_are_free(stage: Make) -> None:
    one = stage(3)
    assert one.threads.promote_follower()
    one.leader()
    back = threading.Thread(target=one.threads.lead_from_main)
    back.start()
    assert one.woken.acquire(timeout=PATIENCE)
    assert one.threads.promote_follower()  # the other is in the application
    back.join(PATIENCE)
    assert one.threads.leader is one.main


def test_a_replaced_leader_wakes_the_main_thread_when_it_is_free(stage: Make) -> None:
    one = stage(3)
    one.threads.wake_when_free = True
    assert one.threads.promote_follower()
    _, go = one.leader()
    assert one.threads.promote_follower()
    one.leader()
    assert not one.threads.all_free
    go.set()
    assert one.woken.acquire(timeout=PATIENCE)
