"""The state of the process at the start: what the program that started it may have left behind.

fork(2) and execve(2) keep the signal mask, ignored signals and descriptors.
"""

import contextlib
import signal
from collections.abc import Iterator

from prefork import StartError, standard_descriptors, system_errors


@contextlib.contextmanager
def known_state() -> Iterator[None]:
    """Standard descriptors are open, no signal is blocked, and the ends of children are reported.

    Raises StartError if there is no /dev/null.

    At the end, the signal mask and SIGCHLD are as they were: the caller's program may go on.
    """
    try:
        standard_descriptors.open_closed()
    except OSError as error:
        raise StartError(system_errors.explain(error)) from None
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Ignored, the kernel would reap our children, and report no end (waitpid(2)).
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if handler is not None:  # None: it was not set from Python
            signal.signal(signal.SIGCHLD, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
