"""When a loop counts as blocked, and for how long it was, with an invented clock."""

import sys
from collections.abc import Iterator
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from prefork.master.observe.blocked_loops import BlockedLoops, blocked_for
from prefork.master.pool.ledger import Ledger
from prefork.master.pool.plan import WorkerState


class Worker:
    """In place of a `prefork.master.processes.children.Child`."""

    slot = 0
    pid = 7
    generation = SimpleNamespace(number=1)
    log_fields = MappingProxyType({"slot": 0, "pid": 7, "generation": 1})
    worker = SimpleNamespace(state=WorkerState.READY)


CHILD: Any = Worker()


class OneChild:
    """In place of `prefork.master.processes.children.Children`."""

    def __init__(self) -> None:
        self.turned = 0.0
        self.paused = (0.0, 0.0)
        self.runs = True
        self.stacks = self

    def __iter__(self) -> Iterator[Any]:
        return iter([CHILD])

    def find(self, pid: int) -> Any:
        return CHILD

    def beat(self, child: Any) -> float:
        return self.turned

    def pause(self, child: Any) -> tuple[float, float]:
        return self.paused

    def calls(self, child: Any) -> list[Any]:
        return [SimpleNamespace(started=1.0 if self.runs else 0.0, line="GET /")]

    def request(self, child: Any, done: Any) -> None:
        done("a stack")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    logged: list[tuple[str, dict[str, Any]]] = []
    module = sys.modules[BlockedLoops.__module__]
    monkeypatch.setattr(
        module.logs, "event", lambda level, name, **fields: logged.append((name, fields))
    )
    return logged


def test_a_block_is_logged_once_and_its_end_with_the_time_that_the_loop_knows(
    events: list[tuple[str, dict[str, Any]]],
) -> None:
    children: Any = OneChild()
    ledger = Ledger()
    loops = BlockedLoops(children, ledger)
    children.turned = 10.0
    loops.run(11.0)
    assert not events
    for now in (12.5, 13.5, 14.5):
        loops.run(now)
    assert [(name, fields["elapsed"]) for name, fields in events] == [("loop blocked", 2.5)]
    assert blocked_for(children, CHILD, 14.5) == 4.5
    children.turned, children.paused = 15.25, (10.0, 14.75)
    loops.run(15.5)
    assert blocked_for(children, CHILD, 15.5) == 0.0
    (event,) = events[1:]
    assert (event[0], event[1]["elapsed"]) == ("loop turns again", 4.75)
    assert ledger.loop_blocks == 1


def test_a_loop_without_calls_has_nothing_to_turn_for(
    events: list[tuple[str, dict[str, Any]]],
) -> None:
    children: Any = OneChild()
    children.turned, children.runs = 10.0, False
    BlockedLoops(children, Ledger()).run(1000.0)
    assert blocked_for(children, CHILD, 1000.0) == 0.0
    assert not events
