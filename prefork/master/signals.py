"""What each signal to the master does.

A signal handler does nothing.  The interpreter writes the number of each signal into a pipe
(signal.set_wakeup_fd), and the signal is handled when the loop reads it there.
"""

import contextlib
import errno
import os
import selectors
import signal
from collections.abc import Iterable
from time import monotonic

from prefork import logs
from prefork.master.operations import Operations
from prefork.master.periodic import Periodic

_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1),
    *(signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGCHLD),
)


class SignalPipe(Periodic):
    """Receives signals and carries out the operation of each."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._operations: Operations | None = None
        self._fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        selector.register(self._fd, selectors.EVENT_READ, lambda _: self.take())

    def listen(self, operations: Operations) -> None:
        """From now on, signals are received."""
        self._operations = operations
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)

    def take(self) -> None:
        """Handles the signals that have arrived by now."""
        with contextlib.suppress(BlockingIOError):
            while numbers := os.read(self._fd, 4096):
                for number in numbers:
                    self._handle(signal.Signals(number))

    def descriptors(self) -> Iterable[int]:
        return self._fd, self._writer

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
                operations.reopen()
            case signal.SIGUSR2:
                operations.upgrade()
            case signal.SIGTTIN:
                operations.grow(1)
            case signal.SIGTTOU:
                operations.grow(-1)
            case signal.SIGWINCH if not _has_terminal():
                operations.withdraw()


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4)), which sends WINCH on resize.

    Also true if that can't be found out for want of descriptors: then the workers stay.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return True
