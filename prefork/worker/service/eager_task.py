"""Tasks that take their first step at once, and not in the next turn of their loop.

Most calls of an application end within their first step: then there is nothing that the loop has to
come back for, and the response is sent while the request is still in the caches.

From Python 3.12 on this is `Task(eager_start=True)`.  In 3.11 a task asks its loop to call its
first step soon (`loop.call_soon(step, context=...)`).  `EagerTasks` answers to that name for the
moment, takes the step, and calls it in the context that came with it, as the loop would have done.
So the task is one like any other: current, in `all_tasks`, with a context of its own.
"""

import sys
from asyncio import AbstractEventLoop, Task
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

_Step = Callable[..., object]


class TaskStarter(Protocol):
    """Starts a task of that name, which runs a coroutine."""

    def __call__(self, coroutine: Coroutine[Any, Any, None], name: str, /) -> "Task[None]": ...


def task_starter(loop: AbstractEventLoop) -> TaskStarter:
    """What starts the tasks of a loop: at once where that can be had, else `create_task`."""
    if sys.version_info >= (3, 12):
        return lambda coroutine, name: Task(coroutine, loop=loop, name=name, eager_start=True)
    if hasattr(loop, "__dict__"):
        return EagerTasks(loop).start
    # One of the user's own, written in C.
    return lambda coroutine, name: loop.create_task(coroutine, name=name)


class EagerTasks:
    """Starts tasks at once in Python 3.11: in the loop's thread, and never from within a task."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._names = vars(loop)
        self._call_soon = self._note  # bound once
        self._asked: list[tuple[_Step, tuple[object, ...], Context | None]] = []

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> "Task[None]":
        """A task that has taken its first step."""
        loop, asked = self._loop, self._asked
        self._names["call_soon"] = self._call_soon
        try:
            task = Task(coroutine, loop=loop, name=name)
        finally:
            del self._names["call_soon"]
        step, _, context = asked.pop()  # a first step takes no arguments
        if asked:
            # The garbage collector has run something that has asked for a callback, too.
            for callback, given, its in asked:
                loop.call_soon(callback, *given, context=its)
            asked.clear()
        assert context is not None
        context.run(step)
        return task

    def _note(self, callback: _Step, *args: object, context: Context | None = None) -> None:
        """In place of the loop's `call_soon` while a task is made, which asks for it last."""
        self._asked.append((callback, args, context))
