"""How an application learns that its worker stops: `prefork.stopping`."""

import os
from _thread import allocate_lock  # not threading: see prefork/__main__.py


class StopNotice:
    """Is set when the worker is ordered to leave, by a reload, a stop or its replacement.

    From then on the worker accepts no connection of its own accord, and calls that run have until
    `workers.graceful_timeout`.  In a process that is not a worker it is never set.
    """

    def __init__(self) -> None:
        self._set = False
        self._lock = allocate_lock()
        self._fd = -1
        self._owner = 0

    def is_set(self) -> bool:
        """Whether the worker was ordered to leave."""
        return self._set

    def fileno(self) -> int:
        """A descriptor that is readable once the notice is set, and stays so.

        It is for select(2), poll(2), epoll(7) and an event loop's `add_reader`; it is not to be
        read or closed.  Each process has its own, so a worker calls this, and not the process that
        preloads.

        Raises OSError if the process has no descriptor left.
        """
        with self._lock:
            if self._owner != os.getpid():
                # One that was inherited by a fork would be set for all workers at once.
                self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._owner = os.getpid()
        if self._set:
            os.eventfd_write(self._fd, 1)  # set() may have come before there was a descriptor
        return self._fd

    def set(self) -> None:
        """Sets the notice; for the worker, which may be in a signal handler."""
        # Without the lock, which the interrupted code may hold: fileno() looks again.
        self._set = True
        if self._owner == os.getpid():
            os.eventfd_write(self._fd, 1)
