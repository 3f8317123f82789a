"""A listener as one worker has it."""

import socket
from collections.abc import Iterable

from prefork.scoreboard import LISTENERS, AcceptFlags
from prefork.unpatched import os
from prefork.worker.schedule.fairness import AcceptFairness
from prefork.worker.schedule.handover import Handover, PeerAddress, inode_of

AcceptedSocket = tuple[int, PeerAddress]
"""The descriptor of an accepted connection, and the peer's address."""


class WorkerListener:
    """The worker's own descriptor of a listening socket that all workers share."""

    __slots__ = ("fairness", "inode", "number", "open", "sock", "spare_fd")

    def __init__(
        self, sock: socket.socket, number: int = 0, fairness: AcceptFairness | None = None
    ) -> None:
        """`number`: the same for all workers of a generation.  `fairness`: decides which worker
        accepts next, if that can be found out.

        Raises OSError if no descriptor is left for the spare one.
        """
        self.sock = sock
        self.number = number
        self.fairness = fairness
        self.open = True
        self.spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        """Replaces the listener. It is opened early, since descriptors can run out."""
        self.inode = inode_of(sock)
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


def worker_listeners(
    socks: Iterable[socket.socket], flags: AcceptFlags, handover: Handover
) -> list[WorkerListener]:
    """The listeners of a worker, in the generation's order.

    There is fairness for the first TCP ones only: the length of a Unix socket's queue costs too
    much to ask, and the scoreboard has accept flags for few.
    """
    listeners = []
    for number, sock in enumerate(socks):
        fairness = None
        if number < LISTENERS and sock.family != socket.AF_UNIX:
            fairness = AcceptFairness(sock, flags, handover, number)
        listeners.append(WorkerListener(sock, number, fairness))
    return listeners
