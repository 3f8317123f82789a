"""Where a task waits: the frames of its coroutines, which no traceback shows."""

import asyncio
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from types import FrameType

from prefork import frames

_LONGEST = 200
"""Coroutines that await each other, up to which the chain is followed."""

_DEPTH = 50
"""Frames of a task that are shown in a dump of all."""

_DUMP = 24 * 1024
"""Characters of such a dump: the threads' stacks follow, and the master reads 64 KiB of both."""

_WAITING_ROOMS = ("/anyio/_backends/", "/asgiref/")
"""Where the idle threads of libraries wait for work."""


def stack_of(task: "asyncio.Task[None] | None") -> str:
    """The application's frames of a task as in a traceback, the innermost last; "" for none."""
    if task is None:
        return ""
    chain = [(frame, frame.f_lineno) for frame in _frames(task.get_coro())]
    stack = traceback.StackSummary.extract(iter(chain))
    theirs = [frame for frame in stack if not frames.is_ours(frame.filename)]
    return "".join(traceback.StackSummary.from_list(theirs).format()).rstrip("\n")


def stacks_of_threads() -> str:
    """The stacks of those threads in which code of the application runs, the innermost call last;
    not of the main thread, which runs the event loop, nor of threads that wait for work."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    stacks = []
    for ident, frame in sys._current_frames().items():
        stack = traceback.extract_stack(frame)
        # The innermost that is no part of the interpreter, such as of `threading`.
        files = [each.filename for each in reversed(stack) if _is_no_library(each.filename)]
        if ident == main or not files or frames.is_ours(files[0]):
            continue
        if any(room in files[0] for room in _WAITING_ROOMS):
            continue
        while not _is_no_library(stack[0].filename):
            del stack[0]  # how a thread begins
        text = "".join(stack.format()).rstrip("\n")
        stacks.append(f"Thread {names.get(ident, ident)} (most recent call last):\n{text}")
    return "\n\n".join(stacks)


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
