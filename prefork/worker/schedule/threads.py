"""The threads of a worker that answers several requests at a time (`workers.threads` above 1).

They work by the Leader/Followers pattern.  One thread, the leader, waits in the epoll and answers
what it finds there itself: a short call costs no switch of threads, and no convoy of threads that
wait for the interpreter.  A follower is promoted to leader when it is needed: when the leader has
been in the application for some milliseconds (prefork.worker.schedule.busy_watcher checks that), or
at once if recent calls were slow.  The main thread is one of the threads and leads whenever it is
free, since only it can wait in accept4.

The application is never in more calls than there are threads: only these threads call it.
"""

import os
import threading
from collections.abc import Callable
from functools import partial

from prefork.scoreboard import ThreadRecord
from prefork.unpatched import Lock, is_patched
from prefork.worker.schedule.kernel_thread import KernelThread
from prefork.worker.worker_failure import report_worker_failure

_SLOW = 0.001
"""Seconds: if recent calls took longer on average, a follower is promoted before a call. That
costs a hundredth of this."""

_MOST = 0.02
"""Seconds that one call counts at most: a single long one is soon forgotten."""

_WEIGHT = 1 / 8


def _locked() -> threading.Lock:
    lock = Lock()
    lock.acquire()
    return lock


def _start(run: Callable[[], None], name: str) -> None:
    """Starts a thread that calls the application, as one that it finds in `threading`."""
    if is_patched():  # it would be a greenlet of this thread
        KernelThread(run).start()
    else:
        threading.Thread(target=run, name=name, daemon=True).start()


class _Follower:
    """A thread that is not the main one."""

    def __init__(self, record: ThreadRecord) -> None:
        self.record = record
        self.promoted = _locked()
        """Released when the thread becomes the leader."""


class LeaderFollowers:
    """The main thread and the others, and which of them leads.

    A thread is identified by its record on the scoreboard.  No signal handler may call a method
    here: it could interrupt the main thread while that holds the lock.
    """

    def __init__(
        self, records: list[ThreadRecord], wake: Callable[[], None], *, slow: bool
    ) -> None:
        """One thread for each record; the first record is the main thread's.

        `wake` brings the leader out of the epoll.  `slow`: what is assumed of the application
        before it is known.
        """
        self.leader: ThreadRecord | None = records[0]
        """None while all threads are in the application."""
        self.main_waiting = False
        """The main thread is free and waits to lead."""
        self.wake_when_free = False
        """The main thread is to be woken when a thread becomes free."""
        self._main = records[0]
        self._main_promoted = _locked()
        self._followers = [_Follower(record) for record in records[1:]]
        self._free: list[_Follower] = []
        self._lock = Lock()
        self._wake = wake
        self._mean = _MOST if slow else 0.0

    def start(self, lead: Callable[[ThreadRecord], None]) -> None:
        """Starts the threads. `lead` waits in the epoll once, and serves what is there."""
        self._free.extend(self._followers)
        for number, follower in enumerate(self._followers, 1):
            _start(partial(self._run, follower, lead), f"call-{number}")

    @property
    def all_free(self) -> bool:
        """No thread but the main one has anything to do."""
        return len(self._free) == len(self._followers)

    # Any thread, around its call of the application.

    def before_call(self, record: ThreadRecord) -> None:
        """This thread is about to call the application."""
        if self._mean > _SLOW and self.leader is record:
            with self._lock:
                if self.leader is record:
                    self._promote()

    def after_call(self, seconds: float) -> None:
        """A call has ended, and how long it took."""
        # If two threads come at a time, one of the two may be lost: the mean is an estimate.
        self._mean += (min(seconds, _MOST) - self._mean) * _WEIGHT

    def _promote(self) -> bool:
        """Makes a free thread the leader, or leaves the threads without one; with the lock held.

        Returns whether there is a leader.
        """
        if self.main_waiting:
            self._promote_main()
        elif self._free:
            # The one that was at work last: the others' stacks may stay out of the caches.
            follower = self._free.pop()
            self.leader = follower.record
            follower.promoted.release()
        else:
            self.leader = None
            return False
        return True

    def _promote_main(self) -> None:
        self.main_waiting = False
        self.leader = self._main
        self._main_promoted.release()

    # The main thread.

    def lead_from_main(self) -> None:
        """Makes the main thread the leader; waits until the leader gives that up."""
        if self.leader is self._main:
            return
        with self._lock:
            if self.leader is None:
                self.leader = self._main
                return
            self.main_waiting = True
        self._wake()
        self._main_promoted.acquire()

    # The watcher.

    def promote_follower(self) -> bool:
        """Replaces a leader that is in the application; returns False if no thread is free.

        If the leader comes back at this moment, two threads wait in the epoll until it has got one
        more event: each event goes to one of them.
        """
        if not (self._free or self.main_waiting):
            return False
        with self._lock:
            return (self._free or self.main_waiting) and self._promote()

    # The followers.

    def _run(self, follower: _Follower, lead: Callable[[ThreadRecord], None]) -> None:
        # No signal is blocked here: programs that the application starts would inherit that over
        # exec(2), and nobody could end them. Signals of the process come to the main thread all the
        # same: the kernel prefers it (signal(7)), and Python runs the handlers there.
        record = follower.record
        try:
            while True:
                follower.promoted.acquire()
                while self.leader is record:
                    lead(record)
                    if self.main_waiting:
                        break
                self._step_back(follower)
        except BaseException as problem:
            # The worker would be without a leader for ever, and serve no connection.
            report_worker_failure(problem)
            os._exit(1)

    def _step_back(self, follower: _Follower) -> None:
        """A thread has come out of its call, or has been asked to let the main thread lead."""
        record = follower.record
        with self._lock:
            if self.leader is None or self.leader is record:
                if not self.main_waiting:
                    self.leader = record
                    follower.promoted.release()
                    return
                self._free.append(follower)
                self._promote_main()
                return
            self._free.append(follower)
            wake = self.main_waiting or self.wake_when_free
        if wake:
            # The event that woke this thread in the epoll may have been meant for the leader.
            self._wake()
