"""Which thread of a worker accepts new connections, and how many.

With nothing parked and one listener, the main thread blocks in accept4 and serves on the spot.
Otherwise an acceptor thread for each listener waits there, unless the main thread is so busy that
it does better to accept itself.  After an error nobody accepts for a moment.
"""

import errno
import signal
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from prefork import logs
from prefork.scoreboard import ThreadRecord
from prefork.worker.schedule.accept import (
    NEEDED_SIGNALS,
    QUEUE_EMPTY,
    AcceptorThread,
    MainAcceptor,
)
from prefork.worker.schedule.busy_watcher import Watcher
from prefork.worker.schedule.fairness import AcceptFairness
from prefork.worker.schedule.handover import Handover
from prefork.worker.schedule.pending_work import PendingWork
from prefork.worker.schedule.service_interface import Service
from prefork.worker.schedule.wakeup import Wakeup
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener

# Without the enums that signal.pthread_sigmask makes of its answer.
_sigmask: Final[Callable[[int, frozenset[int]], object]] = sys.modules["_signal"].pthread_sigmask

PAUSE: Final = 0.1
"""Seconds without accepting after an error of the kind that does not pass at once (EMFILE)."""

_REPORT: Final = 5.0
"""Seconds between two lines in the log about that."""

_AT_ONCE: Final = 2
"""New connections that the main thread takes from a listener before it serves parked ones;
siblings may be about to come for the others."""


class AcceptStrategy:
    """Accepts the new connections of one worker."""

    def __init__(
        self,
        listeners: Sequence[WorkerListener],
        service: Service,
        record: ThreadRecord,
        pending: PendingWork,
        main: MainAcceptor,
        handover: Handover,
        watcher: Watcher,
        wakeup: Wakeup,
    ) -> None:
        """`record`: the main thread's."""
        self.listeners = listeners
        self.acceptors = [
            AcceptorThread(listener, pending.accepted, wakeup.set, self._may_continue)
            for listener in listeners
        ]
        self.busy = False
        """The main thread has found something to do since it last considered the acceptors."""
        self.last_found = 0
        """Events that it found at its last look into the epoll."""
        self.paused_until = 0.0
        """Monotonic seconds until which nobody accepts; 0 for no pause."""
        self.draining = False
        """Some listeners are to be emptied before the worker stops."""
        self._service = service
        self._parked = service.poller.parked
        self._record = record
        self._pending = pending
        self._main = main
        self._handover = handover
        self._watcher = watcher
        self._error_limit = logs.RateLimit(_REPORT)

    # Several threads, or something parked: acceptor threads.

    def start_acceptors(self) -> None:
        """Starts all acceptor threads, which wait to be resumed (main thread: only that can start a
        thread without signals).

        Raises RuntimeError if the kernel has no room for another thread.
        """
        for acceptor in self.acceptors:
            acceptor.start()

    def _may_continue(self) -> bool:
        # A connection that is accepted while no thread waits in the epoll would wait for one here,
        # and not for an idle sibling. With nothing parked, the main thread is to accept again.
        return not self._pending.serving_since and bool(self._parked)

    def provide(self) -> bool:
        """Makes sure that new connections are accepted; returns whether the main thread did so.

        A thread that comes out of accept4 beside a busy one waits for the interpreter, up to 5 ms,
        the interpreter's switch interval.  So a main thread that finds something whenever it looks
        does without acceptors: it accepts connections itself for which no sibling was woken.  The
        acceptors take over again when it is to wait.
        """
        busy, self.busy = self.busy, False
        by_itself = False
        for acceptor in self.acceptors:
            if acceptor.accepting:
                continue
            most = self._most_at_once() if busy else 0
            by_itself = most > 0
            listener = acceptor.listener
            if by_itself and listener.fairness is not None:
                self._accept_at_once(listener, listener.fairness, most)
            else:
                acceptor.resume()
        return by_itself

    def _most_at_once(self) -> int:
        """How many new connections the main thread accepts from a listener by itself before it
        serves parked ones; 0 if the acceptor is to accept them."""
        if self._handover.is_only_worker:
            # New connections, which no other worker can take, get as much time as parked ones.
            return max(self.last_found, _AT_ONCE)
        # If a sibling is faster, the watcher brings the main thread out of accept4; without
        # siblings the watcher does not look.
        return 0 if self._handover.has_no_sibling else _AT_ONCE

    def _accept_at_once(
        self, listener: WorkerListener, fairness: AcceptFairness, most: int
    ) -> None:
        for _ in range(most):
            if not (fairness.may_take() and listener.open):
                return
            self._pending.serving_since = monotonic()
            accepted: list[AcceptedSocket] = []
            problem = self._main.accept(listener, accepted)
            if problem is not None:
                self.pause(problem)
            if not accepted:
                return
            self._serve(accepted[0], listener)
            self.busy = True

    def collect_problems(self) -> None:
        """Pauses if an acceptor thread has stopped with an error."""
        for acceptor in self.acceptors:
            problem = acceptor.problem
            if problem is not None:
                acceptor.problem = None
                self.pause(problem)

    # Nothing parked: the main thread.

    @property
    def may_block(self) -> bool:
        """The main thread can block in accept4, as far as the listeners are concerned."""
        return (
            len(self.listeners) == 1 and not self.acceptors[0].accepting and not self.paused_until
        )

    def block(self, *, notify_watcher: bool) -> None:
        """Waits in accept4 and serves the connection.

        `notify_watcher`: from then on the watcher checks how long that takes."""
        pending = self._pending
        self._service.flush()
        accepted: list[AcceptedSocket] = []
        listener = self.listeners[0]
        pending.serving_since = 0.0
        # Only a signal ends accept4, and the application may have blocked it in a request.
        _sigmask(signal.SIG_UNBLOCK, NEEDED_SIGNALS)
        if listener.fairness is not None:
            listener.fairness.yield_to_woken()
        if pending.check_orders or pending.received:
            return
        problem = self._main.accept(listener, accepted)
        if notify_watcher:
            pending.serving_since = monotonic()
            if pending.watcher_asleep:
                self._watcher.wake()
        for each in accepted:
            self._serve(each, listener)
        if problem is not None:
            self.pause(problem)

    def _serve(self, accepted: AcceptedSocket, listener: WorkerListener) -> None:
        if accepted[0] >= self._handover.fd_limit:
            self._handover.pause_receiving()
        self._service.serve_accepted(accepted, listener, self._record)

    # Errors, and the end.

    def pause(self, problem: OSError) -> None:
        """Stops accepting for a moment."""
        if self._pending.stopping and problem.errno == errno.ENOTSOCK:
            return  # the listener was replaced
        self.paused_until = monotonic() + PAUSE
        if problem.errno in QUEUE_EMPTY:
            return  # the server is about to stop: its order comes next
        if self._error_limit.due():
            logs.event("error", "accept failed", reason=problem.strerror)

    def replace_listeners(self, drained: tuple[int, ...]) -> None:
        """Stops accepting at all listeners but those that are to be drained, by their number."""
        self.draining = bool(drained)
        for listener in self.listeners:
            if listener.number not in drained:
                listener.stop_accepting()

    def stop_acceptors(self) -> None:
        """Ends the acceptor threads."""
        for acceptor in self.acceptors:
            acceptor.stop()

    def drain(self) -> None:
        """Accepts one connection from each listener, and closes it if its queue is empty."""
        self.draining = False
        for listener in self.listeners:
            if listener.open:
                accepted: list[AcceptedSocket] = []
                problem = self._main.accept(listener, accepted)
                for each in accepted:
                    self._service.serve_accepted(each, listener, self._record)
                if problem is not None and problem.errno in QUEUE_EMPTY:
                    listener.close()
                    continue
                self.draining = True
                # Without a free descriptor, accept4 does not even report an empty queue.
                if problem is not None and not listener.release_spare():
                    self.pause(problem)
