"""Accepting in an event loop, balanced by the kernel.

All workers of a server have the same listeners, and each has them in the epoll in which its loop
waits.  With EPOLLEXCLUSIVE (epoll_ctl(2), Linux 4.5) a new connection wakes one of them.  The
kernel wakes them in the order in which they were added, so after each accept, and before it serves,
a worker takes the listener out of its epoll and adds it again: it is then the last in the order.  A
worker whose loop is busy does not wait in its epoll, and the kernel passes over it.

A worker that finds several connections at once would take more than its share before others are
awake.  So one that holds more connections than the sibling with the fewest passes for a moment,
once for each connection.

A listener inside another epoll would lose EPOLLEXCLUSIVE, so it has to be in the loop's own one.
If a loop does not show that, a thread waits in accept4 (prefork.worker.schedule.accept).

The listeners are non-blocking: another worker may have been faster.  That flag belongs to the open
file description, which all workers share (open(2)).
"""

import asyncio
import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable, Sequence

from prefork import logs
from prefork.unpatched import select
from prefork.worker.schedule.accept import QUEUE_EMPTY, AcceptorThread
from prefork.worker.schedule.accept_strategy import PAUSE
from prefork.worker.schedule.event_loop import backend_descriptor
from prefork.worker.schedule.handover import Handover
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener

PASS = 0.002
"""Seconds for which a worker that holds many connections leaves the next one to others."""

AHEAD_OF_LEAST = 2
"""Connections that a worker may hold beyond the sibling with the fewest, before it passes."""

_REPORT = 5.0
"""Seconds between two lines in the log about errors of accept4."""

_REGISTERED = 0.001
"""Seconds until it is asked again whether the loop has registered a listener."""

_PASSING = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})
"""Errors of the connection, not of the listener (accept(2))."""

Serve = Callable[[AcceptedSocket, WorkerListener], None]


class LoopAcceptor:
    """Accepts the new connections of one worker in its event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[WorkerListener],
        handover: Handover,
        serve: Serve,
        after: Callable[[], None],
        wake: Callable[[], None],
        held: Callable[[], int],
    ) -> None:
        """`serve`: takes each connection, in the loop.  `after`: is called at the end of each
        callback in which some were served.  `wake`: brings the loop out of its wait (any thread).
        `held`: the number of connections that the worker has."""
        self.listeners = listeners
        self.draining = False
        """Some listeners are to be emptied before the worker stops."""
        self.accepted: deque[tuple[AcceptedSocket, WorkerListener]] = deque()
        """Connections that acceptor threads have accepted."""
        self._loop = loop
        self._handover = handover
        self._serve = serve
        self._after = after
        self._held = held
        backend = backend_descriptor(loop)
        # A duplicate, since the object closes its descriptor: both mean the same epoll.
        self._epoll = None if backend is None else select.epoll.fromfd(os.dup(backend))
        self._backend = backend
        self._threads = (
            [AcceptorThread(listener, self.accepted, wake, lambda: True) for listener in listeners]
            if backend is None
            else []
        )
        self._added: set[WorkerListener] = set()
        self._passed: set[WorkerListener] = set()
        self._paused = False
        self._full = False
        self._error_limit = logs.RateLimit(_REPORT)

    def create_threads(self) -> None:
        """Starts the acceptor threads of a loop that does not show its epoll (main thread).

        Raises RuntimeError if the kernel has no room for another thread.
        """
        for thread in self._threads:
            thread.start()

    def start(self) -> None:
        """Accepts from now on."""
        if self._epoll is None:
            for thread in self._threads:
                thread.resume()
            return
        for listener in self.listeners:
            if listener.open:
                listener.sock.setblocking(False)
                self._loop.add_reader(listener.sock.fileno(), self._ready, listener)
                self._make_exclusive(listener)

    def _make_exclusive(self, listener: WorkerListener) -> None:
        """Takes over the registration once the loop has made it: that of uvloop comes late, and
        would fail on ours."""
        if not listener.open:
            return
        if self._is_registered(listener.sock.fileno()):
            self._added.add(listener)
            self._rearm(listener)
        else:
            self._loop.call_later(_REGISTERED, self._make_exclusive, listener)

    def _is_registered(self, fd: int) -> bool:
        with open(f"/proc/self/fdinfo/{self._backend}", encoding="ascii") as info:
            return any(line.split()[:2] == ["tfd:", str(fd)] for line in info)

    # An event.

    def _ready(self, listener: WorkerListener) -> None:
        if not listener.open or self._full:
            self._remove(listener)
            return
        # A worker that accepts alone has nobody to be fair to.
        shared = listener in self._added and not self._handover.is_only_worker
        if shared and self._passes(listener):
            return
        try:
            accepted = listener.sock._accept()  # type: ignore[attr-defined]
        except OSError as problem:
            if problem.errno not in _PASSING and problem.errno not in QUEUE_EMPTY:
                self._pause(problem)
            return
        if shared:
            self._rearm(listener)
        if accepted[0] >= self._handover.fd_limit:
            self._handover.pause_receiving()
        try:
            self._serve(accepted, listener)
        finally:
            self._after()

    def _passes(self, listener: WorkerListener) -> bool:
        """Leaves a connection to siblings that hold fewer; once, and then it takes it."""
        if listener in self._passed:
            self._passed.discard(listener)
            return False
        least = self._handover.least_held()
        if least is None or self._held() <= least + AHEAD_OF_LEAST:
            return False
        self._passed.add(listener)
        self._remove(listener)
        self._loop.call_later(PASS, self._add, listener)
        return True

    def _remove(self, listener: WorkerListener) -> None:
        fd = listener.sock.fileno()
        if self._epoll is not None and fd >= 0:  # an event may come after its end
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def _add(self, listener: WorkerListener) -> None:
        if listener.open and self._epoll is not None and not (self._paused or self._full):
            with contextlib.suppress(FileExistsError):
                self._epoll.register(listener.sock.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def _rearm(self, listener: WorkerListener) -> None:
        self._remove(listener)
        self._add(listener)

    def look_again(self) -> None:
        """A connection may wait for which a worker was woken that is gone: to be added to an epoll
        anew shows it."""
        for listener in self._added:
            if listener.open and not (self._paused or self._full or listener in self._passed):
                self._rearm(listener)

    def serve_accepted(self) -> None:
        """Serves what acceptor threads have accepted, and lets them go on."""
        while self.accepted:
            accepted, listener = self.accepted.popleft()
            self._serve(accepted, listener)
        for thread in self._threads:
            if thread.problem is not None:
                problem, thread.problem = thread.problem, None
                if problem.errno != errno.ENOTSOCK:
                    self._pause(problem)
            elif not (self._paused or self._full):
                thread.resume()

    # Pauses, and the end.

    def _pause(self, problem: OSError) -> None:
        """Accepts nothing for a moment: no descriptor is left, or the like."""
        if problem.errno not in QUEUE_EMPTY and self._error_limit.due():
            logs.event("error", "accept failed", reason=problem.strerror)
        self._paused = True
        for listener in self.listeners:
            if listener.open:
                self._remove(listener)
        self._loop.call_later(PAUSE, self._resume)

    def _resume(self) -> None:
        self._paused = False
        self._add_all()
        self._after()

    def _add_all(self) -> None:
        for listener in self.listeners:
            self._add(listener)
        self.serve_accepted()

    def set_full(self, full: bool) -> None:
        """Whether the worker has as many calls as it may have: it then leaves connections to
        others."""
        if full == self._full:
            return
        self._full = full
        if full:
            for listener in self.listeners:
                if listener.open:
                    self._remove(listener)
        else:
            self._add_all()

    def replace_listeners(self, drained: tuple[int, ...]) -> None:
        """Stops accepting at all listeners but those that are to be drained, by their number; may
        be called by a signal handler (main thread)."""
        self.draining = bool(drained)
        for listener in self.listeners:
            if listener.number in drained or not listener.open:
                continue
            # Another process shares the open file description: events of a registration that is
            # left would not end with the descriptor (epoll(7)).
            self._remove(listener)
            if self._epoll is None:
                listener.stop_accepting()
            listener.open = False

    def stop_acceptors(self) -> None:
        """Ends the acceptor threads."""
        for thread in self._threads:
            thread.stop()

    def forget_listeners(self) -> None:
        """Takes closed listeners out of the loop's own books."""
        if self._epoll is not None:
            for listener in self.listeners:
                if not listener.open and listener.sock.fileno() >= 0:
                    self._loop.remove_reader(listener.sock.fileno())
                    listener.close()

    def drain(self) -> None:
        """Accepts one connection from each listener, and closes it if its queue is empty."""
        self.draining = False
        for listener in self.listeners:
            if not listener.open:
                continue
            listener.sock.setblocking(False)
            try:
                accepted = listener.sock._accept()  # type: ignore[attr-defined]
            except OSError as problem:
                if problem.errno in QUEUE_EMPTY:
                    self._remove(listener)
                    self._loop.remove_reader(listener.sock.fileno())
                    listener.close()
                    continue
                # Without a free descriptor, accept4 does not even report an empty queue.
                if not listener.release_spare():
                    self._pause(problem)
            else:
                self._serve(accepted, listener)
            self.draining = True
