"""The threads of a worker that answers several requests at a time (`workers.threads` above 1).

One of them has the place in the epoll, and what it finds there it answers itself: for a short call
that costs no switch of threads, and no convoy of threads that wait for the interpreter.  Another
takes the place over when it is needed: when its holder has been in the application for some
milliseconds (prefork.worker.schedule.watcher sees to that), or at once where recent calls were
slow.  The main thread is one of them and has the place whenever it is free, since only it can wait
in accept4.

No more than the number of threads are ever in the application: whoever calls it is one of them.
"""

import os
import threading
from collections.abc import Callable

from prefork import logs
from prefork.scoreboard import ThreadRecord

_SLOW = 0.001
"""Seconds that a recent call took on average from which on the place is passed on before a call: a
hundred times what that costs."""

_MOST = 0.02
"""Seconds that one call counts at most: a single long one is soon forgotten."""

_WEIGHT = 1 / 8


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


class _Member:
    def __init__(self, record: ThreadRecord) -> None:
        self.record = record
        self.turn = _taken()
        """Released when it is given the place."""


class LeaderFollowers:
    """The main thread and the others, and which of them has the place.

    Threads are told apart by their record on the scoreboard.  No signal handler may come in here:
    it could interrupt the main thread while that has the lock.
    """

    def __init__(
        self, records: list[ThreadRecord], wake: Callable[[], None], *, slow: bool
    ) -> None:
        """One thread for each record, of which the first is the main thread's.

        `wake` brings the holder out of the epoll.  `slow`: what is assumed of the application
        before it is known.
        """
        self.holder: ThreadRecord | None = records[0]
        """Whose the place is; None while all are in the application."""
        self.main_waits = False
        """The main thread is free and wants the place."""
        self.report = False
        """The main thread wants to know when a thread becomes free."""
        self._main = records[0]
        self._main_turn = _taken()
        self._members = [_Member(record) for record in records[1:]]
        self._free: list[_Member] = []
        self._lock = threading.Lock()
        self._wake = wake
        self._mean = _MOST if slow else 0.0

    def start(self, lead: Callable[[ThreadRecord], None]) -> None:
        """`lead`: waits in the epoll once, and serves what is there."""
        self._free.extend(self._members)
        for number, member in enumerate(self._members, 1):
            threading.Thread(
                target=self._run, args=(member, lead), name=f"call-{number}", daemon=True
            ).start()

    @property
    def idle(self) -> bool:
        """No thread but the main one has anything to do."""
        return len(self._free) == len(self._members)

    # Any thread, around its call of the application.

    def enter(self, record: ThreadRecord) -> None:
        """This thread is about to call the application."""
        if self._mean > _SLOW and self.holder is record:
            with self._lock:
                if self.holder is record:
                    self._appoint()

    def leave(self, seconds: float) -> None:
        """A call is over, and how long it took."""
        # Two threads at a time may lose one of the two: it is an estimate.
        self._mean += (min(seconds, _MOST) - self._mean) * _WEIGHT

    def _appoint(self) -> bool:
        """Gives the place to a free thread, or to nobody; with the lock held."""
        if self.main_waits:
            self._appoint_main()
        elif self._free:
            # The one that was last at work: the others' stacks may rest.
            member = self._free.pop()
            self.holder = member.record
            member.turn.release()
        else:
            self.holder = None
            return False
        return True

    def _appoint_main(self) -> None:
        self.main_waits = False
        self.holder = self._main
        self._main_turn.release()

    # The main thread.

    def take(self) -> None:
        """Gets the place back, if another has it."""
        if self.holder is self._main:
            return
        with self._lock:
            if self.holder is None:
                self.holder = self._main
                return
            self.main_waits = True
        self._wake()
        self._main_turn.acquire()

    # The watcher.

    def relieve(self) -> bool:
        """The holder is in the application: another takes its place. False where none is free.

        If it comes back in this moment, two wait in the epoll, until it has got one event more:
        each event goes to one of them.
        """
        if not (self._free or self.main_waits):
            return False
        with self._lock:
            return (self._free or self.main_waits) and self._appoint()

    # The others.

    def _run(self, member: _Member, lead: Callable[[ThreadRecord], None]) -> None:
        # No signal is blocked here: the application's programs would inherit that over exec(2),
        # and nobody could end them. Signals of the process come to the main thread all the same:
        # the kernel prefers it (signal(7)), and Python runs the handlers there.
        record = member.record
        try:
            while True:
                member.turn.acquire()
                while self.holder is record:
                    lead(record)
                    if self.main_waits:
                        break
                self._step_back(member)
        except BaseException as problem:
            # The place would stay taken for ever, and the worker be deaf.
            logs.event("error", "worker failed", traceback=logs.traceback_of(problem))
            os._exit(1)

    def _step_back(self, member: _Member) -> None:
        record = member.record
        with self._lock:
            if self.holder is None or self.holder is record:
                if not self.main_waits:
                    self.holder = record
                    member.turn.release()
                    return
                self._free.append(member)
                self._appoint_main()
                return
            self._free.append(member)
            wake = self.main_waits or self.report
        if wake:
            # What woke this thread in the epoll may have been meant for the holder.
            self._wake()
