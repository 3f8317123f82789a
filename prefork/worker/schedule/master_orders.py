"""The master's orders to a worker, which come through the channel, and its signals.

A signal handler may carry them out in the middle of a request of the main thread: that is how a
worker that hangs in its application still stops accepting.
"""

import os
import signal
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from prefork import stopping
from prefork.channel import (
    Channel,
    ExpireOrder,
    InboxesOrder,
    LeavingReport,
    Order,
    ReopenedReport,
    ReopenOrder,
    RetireOrder,
    ServeOrder,
    StopOrder,
    TerminatedReport,
)
from prefork.worker.schedule.accept import WAKE, MainAcceptor
from prefork.worker.schedule.handover import Handover
from prefork.worker.schedule.pending_work import PendingWork
from prefork.worker.schedule.service_interface import Service
from prefork.worker.schedule.wakeup import Wakeup


class StoppableAccepting(Protocol):
    """What accepts the worker's connections."""

    def replace_listeners(self, drained: tuple[int, ...]) -> None:
        """Stops accepting at all listeners but those that are to be drained, by their number."""

    def stop_acceptors(self) -> None:
        """Ends the acceptor threads."""


class InboxWatcher(Protocol):
    """What has to know that there is an inbox."""

    def wake(self) -> None: ...


ReplaceLogs = Callable[[tuple[str, ...], list[int]], None]
"""Takes the paths of log files and their new descriptors."""


class MasterOrders:
    """Reads the orders and carries them out."""

    def __init__(
        self,
        channel: Channel,
        master: int,
        service: Service,
        replace_logs: ReplaceLogs,
        pending: PendingWork,
        main: MainAcceptor,
        accepting: StoppableAccepting,
        handover: Handover,
        watcher: InboxWatcher,
        wakeup: Wakeup,
    ) -> None:
        """`master`: its process id."""
        self.serving = False
        """The master has ordered the worker to serve."""
        self._channel = channel
        self._master = master
        self._service = service
        self._replace_logs = replace_logs
        self._pending = pending
        self._main = main
        self._accepting = accepting
        self._handover = handover
        self._watcher = watcher
        self._wakeup = wakeup
        self.closed = False
        """The channel has ended: the master is gone."""
        self._asked_to_leave = False
        self.terminate_handler = self._on_terminate  # one object, to be compared

    def install_handlers(self) -> None:
        """Handles SIGTERM and WAKE from now on (main thread)."""
        signal.signal(signal.SIGTERM, self.terminate_handler)
        signal.signal(WAKE, self._on_wake)

    def _on_wake(self, *_: object) -> None:
        """Signal handler: there is an order in the channel."""
        armed = self._main.disarm()
        self.read()
        self._interrupt(armed)

    def _on_terminate(self, *_: object) -> None:
        """Signal handler: SIGTERM, from any process, or by the death of the master.

        A second signal needs no order: the master may hang.
        """
        armed = self._main.disarm()
        if os.getppid() != self._master:
            self._handover.master_gone()
            self._stop(())
        elif self._asked_to_leave:
            self._stop(())
        else:
            self.ask_to_leave()
        self._interrupt(armed)

    def ask_to_leave(self) -> None:
        """Asks the master for the order to leave: it may have been told to stop, too, and then
        there is nobody else for the queues."""
        if not self._asked_to_leave:
            self._asked_to_leave = True
            if not self._channel.send(TerminatedReport()):
                self._stop(())

    def _interrupt(self, armed: bool) -> None:
        self._pending.check_orders = True
        self._wakeup.set()
        self._main.interrupt(armed)

    def read(self) -> None:
        """Carries out all orders that are in the channel."""
        try:
            while not self.closed and (packet := self._channel.receive_order()) is not None:
                order, fds = packet
                self._obey(order, fds)
        except EOFError:
            self.closed = True
            self._handover.master_gone()
            self._stop(())

    def _obey(self, order: Order, fds: list[int]) -> None:
        if isinstance(order, ServeOrder):
            self.serving = True
        elif isinstance(order, StopOrder):
            self._stop(order.listeners, order.seconds)
        elif isinstance(order, RetireOrder):
            self._stop((), order.seconds)  # the queue is for the other workers
        elif isinstance(order, ExpireOrder):
            self._service.expire_requests(monotonic())
            self._stop(())
        elif isinstance(order, ReopenOrder):
            self._replace_logs(order.paths, fds)
            if len(fds) == len(order.paths):  # recvmsg(2) drops those beyond the process's limit
                self._channel.send(ReopenedReport(order.number))
        elif isinstance(order, InboxesOrder):
            self._handover.set_inboxes(order.kind, order.slots, fds, own=order.own)
            self._watcher.wake()

    def _stop(self, drained: tuple[int, ...], seconds: float | None = None) -> None:
        """Stops accepting, but for some listeners, whose queues are emptied before.

        `seconds`: until the worker is killed, 0 for never; None for `graceful_timeout`."""
        pending = self._pending
        if pending.stopping:
            return
        pending.stopping = pending.check_orders = True
        stopping.set()
        self._handover.stop_receiving()
        self._accepting.replace_listeners(drained)
        self._service.begin_shutdown(seconds)
        self._accepting.stop_acceptors()
        self._channel.send(LeavingReport())
