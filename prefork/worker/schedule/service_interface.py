"""What the worker's loop needs of a service."""

from typing import Protocol

from prefork.scoreboard import ThreadRecord
from prefork.worker.schedule.handover import HandoverMessage
from prefork.worker.schedule.poller import EventPoller
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener


class Service(Protocol):
    """What is done with connections: prefork.worker.service.http_service or
    prefork.worker.service.tcp_service."""

    @property
    def poller(self) -> EventPoller:
        """The epoll in which its connections are parked."""

    # Called by any thread of the worker, which is identified by its record.

    def serve_accepted(
        self, accepted: AcceptedSocket, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        """Serves or parks a new connection."""

    def serve_received(
        self, message: HandoverMessage, fd: int, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        """Serves or parks a connection that a sibling has handed over."""

    def serve_ready(self, fd: int, events: int, record: ThreadRecord, now: float) -> float:
        """Goes on with a parked connection; returns the monotonic seconds when that was over.

        `now`: as of a moment ago."""

    def close_overdue(self, now: float, record: ThreadRecord) -> None:
        """Ends the connections whose deadline has passed."""

    def hand_over(self, fd: int, slot: int | None = None) -> bool:
        """Hands a parked connection over, to an idle sibling or to the one in a slot; returns
        False if it stays."""

    def hand_over_all(self) -> bool:
        """Hands over all parked connections that can move, to any sibling that receives them.

        Returns whether one of them stays for which no sibling has room."""

    def begin_shutdown(self, seconds: float | None = None) -> None:
        """The requests that run now are the last of their connections.

        `seconds`: until the worker is killed, 0 for never; None for `graceful_timeout`.
        May be called by a signal handler (main thread)."""

    def shut_down_idle(self) -> None:
        """The worker stops: idle connections are handed over, or get a last deadline."""

    def expire_requests(self, now: float) -> None:
        """Gives up the requests over their timeout; may be called by a signal handler."""

    def flush(self) -> None:
        """The worker is about to wait: writes what was kept for a batch."""

    def after_fork_in_child(self) -> None:
        """In a child that the application has forked: closes what is the worker's alone."""
