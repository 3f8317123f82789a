"""What each signal to the master does.

A signal handler does nothing.  The interpreter writes the number of each signal into a pipe
(signal.set_wakeup_fd), and the signal is handled when the loop reads it there.  Those that a
terminal sends, too, are blocked and read with their sender (signalfd(2)).
"""

import contextlib
import os
import selectors
import signal
from collections.abc import Iterable
from time import monotonic

from prefork import linux, logs
from prefork.master.controlling_terminal import (
    TERMINAL_SIGNALS,
    ends_with_terminal,
    has_terminal,
    is_of_terminal,
)
from prefork.master.operations import Operations
from prefork.master.periodic import Periodic
from prefork.master.snapshot import MasterSnapshot

HANDLED_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1),
    *(signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH),
)
"""Those that have a meaning for the master."""

_REASONS = {
    signal.SIGHUP: "its terminal has ended, and no operator has sent it",
    signal.SIGTTIN: "the kernel sent it: a process of this server reads from the terminal in the"
    " background; no operator has sent it",
    signal.SIGTTOU: "the kernel sent it: a process of this server writes to the terminal in the"
    " background; no operator has sent it",
}


class SignalPipe(Periodic):
    """Receives signals and carries out the operation of each."""

    def __init__(self, selector: selectors.BaseSelector, adopted: MasterSnapshot | None) -> None:
        """`adopted`: of the master before this one, if there was one."""
        self.ends_with_terminal = (
            ends_with_terminal() if adopted is None else adopted.ends_with_terminal
        )
        """The end of the terminal stops the server."""
        self._operations: Operations | None = None
        self._ignored: set[signal.Signals] = set()
        self._fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._blocked = linux.signal_descriptor(TERMINAL_SIGNALS)
        for fd in (self._fd, self._blocked):
            selector.register(fd, selectors.EVENT_READ, lambda _: self.take())

    def listen(self, operations: Operations) -> None:
        """From now on, signals are received."""
        self._operations = operations
        signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (*HANDLED_SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def unblock(self, blocked: Iterable[int]) -> None:
        """Lets signals arrive, but those that were `blocked` when the server was started."""
        signal.pthread_sigmask(signal.SIG_SETMASK, {*blocked, *TERMINAL_SIGNALS})

    def take(self) -> None:
        """Handles the signals that have arrived by now."""
        with contextlib.suppress(BlockingIOError):
            while numbers := os.read(self._fd, 4096):
                for number in numbers:
                    self._handle(signal.Signals(number))
        for info in linux.read_signals(self._blocked):
            if is_of_terminal(info):
                self._handle_of_terminal(signal.Signals(info.number))
            else:
                self._handle(signal.Signals(info.number))

    def run(self, now: float) -> None:
        """Handles the signals that have arrived during this round's wait.

        TERM may be sent to the whole process group: no worker that it ends is to be replaced.
        """
        self.take()

    def descriptors(self) -> Iterable[int]:
        return self._fd, self._writer, self._blocked

    def close(self) -> None:
        signal.set_wakeup_fd(-1)

    def _handle_of_terminal(self, number: signal.Signals) -> None:
        if self._operations is None:
            return
        if number is signal.SIGHUP and self.ends_with_terminal:
            logs.event("info", "terminal closed", signal=number.name)
            self._operations.ensure_stop()
        elif number not in self._ignored:  # a process that reads sends thousands in a second
            self._ignored.add(number)
            logs.event("warning", "signal ignored", signal=number.name, reason=_REASONS[number])

    def _handle(self, number: signal.Signals) -> None:
        operations = self._operations
        if number is signal.SIGCHLD or operations is None:
            return  # SIGCHLD only wakes the loop, which reaps children in each round
        now = monotonic()
        logs.event("info", "signal received", signal=number.name)
        match number:
            case signal.SIGTERM:
                operations.stop(now)
            case signal.SIGINT | signal.SIGQUIT:
                operations.quit(now)
            case signal.SIGHUP:
                operations.reload(None)
            case signal.SIGUSR1:
                operations.reopening.begin()
            case signal.SIGUSR2:
                operations.upgrade()
            case signal.SIGTTIN:
                operations.grow(1)
            case signal.SIGTTOU:
                operations.grow(-1)
            case signal.SIGWINCH if not has_terminal():
                operations.withdraw()
