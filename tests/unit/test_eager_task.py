"""Tasks that take their first step at once."""

import asyncio
import sys
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from prefork.worker.service.eager_task import EagerTasks, task_starter

needs_capture = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="does not apply: asyncio has eager tasks of its own"
)


def loops() -> list[Callable[[], asyncio.AbstractEventLoop]]:
    found: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.SelectorEventLoop]
    try:
        import uvloop
    except ImportError:
        return found
    return [*found, uvloop.new_event_loop]


def in_a_callback(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    """Does the work in a callback of the loop, as a worker does, and all that comes of it."""

    async def soon() -> None:
        await asyncio.sleep(0.01)

    loop.call_soon(work)
    try:
        loop.run_until_complete(soon())
    finally:
        loop.close()


@pytest.mark.parametrize("create", loops())
def test_the_first_step_comes_before_the_start_returns(
    create: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    loop = create()
    start, seen = task_starter(loop), list[object]()
    kept: ContextVar[str] = ContextVar("kept", default="outer")

    async def work() -> None:
        task = asyncio.current_task()
        kept.set("inner")
        seen.append(task in asyncio.all_tasks())
        await asyncio.sleep(0)
        seen.append((asyncio.current_task() is task, kept.get()))

    def begin() -> None:
        task = start(work(), "work")
        seen.append((task.done(), task.get_name(), kept.get(), asyncio.current_task()))

    in_a_callback(loop, begin)
    assert seen == [True, (False, "work", "outer", None), (True, "inner")]


@needs_capture
@pytest.mark.parametrize("create", loops())
def test_what_others_ask_for_meanwhile_is_called_later(
    create: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage collector may run while a task is made, and it runs anything."""
    loop = create()
    tasks, seen = EagerTasks(loop), list[str]()
    make = asyncio.Task

    def collecting(coroutine: object, **given: object) -> object:
        loop.call_soon(seen.append, "collected")
        return make(coroutine, **given)  # type: ignore[arg-type]

    monkeypatch.setattr("prefork.worker.service.eager_task.Task", collecting)

    async def work() -> None:
        seen.append("worked")

    def begin() -> None:
        tasks.start(work(), "work")
        seen.append("started")
        assert "call_soon" not in vars(loop)

    in_a_callback(loop, begin)
    assert seen == ["worked", "started", "collected"]
