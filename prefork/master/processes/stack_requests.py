"""Stacks of workers: requested, and polled until they have come (how: prefork.stack_dump).

The master does not wait: between the request and the text it goes on with its loop.
"""

import math
import os
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from prefork import proc_files, stack_dump
from prefork.master.periodic import Periodic

PATIENCE = 1.0
"""Seconds for a worker to write its stacks: one that is stopped or waits for a disk cannot."""

_LOOK = 0.01
"""Seconds between two looks; a text that seems whole and has not grown in between is whole."""

_PROMPT = 0.1
"""Seconds for the worker's thread to answer, after which the signal is sent.  The thread gets the
GIL within 5 ms if another thread runs Python code."""

_QUIET = 0.2
"""Seconds without growth after which any text is taken for whole."""

Done = Callable[[str], None]
"""Takes the stacks, "" if none came."""


class StackOwner(Protocol):
    """A process whose stacks can be requested."""

    @property
    def pid(self) -> int: ...

    @property
    def stacks(self) -> stack_dump.MasterStacks | None: ...


class _Asked:
    def __init__(self, now: float) -> None:
        self.until = now + PATIENCE
        self.signal_at = now + _PROMPT
        self.size = 0
        self.grown = now
        self.done: list[Done] = []


class StackRequests(Periodic):
    """The requests without an answer so far."""

    due: float | None = None
    """None if nothing is awaited."""

    def __init__(self) -> None:
        self._asked: dict[StackOwner, _Asked] = {}

    def request(self, owner: StackOwner, done: Done) -> None:
        """Requests the stacks of a worker that is not reaped yet.

        `done` is called in a later round of the loop, or at once if the worker writes no stacks.
        """
        now = monotonic()
        if owner not in self._asked:
            try:
                if owner.stacks is None:
                    return done("")
                owner.stacks.ask()
            except OSError:  # the worker has closed its end
                return done("")
            self._asked[owner] = _Asked(now)
            self.due = now + _LOOK
        self._asked[owner].done.append(done)

    def overslept(self, seconds: float) -> None:
        """The workers stood still too."""
        for asked in self._asked.values():
            asked.until += seconds
            asked.signal_at += seconds
            asked.grown += seconds

    def run(self, now: float) -> None:
        """Reads the stacks that have come, if a look is due."""
        if self.due is None or now < self.due:
            return
        for owner, asked in list(self._asked.items()):
            text = _read(owner)
            if len(text) != asked.size:
                asked.size, asked.grown = len(text), now
                continue
            if not text and now >= asked.signal_at:
                asked.signal_at = math.inf
                if not _is_stopped(owner.pid):
                    os.kill(owner.pid, stack_dump.SIGNAL)
            still = bool(text) and (stack_dump.is_whole(text) or now >= asked.grown + _QUIET)
            if still or now >= asked.until:
                self._finish(owner, text)
        self.due = now + _LOOK if self._asked else None

    def worker_gone(self, owner: StackOwner) -> None:
        """The worker is dead: its request is answered with what it has written."""
        if owner in self._asked:
            self._finish(owner, _read(owner))

    def _finish(self, owner: StackOwner, text: str) -> None:
        for done in self._asked.pop(owner).done:
            done(stack_dump.shown(text))


def _read(owner: StackOwner) -> str:
    return owner.stacks.read() if owner.stacks is not None else ""


def _is_stopped(pid: int) -> bool:
    """Whether a process cannot take a signal now, and would take it at any point later."""
    try:
        return proc_files.stat(pid).state in proc_files.STANDS_STILL
    except OSError:  # hidden from the master, or gone: that is no reason not to try
        return False
