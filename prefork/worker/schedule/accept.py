"""accept4(): where a worker waits for connections, and how it leaves without losing one.

The kernel wakes exactly one of those who block in accept4(2) on a socket, in turn; that is what
balances the workers.  So the listener stays blocking, nobody selects on it, and the one question
is how to come back out.

The main thread: CPython restarts an interrupted system call (PEP 475) unless the signal's handler
raises, and an exception after the call has returned would lose what it accepted.  So to accept
and to store is one C call here, and the handler raises only while that call is armed: the
connection is then either in the list or still in the kernel's queue.

An acceptor thread runs no handlers.  Its descriptor is replaced by /dev/null (dup2(2)), so that
the next accept4 fails, and it is interrupted until it says that it is out.
"""

import contextlib
import errno
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from prefork.http.request import Environ
from prefork.worker.schedule.fairness import AcceptFairness

WAKE = signal.SIGRTMIN + 1
"""What brings a thread out of its place. Real-time, since libraries use SIGURG and SIGUSR1."""

Arrival = tuple[int, Any]
"""A descriptor and the peer's address, as accept(2) gave them."""

# accept(2): errors of the connection, not of the listener; the next may be good.
_CONNECTION_ERRORS = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})

QUEUE_EMPTY = frozenset({errno.EAGAIN, errno.EINVAL})
"""What accept(2) ends in once a listener's end has begun and its queue is empty: EINVAL for a Unix
socket that was shut for reading."""


def start_deaf(thread: threading.Thread) -> None:
    """Starts a thread that has all signals blocked from its first moment on (main thread).

    Whoever lets signals in may be given one for the process that has woken the main thread already,
    which then goes on waiting in its system call.  That is also why no other thread is to call
    this: it lets them in again at the end.

    Raises RuntimeError where there is no room for another thread.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class LeaveAccept(BaseException):
    """Raised by a signal handler: the main thread is to leave its place in accept4."""


class WorkerListener:
    """One listener as one worker sees it."""

    __slots__ = (
        "admit",
        "base",
        "converse",
        "inode",
        "null",
        "open",
        "recall",
        "sock",
        "trusts",
        "turn",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.base: Environ = {}
        """What the environ of each request that comes in here begins with."""
        self.open = True
        self.converse: Any = None
        """What makes a conversation of a connection that comes in here, where the service has
        some."""
        self.turn: AcceptFairness | None = None
        """Who of several workers is to accept next, where that can be told."""
        self.recall: Any = None
        """Where heads that come again are found, where the service looks for them."""
        self.admit: Any = None
        """What is asked when a PROXY header has named the client, where the service has bounds."""
        self.trusts: Callable[[str], bool] | None = None
        """Which peers are proxies that speak for many clients."""
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        """What takes the listener's place; here from the start, since descriptors can run out."""
        self.inode = os.fstat(sock.fileno()).st_ino
        """Of the listener's socket: its name among all processes that have it."""

    def shut(self) -> None:
        """Nothing more comes in here; the listener itself lives on in other processes.

        The descriptor's number stays in use, so that a thread that is just about to accept on
        it fails, and does not accept from whatever would get the number next.
        """
        self.open = False
        os.dup2(self.null, self.sock.fileno(), inheritable=False)

    def make_room(self) -> bool:
        """Gives up a descriptor, so that one more connection can be accepted, whose is free again
        at its end; False where that was done before.  Only where `close` is to come, not `shut`."""
        null, self.null = self.null, -1
        if null < 0:
            return False
        os.close(null)
        return True

    def close(self) -> None:
        """The queue is empty, and no thread waits at it: nothing more comes in here."""
        self.open = False
        self.sock.close()
        self.make_room()


class MainAcceptor:
    """The main thread's way into accept4 and out of it."""

    def __init__(self) -> None:
        self.armed = False

    def disarm(self) -> bool:
        """The first thing in a signal handler: whether `interrupt` is to raise at its end.

        Another handler that comes in the middle of it would else raise into it, and half of an
        order would be carried out.
        """
        armed, self.armed = self.armed, False
        return armed

    def interrupt(self, armed: bool) -> None:
        """The last thing in a signal handler: raises Leave where the main thread waits."""
        if armed:
            raise LeaveAccept

    def accept(self, door: WorkerListener, got: list[Arrival]) -> OSError | None:
        """Waits for a connection and appends it to `got`.

        Comes back with nothing when it was interrupted.  Returns the listener's error where
        there is one; see QUEUE_EMPTY.

        A signal that comes after the last check of the interpreter and before the kernel is in
        accept4 is missed (a window of some hundred nanoseconds): whoever sent it repeats it.
        Still racy: one that comes while the collector runs code of the application's at the very
        start of a handler (of another signal) brings nobody out, nor do those after it; the next
        connection does, or the time to leave is up.
        """
        problem, turn = None, door.turn
        # Made before: an exception that a handler raises in code which the collector runs is lost.
        taken = islice(iter(door.sock._accept, None), 1)  # type: ignore[attr-defined]
        if turn is not None:
            turn.begin()
        try:
            try:
                self.armed = True
                # One C call takes the connection and stores it: no handler can come between.
                got.extend(taken)
                self.armed = False
            except OSError as error:
                self.armed = False
                problem = error
        except LeaveAccept:
            pass
        if turn is not None:
            turn.end()
        if problem is not None and problem.errno in _CONNECTION_ERRORS:
            return None
        return problem


class AcceptorThread:
    """A thread that takes the main thread's place in accept4 while that waits in the epoll.

    It runs no application code: it accepts, says so, and accepts again only if it may.
    """

    def __init__(
        self,
        door: WorkerListener,
        arrivals: deque[tuple[Arrival, WorkerListener]],
        wake: Callable[[], None],
        go_on: Callable[[], bool],
    ) -> None:
        """`go_on`: whether to accept another at once; asked after each, in this thread."""
        self.door = door
        self.in_place = False
        self.problem: OSError | None = None
        """Why it left its place, where that was an error."""
        self._arrivals = arrivals
        self._wake = wake
        self._go_on = go_on
        # Held while the thread has no turn. A plain lock: a semaphore's own lock would be held
        # when a signal handler comes in the middle of `post` and wants to dismiss.
        self._turn = threading.Lock()
        self._turn.acquire()
        self._dismissed = False
        self._thread: threading.Thread | None = None

    def start(self) -> bool:
        """Makes the thread; False, with `problem`, where there is no room for it."""
        thread = threading.Thread(target=self._run, name="acceptor", daemon=True)
        try:
            start_deaf(thread)
        except RuntimeError as problem:  # pthread_create(3)
            self.problem = OSError(errno.ENOMEM, str(problem))
            return False
        self._thread = thread
        return True

    def post(self) -> None:
        """Sends the thread to its place; makes it first, where `start` did not or had no room.

        In a worker with a crew it may be one of that which makes it then, and be given a signal
        (see `start_deaf`): the master repeats its orders, a TERM from outside may be seen late.
        """
        if self.in_place or self._dismissed:
            return
        self.in_place = True
        if self._thread is None and not self.start():
            self.in_place = False
            return
        self._give_turn()

    def dismiss(self) -> None:
        """Brings the thread out of its place for good (main thread, or its signal handler).

        What it accepted last is among the arrivals when this returns.  The door is shut, or its
        listener was made non-blocking, before.
        """
        self._dismissed = True
        self._give_turn()
        thread = self._thread
        while self.in_place and thread is not None and thread.ident is not None:
            # Repeated: it may be just outside the system call that is to be interrupted.
            with contextlib.suppress(ProcessLookupError):
                signal.pthread_kill(thread.ident, WAKE)
            time.sleep(0.0005)

    def _give_turn(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has one that it has not taken yet
            self._turn.release()

    def _run(self) -> None:
        # Signals for the process are for the main thread; this one is only ever kicked.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {WAKE})
        accept, turn = self.door.sock._accept, self.door.turn  # type: ignore[attr-defined]
        while True:
            self._turn.acquire()
            self.problem = None
            while not self._dismissed:
                if turn is not None:
                    turn.let_pass()
                    turn.begin()
                try:
                    self._arrivals.append((accept(), self.door))
                except OSError as problem:
                    if problem.errno in _CONNECTION_ERRORS:
                        continue
                    self.problem = problem
                    break
                finally:
                    if turn is not None:
                        turn.end()
                if not self._go_on():
                    break
                self._wake()
            # Looked at before it says that it is out: from then on the main thread may post it
            # anew and dismiss it after that, and the dismissal waits for the new turn's end.
            over = self._dismissed
            self.in_place = False
            self._wake()
            if over:
                return
