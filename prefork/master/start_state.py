"""The state of the process at the start: what the program that started it may have left behind.

fork(2) and execve(2) keep the signal mask, ignored signals and descriptors.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from prefork import StartError, system_errors


@contextlib.contextmanager
def known_state() -> Iterator[None]:
    """Standard descriptors are open, no signal is blocked, and the ends of children are reported.

    Raises StartError if there is no /dev/null.

    At the end, the signal mask and SIGCHLD are as they were: the caller's program may go on.
    """
    _open_standard_descriptors()
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Ignored, the kernel would reap our children, and report no end (waitpid(2)).
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if handler is not None:  # None: it was not set from Python
            signal.signal(signal.SIGCHLD, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _open_standard_descriptors() -> None:
    """Opens /dev/null in place of closed ones: they would become a socket or memory of ours, and
    what a program prints would go into it."""
    try:
        null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free (open(2))
    except OSError as error:
        raise StartError(system_errors.explain(error)) from None
    while null <= 2:
        os.set_inheritable(null, True)
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)
    # The interpreter has None for a stream whose descriptor was closed.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
