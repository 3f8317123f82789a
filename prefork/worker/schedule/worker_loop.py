"""The worker's loop: choose where to wait, serve what comes, and stop when the master says so.

There are two places where the main thread waits.  With nothing parked, it blocks in accept4 and
serves on the spot.  With something parked, it waits in the epoll, and an acceptor thread waits in
accept4 for it.  With several listeners it always waits in the epoll, with an acceptor for each.  If
a worker has several threads, another one may wait in the epoll instead.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from prefork.channel import Channel, InboxStuckReport, ReadyReport
from prefork.scoreboard import ThreadRecord
from prefork.worker.schedule.accept import MainAcceptor
from prefork.worker.schedule.accept_strategy import PAUSE, AcceptStrategy
from prefork.worker.schedule.busy_watcher import Watcher
from prefork.worker.schedule.handover import Handover, HandoverMessage, report_lost
from prefork.worker.schedule.master_orders import MasterOrders, ReplaceLogs
from prefork.worker.schedule.pending_work import PendingWork
from prefork.worker.schedule.service_interface import Service
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.schedule.wakeup import Wakeup
from prefork.worker.schedule.worker_listener import WorkerListener

# Without the enum that signal.getsignal makes of its answer, or tries to: 0.6 us at each wait.
_getsignal: Final[Callable[[int], object]] = sys.modules["_signal"].getsignal

_OFFER_AGAIN: Final = 0.05
"""Seconds until a worker that stops offers again the connections for which no sibling had room."""


class WorkerLoop:
    """Runs until the worker has stopped."""

    def __init__(
        self,
        service: Service,
        listeners: Sequence[WorkerListener],
        channel: Channel,
        replace_logs: ReplaceLogs,
        handover: Handover,
        threads: LeaderFollowers | None,
        record: ThreadRecord,
        wakeup: Wakeup,
        *,
        master: int,
    ) -> None:
        """`record`: the main thread's.  `threads`: None if there is no other.  `master`: its
        process id."""
        self._service = service
        self._listeners = listeners
        self._channel = channel
        self._handover = handover
        self._threads = threads
        self._record = record
        self._wakeup = wakeup
        self._poller = service.poller
        self._channel_fd = channel.fileno()
        self._pending = pending = PendingWork(wakeup.fd, self._channel_fd)
        main = MainAcceptor()
        self._watcher = watcher = Watcher(
            *(pending, main, handover, threads, service),
            wake=wakeup.set,
            inbox_stuck=lambda: channel.send(InboxStuckReport()),
            sibling_silent=lambda slot: channel.send(InboxStuckReport(slot)),
        )
        self.accepting = accepting = AcceptStrategy(
            listeners, service, record, pending, main, handover, watcher, wakeup
        )
        self._orders = MasterOrders(
            *(channel, master, service, replace_logs, pending, main, accepting, handover),
            *(watcher, wakeup),
        )
        self._new_first = False
        self._shutting_down = False

    def create_threads(self) -> None:
        """Creates all threads that the worker will ever need; they wait until it serves.

        A worker that could not have them later would say that it is ready and could not serve.
        Raises RuntimeError if the kernel has no room for another thread (pthread_create(3)).
        """
        self.accepting.start_acceptors()
        if self._threads is not None:
            self._threads.start(lambda record: self._wait(None, record))
        self._watcher.create()

    def quit(self) -> bool:
        """The server stops at once: there is nothing to be awaited."""
        return False

    def run(self) -> None:
        """Serves until the worker was ordered to stop and has nothing left to do."""
        orders, pending, accepting = self._orders, self._pending, self.accepting
        # Edge-triggered: each event wakes one thread once, and that need not be the one to read.
        self._poller.watch(self._wakeup.fd, edge=True)
        self._poller.watch(self._channel_fd, edge=True)
        orders.install_handlers()
        self._channel.send(ReadyReport())
        self._wait_for_order_to_serve()
        self._watcher.start()
        if not pending.stopping:
            self._handover.start_receiving()
        threads, record, handler = self._threads, self._record, orders.terminate_handler
        parked = self._poller.parked
        while True:
            if _getsignal(signal.SIGTERM) is not handler:
                orders.install_handlers()  # the application, or its event loop, has replaced it
            if pending.check_orders:
                self._check_orders()
            if threads is not None:
                threads.lead_from_main()
            if pending.stopping and self._finished():
                return
            if accepting.draining:
                accepting.drain()
                self._wait(PAUSE if accepting.paused_until else 0.0, record)
            elif not parked and self._may_block_in_accept():
                accepting.block(notify_watcher=threads is not None)
            else:
                self._wait(self._offer_again() if self._shutting_down else None, record)

    def _wait_for_order_to_serve(self) -> None:
        """Accepts nothing before the master knows that the worker is ready.

        Until then the master may kill a worker that takes too long to boot, which must not have a
        connection.
        """
        while not (self._orders.serving or self._pending.stopping):
            self._poller.wait(monotonic())
            self._orders.read()

    def _check_orders(self) -> None:
        self._pending.check_orders = False
        self._orders.read()
        if self._pending.stopping and not self._shutting_down:
            self._shutting_down = True
            if self._threads is not None:
                self._threads.wake_when_free = True
            self._service.shut_down_idle()

    def _offer_again(self) -> float | None:
        """Offers siblings what they had no room for; returns the seconds until the next time."""
        if not self._poller.parked:
            return None
        if self._handover.has_receiver:
            if not self._service.hand_over_all():
                return None if self._poller.parked else 0.0
        elif not self._handover.expects_receiver:
            return None
        return _OFFER_AGAIN

    def _finished(self) -> bool:
        if not self._nothing_left():
            return False
        # The watcher may just have taken a connection out of the inbox.
        self._watcher.stop()
        return self._nothing_left()

    def _nothing_left(self) -> bool:
        pending = self._pending
        return not (
            self.accepting.draining
            or self._poller.parked
            or pending.accepted
            or pending.received
            or pending.events
            or (self._threads is not None and not self._threads.all_free)
        )

    def _may_block_in_accept(self) -> bool:
        """Whether the main thread, with nothing parked, can wait in accept4: nothing needs it."""
        pending = self._pending
        return (
            self.accepting.may_block
            and not pending.stopping
            and not pending.accepted
            and not pending.received
            and (self._threads is None or (self._threads.all_free and not pending.events))
        )

    # The leader: the main thread, or another one.

    def _wait(self, limit: float | None, record: ThreadRecord) -> None:
        """Waits in the epoll once, and serves what has come.

        `limit`: seconds after which to come back in any case; None for no limit."""
        service, pending, accepting = self._service, self._pending, self.accepting
        now = monotonic()
        if accepting.paused_until:
            if now < accepting.paused_until:
                limit = accepting.paused_until - now if limit is None else limit
            else:
                accepting.paused_until = 0.0
        if not (pending.stopping or accepting.paused_until) and accepting.provide():
            limit = 0.0
        service.flush()
        if (
            pending.accepted
            or pending.received
            or (pending.check_orders and record is self._record)
        ):
            limit = 0.0
        if self._threads is None:
            pending.serving_since = 0.0
            events = self._poller.wait(now, limit)
            pending.serving_since = looked = monotonic()
            if pending.watcher_asleep:
                self._watcher.wake()
            accepting.last_found = len(events)
            accepting.busy = accepting.busy or bool(events)
            now = looked
            for fd, event in events:
                if fd == self._channel_fd:
                    self._orders.read()
                else:
                    now = service.serve_ready(fd, event, record, now)
        else:
            looked = self._wait_as_leader(self._threads, now, limit, record)
            if self._threads.leader is not record:
                return
        if pending.accepted or pending.received:
            self._serve_new(record)
        if self._poller.next_tick <= looked:
            # As of that look, not of now: what has come while this thread served is in time.
            service.close_overdue(looked, record)
        accepting.collect_problems()

    def _wait_as_leader(
        self, threads: LeaderFollowers, now: float, limit: float | None, record: ThreadRecord
    ) -> float:
        """The same if another thread may become the leader meanwhile; returns when it looked."""
        pending = self._pending
        # Events that are left from the last look would only come again.
        events: list[tuple[int, int]] = []
        if not pending.events:
            pending.serving_since = 0.0
            events = self._poller.wait(now, limit)
        looked = monotonic()
        pending.events.extend(event for event in events if not pending.is_for_main(event[0]))
        if threads.leader is record:
            pending.serving_since = looked
            if pending.watcher_asleep:
                self._watcher.wake()
        elif events:
            self._wakeup.set()  # it was replaced while it waited: the new leader has to look
        # It may not lead any more after the first call: every other time new connections come
        # first.
        self._new_first = not self._new_first
        if self._new_first and (pending.accepted or pending.received):
            self._serve_new(record)
        now = monotonic() if self._new_first else looked
        while pending.events and threads.leader is record:
            try:
                fd, event = pending.events.popleft()
            except IndexError:  # the watcher has taken it
                break
            now = self._service.serve_ready(fd, event, record, now)
        return looked

    def _serve_new(self, record: ThreadRecord) -> None:
        """Serves connections that acceptor threads accepted, and those that siblings sent."""
        pending, threads = self._pending, self._threads
        while (pending.accepted or pending.received) and (
            threads is None or threads.leader is record
        ):
            try:
                if pending.received:
                    self._serve_received(*pending.received.popleft(), record)
                else:
                    accepted, listener = pending.accepted.popleft()
                    if accepted[0] >= self._handover.fd_limit:
                        self._handover.pause_receiving()
                    self._service.serve_accepted(accepted, listener, record)
            except IndexError:  # the watcher has taken it
                continue

    def _serve_received(self, message: HandoverMessage, fd: int, record: ThreadRecord) -> None:
        for listener in self._listeners:
            if listener.inode == message.listener:
                self._service.serve_received(message, fd, listener, record)
                return
        # It was sent to the slot's last worker, which had other listeners: the master's order of
        # steps prevents that.
        os.close(fd)
        report_lost("of a listener that is not ours")
