"""What `top` knows and how it looks, without a terminal."""

from typing import Any

import msgspec
import pytest

rich = pytest.importorskip("rich.console", reason="the extra `top` is not installed")

from prefork.control import CallStatus, QueueStatus, ServerStatus, WorkerStatus  # noqa: E402
from prefork.top.model import ORDERS, Model, ProcessUsage, TopSample  # noqa: E402
from prefork.top.view import draw  # noqa: E402


def worker(slot: int, **fields: Any) -> WorkerStatus:
    told: dict[str, Any] = {
        "pid": 100 + slot,
        "generation": 1,
        "state": "idle",
        "requests": 0,
        "age": 9.0,
    }
    return WorkerStatus(slot=slot, **(told | fields))


def server(*workers: WorkerStatus, **fields: Any) -> ServerStatus:
    told: dict[str, Any] = {
        "name": "shop",
        "pid": 1,
        "version": "1.0",
        "generation": 1,
        "uptime": 60.0,
        "listeners": [":80"],
        "target": len(workers),
        "reloading": False,
        "queues": [QueueStatus(listener=":80", depth=0, limit=10)],
    }
    return ServerStatus(workers=list(workers), **(told | fields))


def call(request: str, elapsed: float) -> CallStatus:
    return CallStatus(thread=0, request=request, peer="10.0.0.7", elapsed=elapsed)


def screen(model: Model, width: int = 80, height: int = 24) -> list[str]:
    console = rich.Console(width=width, height=height, color_system=None)
    with console.capture() as captured:
        console.print(draw(model, width, height))
    text: str = captured.get()
    return text.splitlines()


def test_what_changed_between_two_looks_makes_the_rates() -> None:
    model = Model(
        TopSample(10.0, server(worker(0, requests=100, mean=0.5)), {100: ProcessUsage(5, 1.0)})
    )
    after = server(worker(0, requests=300, mean=0.25), requests=200)
    model.add(TopSample(12.0, after, {100: ProcessUsage(7, 2.0)}))
    (row,) = model.rows()
    assert (model.rate, row.rate, row.memory, row.cpu) == (100.0, 100.0, 7, 0.5)
    assert row.mean == (300 * 0.25 - 100 * 0.5) / 200


def test_a_worker_in_the_place_of_another_begins_anew() -> None:
    model = Model(TopSample(1.0, server(worker(0, requests=100)), {}))
    model.add(
        TopSample(2.0, server(worker(0, pid=7, requests=3, mean=0.5)), {7: ProcessUsage(1, 50.0)})
    )
    (row,) = model.rows()
    assert (row.rate, row.cpu, row.mean) == (0.0, 0.0, 0.5)


def test_the_orders() -> None:
    workers = (
        worker(0, requests=5),
        worker(1, calls=[call("GET /", 3.0)], state="busy"),
        worker(2, requests=9),
    )
    look = TopSample(1.0, server(*workers), {100: ProcessUsage(1, 0.0), 102: ProcessUsage(9, 0.0)})
    model = Model(look)
    found = {}
    for _ in ORDERS:
        found[model.order] = [row.worker.slot for row in model.rows()]
        model.reorder()
    assert model.order == "slot"
    assert found == {
        "slot": [0, 1, 2],
        "time": [1, 0, 2],
        "requests": [2, 0, 1],
        "memory": [2, 0, 1],
        "cpu": [0, 1, 2],
    }


def test_the_choice_stays_with_its_worker_and_within_sight() -> None:
    model = Model(TopSample(1.0, server(worker(0), worker(1), worker(2)), {}))
    model.move(-1)
    assert model.selected == 0
    model.move(5)
    assert model.selected == 2
    model.stack = "some"
    model.add(TopSample(2.0, server(worker(0), worker(1)), {}))
    assert model.selected == 1
    assert model.stack is None


def test_no_line_is_wider_than_the_terminal_and_none_is_lost() -> None:
    busy = [
        worker(slot, pid=4_194_304, state="retiring", since=86000.0, requests=10**9, mean=12.0)
        for slot in range(40)
    ]
    busy = [msgspec.structs.replace(each, calls=[call("GET /" + "x" * 99, 9.9)]) for each in busy]
    model = Model(TopSample(1.0, server(*busy, name="n" * 70, reloading=True), {}))
    model.selected = 39
    lines = screen(model)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any(line.lstrip().startswith("39 ") for line in lines)
    assert "q quit" in lines[-1]
    model.stack = "\n".join(f"  line {number}" for number in range(100))
    lines = screen(model)
    assert len(lines) <= 24
    assert any("--stack 39 prints all" in line for line in lines)


def test_nothing_that_a_client_sends_drives_the_terminal() -> None:
    evil = call("GET /\x1b[2J[bold]\x9b1A", 1.0)
    model = Model(TopSample(1.0, server(worker(0, state="busy", calls=[evil])), {}))
    text = "\n".join(screen(model, width=120))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert r"\x1b[2J[bold]\x9b1A 10.0.0.7" in text


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20, 4), (40, 8), (200, 60)])
def test_no_terminal_is_too_small_to_be_drawn_on(width: int, height: int) -> None:
    model = Model(TopSample(1.0, server(*(worker(slot) for slot in range(9))), {}))
    for stack in (None, "", "Thread 1:\n  line"):
        model.stack = stack
        assert max(map(len, screen(model, width, height))) <= max(width, 1)
    model = Model(TopSample(1.0, server(), {}))
    assert screen(model, width, height)


def test_a_blocked_loop_is_shown() -> None:
    busy = worker(0, state="busy", blocked=4.0, calls=[call("GET /a", 5.0)])
    lines = screen(Model(TopSample(1.0, server(busy), {})))
    assert any("blocked for 4.0s; 5.0s GET /a" in line for line in lines)


def test_websockets_are_counted() -> None:
    busy = worker(1, state="busy", websockets=1, calls=[call("GET /a", 2.0)])
    lines = screen(Model(TopSample(1.0, server(worker(0, websockets=3), busy), {})))
    assert any(line.rstrip().endswith("3 WebSockets") for line in lines)
    assert any("1 WebSocket; 2.0s GET /a" in line for line in lines)
