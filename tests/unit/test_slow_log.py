"""Who is told in the slow log, and when it is looked again; without a process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from prefork import logs
from prefork.master.observe.slow_log import SlowLog
from prefork.master.pool.plan import WorkerState
from prefork.scoreboard import CallRecord


@dataclass(eq=False)
class Worker:
    """A child, as far as the slow log knows it."""

    limit: float
    running: list[CallRecord] = field(default_factory=list)
    slot: int = 0
    pid: int = 7
    forked_at: float = 95.0
    boot_timeout: float = 20.0
    worker: Any = None

    @property
    def log_fields(self) -> dict[str, int]:
        return {"slot": self.slot, "pid": self.pid, "generation": self.generation.number}

    @property
    def generation(self) -> Any:
        workers = SimpleNamespace(slow_request=self.limit, boot_timeout=self.boot_timeout)
        return SimpleNamespace(number=1, config=SimpleNamespace(workers=workers))


class Workers:
    def __init__(self, *workers: Worker) -> None:
        self.workers = list(workers)
        self.stacks = self

    def __iter__(self) -> Iterator[Worker]:
        return iter(self.workers)

    def calls(self, worker: Worker) -> list[CallRecord]:
        return worker.running

    def request(self, worker: Worker, done: Callable[[str], None]) -> None:
        done("the stacks")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    entries: list[tuple[str, float]] = []

    def event(level: str, name: str, **fields: Any) -> None:
        assert (level, name, fields["traceback"]) == ("warning", "slow request", "the stacks")
        entries.append((fields["request"], fields["elapsed"]))

    monkeypatch.setattr(logs, "event", event)
    return entries


def slow_log(worker: Worker, state: WorkerState = WorkerState.READY) -> SlowLog:
    worker.worker = SimpleNamespace(state=state)
    return SlowLog(Workers(worker))  # type: ignore[arg-type]


def call(line: str, started: float, thread: int = 0) -> CallRecord:
    return CallRecord(thread, started, line, "peer", "")


def test_a_worker_that_writes_what_is_about_to_be_late_makes_the_master_look_no_more_often(
    told: list[tuple[str, float]],
) -> None:
    worker = Worker(2.0, [call("GET /a", 98.0 + 1e-9)])
    log = slow_log(worker)
    log.run(100.0)
    assert log.due is not None
    assert log.due >= 100.02


def test_each_call_is_reported_once_also_of_two_in_one_worker(
    told: list[tuple[str, float]],
) -> None:
    worker = Worker(2.0, [call("GET /a", 99.0, 0), call("GET /b", 99.5, 1)])
    log = slow_log(worker)
    log.run(100.0)
    assert (told, log.due) == ([], 101.0)
    log.run(101.0)
    assert (told, log.due) == ([("GET /a", 2.0)], 101.5)
    log.run(101.5)
    assert told == [("GET /a", 2.0), ("GET /b", 2.0)]
    log.run(105.0)
    assert len(told) == 2
    worker.running = [call("GET /a", 103.0, 0)]  # the same request anew is another call
    log.run(107.0)
    assert told[2:] == [("GET /a", 4.0)]


def test_without_a_limit_calls_are_not_read(told: list[tuple[str, float]]) -> None:
    worker = Worker(0.0, [call("GET /a", 1.0)])
    log = slow_log(worker)
    log.run(100.0)
    assert (told, log.due) == ([], None)
    worker.limit = 1.0
    log.run(100.0)
    assert told == []
    log.worker_forked()
    log.run(100.0)
    assert told == [("GET /a", 99.0)]


def test_a_call_that_stood_still_is_measured_from_when_it_went_on(
    told: list[tuple[str, float]],
) -> None:
    worker = Worker(2.0, [call("GET /a", 99.5)])
    log = slow_log(worker)
    log.run(100.0)
    log.overslept(60.0)
    log.run(161.5)
    assert (told, log.due) == ([], 163.5)
    worker.running.append(call("GET /b", 161.75, 1))
    log.run(163.5)
    assert (told, log.due) == ([("GET /a", 64.0)], 163.75)
    log.run(163.75)
    assert told[1:] == [("GET /b", 2.0)]


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    events: list[tuple[str, float]] = []
    monkeypatch.setattr(
        logs, "event", lambda level, name, **fields: events.append((name, fields["elapsed"]))
    )
    return events


def test_a_boot_is_reported_once_it_has_used_half_its_time(boots: list[tuple[str, float]]) -> None:
    log = slow_log(Worker(0.0), WorkerState.BOOTING)
    log.run(100.0)
    assert (boots, log.due) == ([], 105.0)
    for now in (105.0, 106.0):
        log.worker_forked()
        log.run(now)
    assert (boots, log.due) == ([("worker boots slowly", 10.0)], None)


def test_a_boot_that_stood_still_is_measured_from_when_it_went_on(
    boots: list[tuple[str, float]],
) -> None:
    log = slow_log(Worker(0.0), WorkerState.BOOTING)
    log.run(100.0)
    log.overslept(60.0)
    log.run(165.0)
    assert (boots, log.due) == ([], 175.0)
    log.run(175.0)
    assert boots == [("worker boots slowly", 80.0)]


def test_a_boot_without_a_limit_may_take_its_time() -> None:
    log = slow_log(Worker(0.0, boot_timeout=0.0), WorkerState.BOOTING)
    log.run(1e6)
    assert log.due is None


def test_a_call_with_several_slow_pieces_is_reported_once(told: list[tuple[str, float]]) -> None:
    worker = Worker(1.0, [call("GET /a", 98.5)])
    log = slow_log(worker)
    log.run(100.0)
    begun = worker.running[0]
    for now, resumed, waiting in ((101.0, 100.5, 0.0), (103.0, 100.5, 0.0), (110.0, 103.0, 104.0)):
        worker.running = [begun._replace(resumed=resumed, waiting=waiting)]
        log.due = 0.0
        log.run(now)
    assert told == [("GET /a", 1.5)]


def test_a_call_that_waits_for_its_client_is_not_slow(told: list[tuple[str, float]]) -> None:
    worker = Worker(1.0, [call("GET /a", 90.0)._replace(resumed=95.0, waiting=95.0)])
    log = slow_log(worker)
    log.run(100.0)
    assert (told, log.due) == ([], 101.0)
