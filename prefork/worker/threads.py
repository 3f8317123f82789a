"""The threads that call the application where `workers.threads` is more than one.

The main thread reads requests and hands over whole ones; a thread answers and hands the
connection back.  At most that many applications run at one time in a worker.
"""

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

from prefork.scoreboard import Record

J = TypeVar("J")


class Threads(Generic[J]):
    """A pool of fixed size; jobs go in from the main thread, and come back to it."""

    def __init__(
        self,
        records: list[Record],
        work: Callable[[J, Record], None],
        wake: Callable[[], None],
    ) -> None:
        """One thread for each record; `work` must not raise."""
        self.busy = 0
        """Jobs handed over and not taken back (main thread)."""
        self._jobs: SimpleQueue[J] = SimpleQueue()
        self._done: deque[J] = deque()
        self._work = work
        self._wake = wake
        self._threads = [
            threading.Thread(target=self._run, args=(record,), name=f"call-{number}", daemon=True)
            for number, record in enumerate(records)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def full(self) -> bool:
        """No thread is free."""
        return self.busy >= len(self._threads)

    def submit(self, job: J) -> None:
        self.busy += 1
        self._jobs.put(job)

    def done(self) -> J | None:
        """A job that has come back, or None."""
        if not self._done:
            return None
        self.busy -= 1
        return self._done.popleft()

    def _run(self, record: Record) -> None:
        # No signal is blocked here: the application's programs would inherit that over exec(2),
        # and nobody could end them. Signals of the process come to the main thread all the same:
        # the kernel prefers it (signal(7)), and Python runs the handlers there.
        while True:
            job = self._jobs.get()
            self._work(job, record)
            self._done.append(job)
            self._wake()
