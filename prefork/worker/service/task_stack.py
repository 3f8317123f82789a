"""Where a task waits: the frames of its coroutines, which no traceback shows."""

import asyncio
import traceback
from collections.abc import Iterator
from types import FrameType

from prefork import frames

_LONGEST = 200
"""Coroutines that await each other, up to which the chain is followed."""


def stack_of(task: "asyncio.Task[None] | None") -> str:
    """The application's frames of a task as in a traceback, the innermost last; "" for none."""
    if task is None:
        return ""
    chain = [(frame, frame.f_lineno) for frame in _frames(task.get_coro())]
    stack = traceback.StackSummary.extract(iter(chain))
    theirs = [frame for frame in stack if not frames.is_ours(frame.filename)]
    return "".join(traceback.StackSummary.from_list(theirs).format()).rstrip("\n")


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
