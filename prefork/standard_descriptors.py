"""Standard descriptors that the program which started this one has closed."""

import os
import sys


def open_closed() -> None:
    """Opens /dev/null in place of closed ones: they would become a socket or memory of ours, and
    what a program prints would go into it.

    So this comes before most imports: libffi, which ctypes loads, may keep its own file open.

    Raises OSError if there is no /dev/null.
    """
    null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free (open(2))
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
