"""accept4(): how a worker waits for connections, and stops waiting without losing one.

The kernel wakes exactly one of the threads that block in accept4(2) on a socket, in turn; that
balances the workers.  So the listener stays blocking and is in no epoll.  The only question is how
to bring a thread out of accept4 again.

The main thread: CPython restarts an interrupted system call (PEP 475) unless the signal's handler
raises, and an exception after the call has returned would lose the accepted connection.  So one C
call accepts and stores, and the handler raises only while that call is armed: the connection is
then either in the list or still in the kernel's queue.

An acceptor thread runs no handlers.  Its descriptor is replaced by /dev/null (dup2(2)), so that the
next accept4 fails, and the thread is interrupted until it has stopped.
"""

import contextlib
import errno
import signal
from collections import deque
from collections.abc import Callable
from itertools import islice

from prefork import stack_dump
from prefork.unpatched import Lock, sleep
from prefork.worker.schedule.kernel_thread import KernelThread
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener

WAKE = signal.SIGRTMIN + 1
"""Brings a thread out of accept4. Real-time, since libraries use SIGURG and SIGUSR1."""

NEEDED_SIGNALS = frozenset(
    {signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD, WAKE, stack_dump.SIGNAL}
)
"""Those that reach a worker: the application may have blocked them."""

# accept(2): errors of the connection, not of the listener; the next connection may be good.
_CONNECTION_ERRORS = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})

QUEUE_EMPTY = frozenset({errno.EAGAIN, errno.EINVAL})
"""Errors of accept(2) on a listener that is being closed, once its queue is empty.

EINVAL comes from a Unix socket that was shut down for reading."""


def start_without_signals(thread: KernelThread) -> None:
    """Starts a thread that blocks all signals from its first moment on; main thread only.

    A thread that does not block them may be given a signal of the process that has woken the main
    thread already, which then goes on waiting in its system call.  For the same reason no other
    thread may call this: it unblocks the signals again at the end.

    Raises RuntimeError if the kernel has no room for another thread.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class AcceptInterrupted(BaseException):
    """Raised by a signal handler to bring the main thread out of accept4."""


class MainAcceptor:
    """Accepts in the main thread, and can be interrupted by a signal handler."""

    def __init__(self) -> None:
        self.armed = False
        """The main thread is in accept4, or about to be."""

    def disarm(self) -> bool:
        """The first call in a signal handler; returns the argument for `interrupt` at its end.

        Without it, a second handler could raise into the first one, and an order of the master
        would be carried out by half.
        """
        armed, self.armed = self.armed, False
        return armed

    def interrupt(self, armed: bool) -> None:
        """The last call in a signal handler: raises AcceptInterrupted if the main thread waits."""
        if armed:
            raise AcceptInterrupted

    def accept(self, listener: WorkerListener, accepted: list[AcceptedSocket]) -> OSError | None:
        """Waits for a connection and appends it to `accepted`.

        Appends nothing if it was interrupted.  Returns the listener's error if there is one; see
        QUEUE_EMPTY.

        A signal is missed if it comes after the interpreter's last check and before the kernel is
        in accept4 (a window of some hundred nanoseconds): its sender repeats it.  Still racy: a
        signal that comes while the collector runs code of the application at the very start of
        another signal's handler brings nobody out, nor do later ones; the next connection does, or
        the master's time limit ends the worker.
        """
        problem, fairness = None, listener.fairness
        # Made before: an exception that a handler raises in code which the collector runs is lost.
        taken = islice(iter(listener.sock._accept, None), 1)  # type: ignore[attr-defined]
        if fairness is not None:
            fairness.set_waiting()
        try:
            try:
                self.armed = True
                # One C call accepts the connection and stores it: no handler can come between.
                accepted.extend(taken)
                self.armed = False
            except OSError as error:
                self.armed = False
                problem = error
        except AcceptInterrupted:
            pass
        if fairness is not None:
            fairness.clear_waiting()
        if problem is not None and problem.errno in _CONNECTION_ERRORS:
            return None
        return problem


class AcceptorThread:
    """A thread that waits in accept4 in place of the main thread while that waits in the epoll.

    It runs no application code: it accepts, wakes the main thread, and accepts again only if it
    may.
    """

    def __init__(
        self,
        listener: WorkerListener,
        accepted: deque[tuple[AcceptedSocket, WorkerListener]],
        wake: Callable[[], None],
        may_continue: Callable[[], bool],
    ) -> None:
        """`accepted`: receives the connections.  `wake`: is called after each.  `may_continue`:
        whether to accept another at once; called after each connection, in this thread."""
        self.listener = listener
        self.accepting = False
        """It accepts, or was asked to and has not begun."""
        self.problem: OSError | None = None
        """The error for which it has stopped accepting, if there was one."""
        self._accepted = accepted
        self._wake = wake
        self._may_continue = may_continue
        # Released to let the thread accept. A plain lock: a semaphore's own lock would be held
        # when a signal handler comes in the middle of `resume` and calls `stop`.
        self._gate = Lock()
        self._gate.acquire()
        self._stopped = False
        self._thread: KernelThread | None = None

    def start(self) -> None:
        """Starts the thread, which waits for `resume`; see `start_without_signals`."""
        thread = KernelThread(self._run)
        start_without_signals(thread)
        self._thread = thread

    def resume(self) -> None:
        """Lets the thread accept."""
        if self.accepting or self._stopped:
            return
        self.accepting = True
        self._open_gate()

    def stop(self) -> None:
        """Ends accepting in this thread for good (main thread, or its signal handler).

        All that it has accepted is in `accepted` when this returns.  Before, the listener was
        replaced (`stop_accepting`) or made non-blocking.
        """
        self._stopped = True
        self._open_gate()
        thread = self._thread
        while self.accepting and thread is not None and thread.ident is not None:
            # Repeated: the thread may be just outside the system call that is to be interrupted.
            with contextlib.suppress(ProcessLookupError):
                signal.pthread_kill(thread.ident, WAKE)
            sleep(0.0005)

    def _open_gate(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is open, and the thread was not there yet
            self._gate.release()

    def _run(self) -> None:
        # Signals of the process are for the main thread; only WAKE is sent to this thread.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {WAKE})
        accept = self.listener.sock._accept  # type: ignore[attr-defined]
        fairness = self.listener.fairness
        while True:
            self._gate.acquire()
            self.problem = None
            while not self._stopped:
                if fairness is not None:
                    fairness.yield_to_woken()
                    fairness.set_waiting()
                try:
                    self._accepted.append((accept(), self.listener))
                except OSError as problem:
                    if problem.errno in _CONNECTION_ERRORS:
                        continue
                    self.problem = problem
                    break
                finally:
                    if fairness is not None:
                        fairness.clear_waiting()
                if not self._may_continue():
                    break
                self._wake()
            # Read before `accepting` is cleared: from then on the main thread may call `resume`
            # and then `stop`, which waits until the thread has stopped once more.
            over = self._stopped
            self.accepting = False
            self._wake()
            if over:
                return
