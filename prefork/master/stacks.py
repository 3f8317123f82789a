"""Stacks of workers: asked for by a signal, looked for until they have come.

The master waits for nobody: between the signal and the text it goes on with its loop.
"""

import os
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from prefork import stacks

PATIENCE = 1.0
"""Seconds for a worker to write its stacks: one that is stopped, or waits for a disk, does not."""

_LOOK = 0.01
"""Seconds between two looks; what looks whole and has not grown in between is whole."""

_QUIET = 0.2
"""Seconds without growth after which anything is taken for whole."""

_LIMIT = 64 * 1024
"""Bytes of stacks that are read; a hundred threads of a hundred frames would be more."""

Done = Callable[[str], None]
"""Takes the stacks, or "" where none came."""


class Subject(Protocol):
    """Whose stacks can be asked for."""

    pid: int
    stacks: int | None
    """A memfd, see `prefork.stacks`; None where none was offered."""


class _Asked:
    def __init__(self, now: float) -> None:
        self.until = now + PATIENCE
        self.size = 0
        self.grown = now
        self.done: list[Done] = []


class Stacks:
    """Those that were asked for and have not come yet."""

    def __init__(self) -> None:
        self._asked: dict[Subject, _Asked] = {}
        self.look_at: float | None = None
        """Monotonic seconds of the next look; None where nothing is awaited."""

    def take(self, subject: Subject, done: Done) -> None:
        """Asks a worker that is not reaped yet; `done` is called in a later round of the loop, or
        at once where there is nothing to be had."""
        if subject.stacks is None:
            return done("")
        now = monotonic()
        if subject not in self._asked:
            os.ftruncate(subject.stacks, 0)
            self._asked[subject] = _Asked(now)
            self.look_at = now + _LOOK
            os.kill(subject.pid, stacks.SIGNAL)
        self._asked[subject].done.append(done)

    def look(self) -> None:
        """Looks at what has come, if a look is due."""
        now = monotonic()
        if self.look_at is None or now < self.look_at:
            return
        for subject, asked in list(self._asked.items()):
            text = _read(subject)
            if len(text) != asked.size:
                asked.size, asked.grown = len(text), now
                continue
            still = bool(text) and (stacks.is_whole(text) or now >= asked.grown + _QUIET)
            if still or now >= asked.until:
                self._finish(subject, text)
        self.look_at = now + _LOOK if self._asked else None

    def gone(self, subject: Subject) -> None:
        """It is dead: what it has written is all that there will be."""
        if subject in self._asked:
            self._finish(subject, _read(subject))

    def _finish(self, subject: Subject, text: str) -> None:
        for done in self._asked.pop(subject).done:
            done(stacks.shown(text))


def _read(subject: Subject) -> str:
    if subject.stacks is None:
        return ""
    return os.pread(subject.stacks, _LIMIT, 0).decode(errors="replace")
