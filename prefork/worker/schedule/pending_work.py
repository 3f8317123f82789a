"""What a worker has to do, as its threads share it."""

from collections import deque

from prefork.worker.schedule.handover import HandoverMessage
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener


class PendingWork:
    """State that the serving threads, the acceptors and the watcher share."""

    __slots__ = ("accepted", "events", "received", "serving_since", "stopping", "watcher_asleep")

    def __init__(self) -> None:
        self.serving_since = 0.0
        """Monotonic seconds at which the leader came back from the epoll; 0 while it waits
        there."""
        self.stopping = False
        """The worker has begun to stop."""
        self.watcher_asleep = False
        """A thread that begins to serve has to wake the watcher."""
        self.accepted: deque[tuple[AcceptedSocket, WorkerListener]] = deque()
        """Connections that acceptor threads have accepted."""
        self.received: deque[tuple[HandoverMessage, int]] = deque()
        """Connections from the inbox."""
        self.events: deque[tuple[int, int]] = deque()
        """(descriptor, events) that the last look into the epoll found (several threads only)."""
