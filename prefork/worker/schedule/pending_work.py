"""What a worker has to do, as its threads share it."""

import os
from collections import deque

from prefork.worker.schedule.handover import HOPS, Handover, HandoverMessage
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener


class PendingWork:
    """State that the serving threads, the acceptors, the watcher and signal handlers share."""

    __slots__ = (
        *("_main_fds", "accepted", "check_orders", "events", "received", "serving_since"),
        *("stopping", "watcher_asleep"),
    )

    def __init__(self, *main_fds: int) -> None:
        """`main_fds`: descriptors in the epoll whose events are the main thread's."""
        self._main_fds = main_fds
        self.serving_since = 0.0
        """Monotonic seconds at which the leader came back from the epoll; 0 while it waits
        there."""
        self.stopping = False
        """The worker has begun to stop."""
        self.check_orders = False
        """The main thread has to read the master's orders, or to act on one."""
        self.watcher_asleep = False
        """A thread that begins to serve has to wake the watcher."""
        self.accepted: deque[tuple[AcceptedSocket, WorkerListener]] = deque()
        """Connections that acceptor threads have accepted."""
        self.received: deque[tuple[HandoverMessage, int]] = deque()
        """Connections from the inbox."""
        self.events: deque[tuple[int, int]] = deque()
        """(descriptor, events) that the last look into the epoll found (several threads only)."""

    def forward_received(self, handover: Handover) -> bool:
        """Hands over to idle siblings what came from the inbox, as far as it may move once more;
        returns whether anything went."""
        received, moved = self.received, False
        for _ in range(len(received)):
            try:
                message, fd = received.popleft()
            except IndexError:  # another thread has taken it
                break
            if message.hops < HOPS and handover.send(message, fd, only_idle=True):
                os.close(fd)
                moved = True
            else:
                received.append((message, fd))
        return moved

    def is_for_main(self, fd: int) -> bool:
        """Another thread has got an event: leaves it to the main thread if it is for that."""
        if fd in self._main_fds:
            self.check_orders = True
            return True
        return False
