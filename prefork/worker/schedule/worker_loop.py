"""The worker's loop: choose a place to wait, serve what comes, leave when told to.

There are two places for the main thread.  Nothing parked: it blocks in accept4 and serves on the
spot.  Something parked: it waits in the epoll, and an acceptor thread waits in accept4 for it.
With several listeners it always waits in the epoll, with an acceptor for each.  Where a worker has
several threads, another one may have the place in the epoll instead.
"""

import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from prefork import logs
from prefork.channel import (
    Channel,
    CrowdedReport,
    ExpireOrder,
    InboxesOrder,
    LeavingReport,
    Order,
    ReadyReport,
    ReopenOrder,
    RetireOrder,
    ServeOrder,
    StopOrder,
)
from prefork.scoreboard import LISTENERS, AcceptFlags, ThreadRecord
from prefork.worker.schedule.accept import (
    QUEUE_EMPTY,
    WAKE,
    AcceptorThread,
    MainAcceptor,
)
from prefork.worker.schedule.fairness import AcceptFairness
from prefork.worker.schedule.handover import Handover, HandoverMessage
from prefork.worker.schedule.pending_work import PendingWork
from prefork.worker.schedule.poller import ConnectionPoller
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.schedule.watcher import Watcher
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener

# Without the enum that signal.getsignal makes of its answer, or tries to: 0.6 us at each wait.
_getsignal: Callable[[int], object] = sys.modules["_signal"].getsignal

_REST = 0.1
"""Seconds without accepting after an error of the kind that does not pass at once (EMFILE)."""

_COMPLAIN = 5.0
"""Seconds between two lines in the log about that."""

_AT_ONCE = 2
"""New connections from a listener, until those that are parked get their turn; siblings may be
about to come for the others."""

_AGAIN = 0.05
"""Seconds until a worker that leaves offers again what nobody had room for."""


class Service(Protocol):
    """What is done with connections: prefork.worker.service.http_service or
    prefork.worker.service.tcp_service."""

    poller: ConnectionPoller[Any]

    # By any thread, which is told by its record.

    def serve_accepted(
        self, accepted: AcceptedSocket, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        """Serves or parks a new connection."""

    def serve_received(
        self, parcel: HandoverMessage, fd: int, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        """Serves or parks a connection that a sibling has handed over."""

    def serve_ready(self, fd: int, events: int, record: ThreadRecord, now: float) -> float:
        """Goes on with a parked connection; returns the monotonic seconds when that was over.

        `now`: as of a moment ago."""

    def close_overdue(self, now: float, record: ThreadRecord) -> None:
        """Ends what has passed its deadline."""

    def hand_over(self, fd: int, slot: int | None = None) -> bool:
        """Hands a parked connection over, to an idle sibling or to the one in a slot; False where
        it stays."""

    def hand_over_all(self) -> None:
        """Hands over all that is parked and can move, to whoever takes it."""

    def begin_shutdown(self) -> None:
        """What runs now is the last on its connection (may be called by a signal handler)."""

    def shut_down_idle(self) -> None:
        """The worker is on its way out: idle connections get their last chance."""

    def expire_requests(self, now: float) -> None:
        """Gives up the requests over their timeout (may be called by a signal handler)."""

    def flush(self) -> None:
        """The worker is about to wait: writes what was kept for a batch."""

    def after_fork_in_child(self) -> None:
        """In a child that the application has forked: lets go of what is the worker's alone."""


class WorkerLoop:
    """Runs until the worker may leave."""

    def __init__(
        self,
        listeners: list[WorkerListener],
        channel: Channel,
        reopen: Callable[[tuple[str, ...], list[int]], None],
        handover: Handover,
        records: Sequence[ThreadRecord],
        waits: AcceptFlags,
        *,
        slow: bool = False,
    ) -> None:
        """`reopen`: takes the paths of log files and their new descriptors.  `records`: of the
        threads, first the main one's.  `slow`: what is assumed of the application at first."""
        self._listeners = listeners
        for number, listener in enumerate(listeners[:LISTENERS]):
            if listener.sock.family != socket.AF_UNIX:
                listener.fairness = AcceptFairness(listener.sock, waits, handover, number)
        self._reopen = reopen
        self._channel = channel
        self._channel_fd = channel.fileno()
        self._poller: ConnectionPoller[Any]
        self._service: Service
        self._main_acceptor = MainAcceptor()
        self._pending = pending = PendingWork()
        self._acceptors = [
            AcceptorThread(listener, pending.accepted, self.wake, self._may_continue)
            for listener in listeners
        ]
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._record = records[0]
        self.threads = (
            LeaderFollowers(list(records), self.wake, slow=slow) if len(records) > 1 else None
        )
        self.handover = handover
        self._watcher = Watcher(
            *(pending, self._main_acceptor, handover, self.threads),
            wake=self.wake,
            is_for_main=self._is_for_main,
            inbox_stuck=lambda: channel.send(CrowdedReport()),
        )
        self._parent = os.getppid()
        self._handler = self._on_retire  # one object, to be found again
        self._admitted = False
        self._new_first = False
        self._attention = False
        self._told = False
        self._at_work = False
        self._found = 0
        self._draining = False
        self._orphaned = False
        self._rest_until = 0.0
        self._complaints = logs.RateLimit(_COMPLAIN)

    # Called from other threads and from signal handlers.

    def wake(self) -> None:
        """Brings the main thread out of the epoll."""
        os.eventfd_write(self._wake, 1)

    def _on_wake(self, *_: object) -> None:
        """Signal handler: there is an order in the channel."""
        armed = self._main_acceptor.disarm()
        self._read_orders()
        self._interrupt(armed)

    def _on_retire(self, *_: object) -> None:
        """Signal handler: SIGTERM, from whoever sent it, or by the death of the master."""
        armed = self._main_acceptor.disarm()
        if os.getppid() != self._parent:
            self.handover.master_gone()
        self._retire()
        self._interrupt(armed)

    def _interrupt(self, armed: bool) -> None:
        self._attention = True
        self.wake()
        self._main_acceptor.interrupt(armed)

    def _is_for_main(self, fd: int) -> bool:
        """Another thread was told of an event: whether it is the main thread's to see to."""
        if fd != self._wake and fd != self._channel_fd:
            return False
        self._attention = True
        return True

    def _may_continue(self) -> bool:
        # A connection taken while nobody waits would wait for a thread, and not for a sibling that
        # is idle. With nothing parked, the main thread wants its place back.
        return not self._pending.serving_since and bool(self._poller.parked)

    # Orders. A handler may carry them out in the middle of a request of the main thread, which is
    # how a worker that is stuck in its application still stops accepting.

    def _read_orders(self) -> None:
        try:
            while not self._orphaned and (packet := self._channel.order()) is not None:
                order, fds = packet
                self._obey(order, fds)
        except EOFError:
            self._orphaned = True
            self.handover.master_gone()
            self._retire()

    def _obey(self, order: Order, fds: list[int]) -> None:
        if isinstance(order, ServeOrder):
            self._admitted = True
        elif isinstance(order, StopOrder):
            self._stop(order.listeners)
        elif isinstance(order, RetireOrder):
            self._retire()
        elif isinstance(order, ExpireOrder):
            self._service.expire_requests(monotonic())
            self._retire()
        elif isinstance(order, ReopenOrder):
            self._reopen(order.paths, fds)
        elif isinstance(order, InboxesOrder):
            self.handover.set_inboxes(order.kind, order.slots, fds, own=order.own)
            self._watcher.wake()

    def _retire(self) -> None:
        """Leave without accepting more: the queue belongs to those who stay."""
        self._stop(())

    def _stop(self, drained: tuple[int, ...]) -> None:
        """Leave, and accept from some listeners until their queue is empty."""
        if self._pending.stopping:
            return
        self._pending.stopping = self._attention = True
        self._draining = bool(drained)
        self.handover.stop_receiving()
        for number, listener in enumerate(self._listeners):
            if number not in drained:
                listener.stop_accepting()
        self._service.begin_shutdown()
        for acceptor in self._acceptors:
            acceptor.stop()
        self._channel.send(LeavingReport())

    # The main thread.

    def run(self, service: Service) -> None:
        """Serves until the worker was told to leave and has nothing left to do."""
        self._service = service
        self._poller = service.poller
        # Edge-triggered: each event wakes one thread once, and that need not be the one to read.
        self._poller.watch(self._wake, edge=True)
        self._poller.watch(self._channel_fd, edge=True)
        self._install_handlers()
        self._channel.send(ReadyReport())
        self._wait_for_admission()
        self._start_others()
        threads, record = self.threads, self._record
        while True:
            if _getsignal(signal.SIGTERM) is not self._handler:
                self._install_handlers()  # the application, or its event loop, has taken it
            if self._attention:
                self._attend()
            if threads is not None:
                threads.lead_from_main()
            if self._pending.stopping and self._finished():
                return
            if self._draining:
                self._drain()
                self._wait(_REST if self._rest_until else 0.0, record)
            elif self._alone():
                self._accept()
            else:
                self._wait(self._again() if self._told else None, record)

    def _start_others(self) -> None:
        """Threads of ours, once nothing can end the worker but an order to leave."""
        if self.threads is not None:
            # Not by whoever posts it first, as elsewhere: only the main thread may start it deaf.
            for acceptor in self._acceptors:
                acceptor.start()
            self.threads.start(lambda record: self._wait(None, record))
        self._watcher.start(self._service)
        if not self._pending.stopping:
            self.handover.start_receiving()

    def _wait_for_admission(self) -> None:
        """Accepts nothing before the master knows that the worker is ready.

        It may kill one that it takes to be booting, which must not have a connection by then.
        """
        while not (self._admitted or self._pending.stopping):
            self._poller.wait(monotonic())
            self._listen_to_master()

    def _install_handlers(self) -> None:
        signal.signal(signal.SIGTERM, self._handler)
        signal.signal(WAKE, self._on_wake)

    def _attend(self) -> None:
        self._attention = False
        self._read_orders()
        if self._pending.stopping and not self._told:
            self._told = True
            if self.threads is not None:
                self.threads.wake_when_free = True
            self._service.shut_down_idle()

    def _again(self) -> float | None:
        """Offers what is left to those who had no room for it; when to come back."""
        if not self._poller.parked:
            return None
        if self.handover.has_receiver:
            self._service.hand_over_all()
        elif not self.handover.expects_receiver:
            return None
        return _AGAIN

    def _finished(self) -> bool:
        if not self._nothing_left():
            return False
        # It may just have taken a connection out of the inbox.
        self._watcher.stop()
        return self._nothing_left()

    def _nothing_left(self) -> bool:
        pending = self._pending
        return not (
            self._draining
            or self._poller.parked
            or pending.accepted
            or pending.received
            or pending.events
            or (self.threads is not None and not self.threads.all_free)
        )

    def _alone(self) -> bool:
        """The main thread can wait in accept4: nothing could want it elsewhere."""
        pending = self._pending
        return (
            not self._poller.parked
            and len(self._listeners) == 1
            and not pending.stopping
            and not pending.accepted
            and not pending.received
            and not self._acceptors[0].accepting
            and (self.threads is None or (self.threads.all_free and not pending.events))
            and not self._rest_until
        )

    def _accept(self) -> None:
        service = self._service
        service.flush()
        got: list[AcceptedSocket] = []
        listener = self._listeners[0]
        self._pending.serving_since = 0.0
        if listener.fairness is not None:
            listener.fairness.yield_to_woken()
            if self._attention or self._pending.received:
                return
        problem = self._main_acceptor.accept(listener, got)
        if self.threads is not None:
            self._begin_to_serve()
        for accepted in got:
            self._greet(accepted, listener)
        if problem is not None:
            self._rest(problem)

    def _begin_to_serve(self) -> None:
        """Should this thread take long over it, others have to see to the rest."""
        self._pending.serving_since = monotonic()
        if self._pending.watcher_asleep:
            self._watcher.wake()

    def _greet(self, accepted: AcceptedSocket, listener: WorkerListener) -> None:
        """The main thread has accepted a connection."""
        if accepted[0] >= self.handover.fd_limit:
            self.handover.pause_receiving()
        self._service.serve_accepted(accepted, listener, self._record)

    def _provide_acceptors(self) -> bool:
        """Sees to it that new connections are accepted; whether the main thread has done so.

        A thread that comes out of accept4 beside one that is at work waits for the interpreter,
        longer the more that one has to do: up to 5 ms, the interpreter's switch interval.  So a
        main thread that finds something whenever it looks does without acceptors: it takes new
        connections itself, those that are nobody else's.  Acceptors get their place back when it is
        to wait.
        """
        at_work, self._at_work = self._at_work, False
        by_itself = False
        for acceptor in self._acceptors:
            if acceptor.accepting:
                continue
            most = self._most_at_once() if at_work else 0
            by_itself = most > 0
            listener = acceptor.listener
            if by_itself and listener.fairness is not None:
                self._accept_at_once(listener, listener.fairness, most)
            else:
                acceptor.resume()
        return by_itself

    def _most_at_once(self) -> int:
        """How many new connections the main thread takes from a listener by itself, until those
        that are parked get their turn; 0 where that is for the acceptor."""
        if self.handover.is_only_worker:
            # What nobody else will take has as many turns as what is here.
            return max(self._found, _AT_ONCE)
        # Should another be faster, the watcher gets it out; alone, it has none that looks.
        return 0 if self.handover.has_no_sibling else _AT_ONCE

    def _accept_at_once(
        self, listener: WorkerListener, fairness: AcceptFairness, most: int
    ) -> None:
        for _ in range(most):
            if not (fairness.may_take() and listener.open):
                return
            self._pending.serving_since = monotonic()
            got: list[AcceptedSocket] = []
            problem = self._main_acceptor.accept(listener, got)
            if problem is not None:
                self._rest(problem)
            if not got:
                return
            self._greet(got[0], listener)
            self._at_work = True

    def _drain(self) -> None:
        """One connection from each listener, until its queue is empty."""
        self._draining = False
        for listener in self._listeners:
            if listener.open:
                got: list[AcceptedSocket] = []
                problem = self._main_acceptor.accept(listener, got)
                for accepted in got:
                    self._service.serve_accepted(accepted, listener, self._record)
                if problem is not None and problem.errno in QUEUE_EMPTY:
                    listener.close()
                    continue
                self._draining = True
                # Without a free descriptor, not even an empty queue is told.
                if problem is not None and not listener.release_spare():
                    self._rest(problem)

    def _rest(self, problem: OSError) -> None:
        if self._pending.stopping and problem.errno == errno.ENOTSOCK:
            return  # the listener was shut
        self._rest_until = monotonic() + _REST
        if problem.errno in QUEUE_EMPTY:
            return  # the server is about to stop: the order to leave comes next
        if self._complaints.due():
            logs.event("error", "accept failed", reason=problem.strerror)

    # Whoever has the place in the epoll: the main thread, or another of the threads.

    def _wait(self, limit: float | None, record: ThreadRecord) -> None:
        """Waits once, and serves what has come."""
        service, pending = self._service, self._pending
        now = monotonic()
        if self._rest_until:
            if now < self._rest_until:
                limit = self._rest_until - now if limit is None else limit
            else:
                self._rest_until = 0.0
        if not (pending.stopping or self._rest_until) and self._provide_acceptors():
            limit = 0.0
        service.flush()
        if pending.accepted or pending.received or (self._attention and record is self._record):
            limit = 0.0
        if self.threads is None:
            pending.serving_since = 0.0
            events = self._poller.wait(now, limit)
            pending.serving_since = looked = monotonic()
            if pending.watcher_asleep:
                self._watcher.wake()
            self._found = len(events)
            self._at_work = self._at_work or bool(events)
            now = looked
            for fd, event in events:
                if fd == self._channel_fd:
                    self._listen_to_master()
                else:
                    now = service.serve_ready(fd, event, record, now)
        else:
            looked = self._wait_in_turn(self.threads, now, limit, record)
            if self.threads.leader is not record:
                return
        if pending.accepted or pending.received:
            self._welcome(record)
        if self._poller.next_deadline <= looked:
            # As of that look, not of now: what has come while this thread served is in time.
            service.close_overdue(looked, record)
        for acceptor in self._acceptors:
            problem = acceptor.problem
            if problem is not None:
                acceptor.problem = None
                self._rest(problem)

    def _wait_in_turn(
        self, threads: LeaderFollowers, now: float, limit: float | None, record: ThreadRecord
    ) -> float:
        """The same where another thread may take this one's place meanwhile."""
        pending = self._pending
        # Those that are left from the last look would only be told again.
        events: list[tuple[int, int]] = []
        if not pending.events:
            pending.serving_since = 0.0
            events = self._poller.wait(now, limit)
        looked = monotonic()
        pending.events.extend(event for event in events if not self._is_for_main(event[0]))
        if threads.leader is record:
            pending.serving_since = looked
            if pending.watcher_asleep:
                self._watcher.wake()
        elif events:
            self.wake()  # it was relieved while it waited: the new holder has to look
        # The place may be gone after the first call: every other time new connections come first.
        self._new_first = not self._new_first
        if self._new_first and (pending.accepted or pending.received):
            self._welcome(record)
        now = monotonic() if self._new_first else looked
        while pending.events and threads.leader is record:
            try:
                fd, event = pending.events.popleft()
            except IndexError:  # the watcher has taken it
                break
            now = self._service.serve_ready(fd, event, record, now)
        return looked

    def _welcome(self, record: ThreadRecord) -> None:
        """Those that acceptor threads took, and those that siblings have sent."""
        pending, threads = self._pending, self.threads
        while (pending.accepted or pending.received) and (
            threads is None or threads.leader is record
        ):
            try:
                if pending.received:
                    self._take_in(*pending.received.popleft(), record)
                else:
                    accepted, listener = pending.accepted.popleft()
                    if accepted[0] >= self.handover.fd_limit:
                        self.handover.pause_receiving()
                    self._service.serve_accepted(accepted, listener, record)
            except IndexError:  # the watcher has taken it
                continue

    def _take_in(self, parcel: HandoverMessage, fd: int, record: ThreadRecord) -> None:
        listener = next(
            (listener for listener in self._listeners if listener.inode == parcel.listener), None
        )
        if listener is None:
            # Sent to the slot's last worker, that had other listeners: the master looks to it that
            # this does not happen.
            os.close(fd)
            logs.event("error", "connection lost", reason="of a listener that is not ours")
            return
        self._service.serve_received(parcel, fd, listener, record)

    def _listen_to_master(self) -> None:
        self._read_orders()
