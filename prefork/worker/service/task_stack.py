"""Where a task waits: the frames of its coroutines, which no traceback shows."""

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType, FunctionType
from typing import Any

from prefork import frames

_LONGEST = 200
"""Coroutines or futures that await each other, up to which the chain is followed."""

_DEPTH = 50
"""Frames of a task that are shown in a dump of all."""

_DUMP = 24 * 1024
"""Characters of such a dump: the threads' stacks follow, and the master reads 64 KiB of both."""

_WAITING_ROOMS = ("/anyio/_backends/", "/asgiref/")
"""Where the idle threads of libraries wait for work."""

_FUTURES = (asyncio.Future, concurrent.futures.Future)

_POOLS = ("/concurrent/futures/", "/anyio/_backends/")
"""Where threads take the next thing to do, and keep the future of its result in a variable."""


def stack_of(task: "asyncio.Task[None] | None") -> str:
    """The application's frames of a task as in a traceback, the innermost last; "" for none."""
    if task is None:
        return ""
    chain = [(frame, frame.f_lineno) for frame in _frames(task.get_coro())]
    stack = traceback.StackSummary.extract(iter(chain))
    theirs = [frame for frame in stack if not frames.is_ours(frame.filename)]
    return "".join(traceback.StackSummary.from_list(theirs).format()).rstrip("\n")


class WorkingThreads:
    """The threads in which code of the application runs, and the tasks that await them."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, calls: Iterable["asyncio.Task[None] | None"]
    ) -> None:
        """`calls`: the tasks of all calls under way."""
        self._calls = {call for call in calls if call is not None}
        # What a task awaits for a call is that call's.
        tasks = [*(asyncio.all_tasks(loop) - self._calls), *self._calls]
        awaited = {id(each): task for task in tasks for each in _awaited_by(task)}
        self._stacks: list[tuple[str, asyncio.Task[Any] | None]] = []
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        main = threading.main_thread().ident
        for ident, frame in sys._current_frames().items():
            stack = traceback.extract_stack(frame)
            # The innermost that is no part of the interpreter, such as of `threading`.
            files = [each.filename for each in reversed(stack) if _is_no_library(each.filename)]
            if ident == main or not files or frames.is_ours(files[0]):
                continue
            if any(room in files[0] for room in _WAITING_ROOMS):
                continue
            futures = list(_worked_on(frame))
            if any(map(_is_given_up, futures)):
                continue
            while not _is_no_library(stack[0].filename):
                del stack[0]  # how a thread begins
            text = "".join(stack.format()).rstrip("\n")
            text = f"Thread {names.get(ident, ident)} (most recent call last):\n{text}"
            waiting = (awaited[id(each)] for each in futures if id(each) in awaited)
            self._stacks.append((text, next(waiting, None)))

    def of(self, call: "asyncio.Task[None] | None") -> str:
        """The stacks of the threads that a call awaits, the innermost call last; if none is known,
        of those that may be its own, since they are known to be no other call's."""
        found = [stack for stack, task in self._stacks if task is not None and task is call]
        maybe = [stack for stack, task in self._stacks if task not in self._calls]
        return "\n\n".join(found or maybe)


def _awaited_by(task: "asyncio.Task[Any]") -> Iterator[object]:
    """The futures that a task awaits, those that they wait for, and so on."""
    todo: list[object] = [task]
    seen: set[int] = set()
    while todo and len(seen) < _LONGEST:
        each = todo.pop()
        if id(each) not in seen and isinstance(each, _FUTURES):
            seen.add(id(each))
            yield each
            # A future that stands for another one, as `run_in_executor` and `shield` make them,
            # is known to a callback of that, and has one to cancel it.
            todo.append(getattr(each, "_fut_waiter", None))
            todo += getattr(each, "_children", ())  # of `gather`
            for callback, *_ in getattr(each, "_callbacks", None) or ():
                todo += _closed_over(callback)


def _closed_over(callback: object) -> Iterator[object]:
    for cell in (isinstance(callback, FunctionType) and callback.__closure__) or ():
        with contextlib.suppress(ValueError):  # it is not filled
            yield cell.cell_contents


def _is_given_up(future: object) -> bool:
    """Whether a thread works for a result that nobody awaits any more."""
    awaited = [future]
    if isinstance(future, concurrent.futures.Future):
        awaited = [each for done in vars(future)["_done_callbacks"] for each in _closed_over(done)]
    found = [each for each in awaited if isinstance(each, asyncio.Future)]
    return bool(found) and all(each.done() for each in found)


def _worked_on(frame: FrameType | None) -> Iterator[object]:
    """The futures whose results a thread of a pool works for."""
    while frame is not None:
        if any(pool in frame.f_code.co_filename for pool in _POOLS):
            for value in frame.f_locals.values():
                future = getattr(value, "future", value)
                if isinstance(future, _FUTURES):
                    yield future
        frame = frame.f_back


def _is_no_library(filename: str) -> bool:
    """Whether a file is no part of the standard library."""
    return frames.is_ours(filename) or frames.is_the_applications(filename)


def stacks_of_tasks(
    loop: asyncio.AbstractEventLoop, requests: Mapping["asyncio.Task[None]", str]
) -> str:
    """Where the tasks of a loop wait, as `faulthandler` writes threads; "" for none.

    Tasks that wait at the same place are shown as one.  `requests`: the request lines of calls.
    May be called by another thread: a task may have gone on by the time that its line is read.
    """
    places: dict[str, list[str]] = {}
    current = asyncio.current_task(loop)
    for task in asyncio.all_tasks(loop):
        if task is current:
            continue  # it runs: the stack of its thread shows it
        chain = [(frame.f_code, frame.f_lineno) for frame in _frames(task.get_coro())]
        calls = [
            f'  File "{code.co_filename}", line {line} in {code.co_name}\n'
            for code, line in reversed(chain[-_DEPTH:])
            if not frames.is_ours(code.co_filename)
        ]
        if calls:
            places.setdefault("".join(calls), []).append(requests.get(task) or task.get_name())
    stacks, size = [], 0
    for place, names in sorted(places.items(), key=lambda each: -len(each[1])):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        stacks.append(f"Task {min(names)}{more} (most recent call first):\n{place}\n")
        size += len(stacks[-1])
        if size > _DUMP:
            del stacks[-1]
            break
    return "".join(reversed(stacks))  # a dump is shown from its end


def _frames(awaited: object) -> Iterator[FrameType]:
    """The frames of a coroutine, and of what it awaits."""
    for _ in range(_LONGEST):
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaited, f"{kind}_frame", None)
            if isinstance(frame, FrameType):
                yield frame
                awaited = getattr(
                    awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None
                )
                break
        else:
            return
