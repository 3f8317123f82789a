"""Waiting for what no event reports."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

PATIENCE = 60.0
"""Seconds for anything to happen on a machine that is busy with other things."""

T = TypeVar("T")


def until(
    condition: Callable[[], T | None],
    what: str = "what the test waits for",
    patience: float = PATIENCE,
) -> T:
    """Polls for what no event reports (a process's state, a file): its first true value."""
    pause = threading.Event()
    deadline = monotonic() + patience
    while True:
        if value := condition():
            return value
        if monotonic() > deadline:
            raise AssertionError(f"never: {what}")
        pause.wait(0.01)
