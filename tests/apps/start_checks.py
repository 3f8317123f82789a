"""What an asynchronous application may expect of the task that it runs in, one check a path."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import sniffio

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

KEPT: contextvars.ContextVar[str] = contextvars.ContextVar("KEPT", default="")


async def context_is_kept(receive: Receive) -> None:
    KEPT.set("before")
    await asyncio.sleep(0)
    assert KEPT.get() == "before"


async def context_is_the_calls_own(receive: Receive) -> None:
    """To be asked for twice: what the first call has set is not there for the second."""
    assert KEPT.get() == ""
    KEPT.set("mine")


async def token_can_be_reset(receive: Receive) -> None:
    token = KEPT.set("set")
    await asyncio.sleep(0)
    KEPT.reset(token)
    assert KEPT.get() == ""


async def there_is_a_task(receive: Receive) -> None:
    before = asyncio.current_task()
    assert before is not None
    await asyncio.sleep(0)
    assert asyncio.current_task() is before
    assert before in asyncio.all_tasks()


async def the_task_has_the_path_as_its_name(receive: Receive) -> None:
    task = asyncio.current_task()
    assert task is not None
    assert task.get_name() == "/café"


async def the_loop_runs(receive: Receive) -> None:
    assert asyncio.get_running_loop().is_running()
    assert threading.current_thread() is threading.main_thread()


async def timeout(receive: Receive) -> None:
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)
    except TimeoutError:
        return
    raise AssertionError


async def timeout_before_the_first_await(receive: Receive) -> None:
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(10)
    except TimeoutError:
        return
    raise AssertionError


async def wait_for(receive: Receive) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.sleep(10), 0.01)
        raise AssertionError


async def task_group(receive: Receive) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0, number)) for number in range(3)]
    assert [task.result() for task in tasks] == [0, 1, 2]


async def task_group_that_fails(receive: Receive) -> None:
    async def fail() -> None:
        raise ValueError("wanted")

    failed = False
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.sleep(10)
    except* ValueError:
        failed = True
    assert failed


async def gather(receive: Receive) -> None:
    assert list(await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))) == [1, 2]


async def receive_in_a_task(receive: Receive) -> None:
    received: Any = receive()
    message = await asyncio.create_task(received)
    assert message["type"] == "http.request"


async def anyio_cancel_scope(receive: Receive) -> None:
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep(10)
    assert scope.cancelled_caught


async def anyio_task_group(receive: Receive) -> None:
    done = []

    async def note(number: int) -> None:
        await anyio.sleep(0)
        done.append(number)

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(note, number)
    assert sorted(done) == [0, 1, 2]


async def anyio_thread(receive: Receive) -> None:
    assert await anyio.to_thread.run_sync(threading.get_ident) != threading.get_ident()


async def sniffed(receive: Receive) -> None:
    assert sniffio.current_async_library() == "asyncio"


async def thread_with_context(receive: Receive) -> None:
    KEPT.set("seen")
    assert await asyncio.to_thread(KEPT.get) == "seen"


async def cancels_itself(receive: Receive) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        task.uncancel()
        return
    raise AssertionError


CHECKS = {
    check.__name__: check
    for check in (
        *(context_is_kept, context_is_the_calls_own, token_can_be_reset, there_is_a_task),
        *(the_loop_runs, timeout, timeout_before_the_first_await, wait_for, task_group),
        *(task_group_that_fails, gather, receive_in_a_task, anyio_cancel_scope),
        *(anyio_task_group, anyio_thread, sniffed, thread_with_context, cancels_itself),
    )
}
CHECKS["café"] = the_task_has_the_path_as_its_name


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise ValueError(f"{scope['type']} is not served here")
    await CHECKS[scope["path"].removeprefix("/")](receive)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
