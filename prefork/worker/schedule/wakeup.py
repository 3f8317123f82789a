"""Brings a thread out of the epoll."""

import os


class Wakeup:
    """An eventfd(2) that is in the epoll; any thread and any signal handler may set it."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def set(self) -> None:
        """Brings the thread that waits in the epoll out of it; one thread, if there are two."""
        os.eventfd_write(self.fd, 1)

    wake = set
