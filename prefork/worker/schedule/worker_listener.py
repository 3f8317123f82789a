"""A listener as one worker has it."""

import os
import socket
from collections.abc import Callable
from typing import Any

from prefork.http.request import Environ
from prefork.worker.schedule.fairness import AcceptFairness

AcceptedSocket = tuple[int, Any]
"""A descriptor and the peer's address, as accept(2) gave them."""


class WorkerListener:
    """The worker's own descriptor of a listening socket that all workers share."""

    __slots__ = (
        "admit",
        "base",
        "converse",
        "fairness",
        "inode",
        "open",
        "recall",
        "sock",
        "spare_fd",
        "trusts",
    )

    def __init__(self, sock: socket.socket) -> None:
        """Raises OSError if no descriptor is left for the spare one."""
        self.sock = sock
        self.base: Environ = {}
        """What the environ of each request that comes in here begins with."""
        self.open = True
        self.converse: Any = None
        """Makes the connection object of an accepted socket, if the service has some."""
        self.fairness: AcceptFairness | None = None
        """Decides which worker accepts next, if that can be found out."""
        self.recall: Any = None
        """Cache of request heads, if the service uses one."""
        self.admit: Any = None
        """Is asked when a PROXY header has named the client, if the service has bounds."""
        self.trusts: Callable[[str], bool] | None = None
        """Which peers are proxies that speak for many clients."""
        self.spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        """Replaces the listener. It is opened early, since descriptors can run out."""
        self.inode = os.fstat(sock.fileno()).st_ino
        """Of the listener's socket: it names the listener in all processes that share it."""

    def stop_accepting(self) -> None:
        """Accepts nothing more here; the listener itself lives on in other processes.

        The descriptor's number stays in use.  So a thread that is about to call accept4(2) on it
        gets an error, and does not accept from a socket that has got the number meanwhile.
        """
        self.open = False
        os.dup2(self.spare_fd, self.sock.fileno(), inheritable=False)

    def release_spare(self) -> bool:
        """Closes the spare descriptor, so that one more connection can be accepted.

        Returns False if it was closed before.  For a listener that ends with `close`, not with
        `stop_accepting`.
        """
        spare, self.spare_fd = self.spare_fd, -1
        if spare < 0:
            return False
        os.close(spare)
        return True

    def close(self) -> None:
        """Ends accepting here. The queue is empty, and no thread waits in accept4(2)."""
        self.open = False
        self.sock.close()
        self.release_spare()
