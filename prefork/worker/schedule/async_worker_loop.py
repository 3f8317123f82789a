"""The loop of a worker whose application is asynchronous: an event loop in which all of it runs.

The engine is that of every worker: connections are parked in an epoll of ours, each with a
deadline.  That epoll is one descriptor in the event loop, and readable while it has events
(epoll(7)).  So the engine runs on any loop that knows `add_reader`, and costs the loop one callback
for all connections that are ready.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import Final

from prefork import logs
from prefork.channel import Channel, InboxStuckReport, ReadyReport
from prefork.logs.rate_limit import RateLimit
from prefork.scoreboard import ThreadRecord
from prefork.worker.schedule.accept import MainAcceptor
from prefork.worker.schedule.async_service import AsyncService
from prefork.worker.schedule.event_loop import Exits, close_loop, is_of_application, name_of
from prefork.worker.schedule.handover import ANSWER, Handover, HandoverMessage
from prefork.worker.schedule.loop_accept import LoopAcceptor
from prefork.worker.schedule.loop_watcher import LoopWatcher
from prefork.worker.schedule.master_orders import MasterOrders, ReplaceLogs
from prefork.worker.schedule.pending_work import PendingWork
from prefork.worker.schedule.turn_size import TURN, TurnSize
from prefork.worker.schedule.wakeup import Wakeup
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener
from prefork.worker.worker_failure import report_interrupt

# Without the enum that signal.getsignal makes of its answer, or tries to.
_getsignal: Final[Callable[[int], object]] = sys.modules["_signal"].getsignal

_OFFER_AGAIN: Final = 0.05
"""Seconds until a worker that stops offers again the connections for which no sibling had room."""

_RETRY_INBOX: Final = 0.1
"""Seconds until the inbox is read again if there was no descriptor for what is in it."""

_QUIT: Final = 0.25
"""Seconds after an order to quit in which a loop turns that is not blocked."""

_EXITS: Final = 5.0
"""Seconds between two exits of the application that are logged, after the first ten."""

_CHECK_DESCRIPTORS: Final = 1.0
"""Seconds between two checks for free descriptors while there were none."""


class AsyncWorkerLoop:
    """Runs until the worker has stopped."""

    def __init__(
        self,
        service: AsyncService,
        loop: asyncio.AbstractEventLoop,
        listeners: Sequence[WorkerListener],
        channel: Channel,
        replace_logs: ReplaceLogs,
        handover: Handover,
        record: ThreadRecord,
        wakeup: Wakeup,
        *,
        master: int,
        closing: Callable[[], None],
    ) -> None:
        """`record`: for what is no call of the application.  `master`: its process id.  `closing`:
        is called before the loop is closed, which waits for the threads of its executor."""
        self._closing = closing
        self._service = service
        self._loop = loop
        self._listeners = listeners
        self._channel = channel
        self._handover = handover
        self._record = record
        self._wakeup = wakeup
        self._poller = service.poller
        self._pending = pending = PendingWork(wakeup.fd, channel.fileno())
        self._accepting = LoopAcceptor(
            *(loop, listeners, handover, self._serve_accepted, self._after, wakeup.set),
            lambda: service.held,
        )
        self._turns = 0
        self._watcher = watcher = LoopWatcher(
            service, handover, pending, lambda: self._turns, wakeup.set
        )
        self._orders = MasterOrders(
            *(channel, master, service, replace_logs, pending, MainAcceptor(), self._accepting),
            *(handover, watcher, wakeup),
        )
        service.changed = self._changed
        self._over: asyncio.Future[None] = loop.create_future()
        self._size = TurnSize()
        self._scheduled = False
        self._serving = False
        self._shutting_down = False
        self._quit_ordered = 0.0
        self._quitting = False
        self._ending = False
        self._exit_limit = RateLimit(_EXITS, burst=10)
        self._inbox_watched = False
        self._full = False
        self._steady = False
        """There is nothing to do but to serve, until the next order."""
        self._look: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    def create_threads(self) -> None:
        """Creates all threads that the worker will ever need.

        Raises RuntimeError if the kernel has no room for another thread.
        """
        self._accepting.create_threads()
        self._watcher.create()

    def run(self) -> None:
        """Serves until the worker was ordered to stop and has nothing left to do."""
        loop = self._loop
        self._orders.install_handlers()
        loop.add_reader(self._wakeup.fd, self._woken)
        loop.add_reader(self._channel.fileno(), self._ordered)
        loop.add_reader(self._poller.fileno(), self._turn)
        self._service.flush()  # by which the master knows that there is a loop
        self._channel.send(ReadyReport(asgi=True, loop=name_of(loop)))
        loop.call_soon(self._after)
        run = Exits(loop, self._application_exits).run
        run(self._over)
        self._ending = True
        self._watcher.stop()
        if self._quitting:
            run(self._service.quit())
            return
        run(self._service.shut_down())
        self._service.flush()
        self._closing()
        close_loop(loop, run)

    def quit(self) -> bool:
        """The server stops at once (SIGQUIT, in its handler): `run` returns soon, when the
        application has shut down.

        False if that is not to be awaited: the loop is blocked, or was about to end anyway.
        """
        now = monotonic()
        if self._ending or self._quitting:
            return self._quitting
        if not self._quit_ordered:
            self._quit_ordered = now
            self._wakeup.set()
        return now - self._quit_ordered < _QUIT

    def _application_exits(self, problem: BaseException) -> None:
        """A task or callback of the application has raised SystemExit or KeyboardInterrupt, or has
        stopped the loop: the worker leaves in order, and is replaced."""
        trace = logs.application_traceback(problem)
        if isinstance(problem, KeyboardInterrupt):
            report_interrupt(trace if is_of_application(problem) else "")
        elif self._exit_limit.due():
            logs.event(
                "warning",
                "application exits",
                **({"skipped": self._exit_limit.skipped} if self._exit_limit.skipped else {}),
                traceback=trace,
            )
        if not self._ending:
            self._orders.ask_to_leave()

    # Callbacks of the loop.

    def _turn(self) -> None:
        """Connections are ready."""
        self._turns += 1
        self._scheduled = True  # what is to be done after this turn is done at its end
        service, record, size = self._service, self._record, self._size
        began = now = monotonic()
        served = 0
        try:
            ready = self._poller.ready(size.events)
            for fd, events in ready:
                now = service.serve_ready(fd, events, record, now)
                served += 1
                if now - began > TURN:
                    break
            size.ended(len(ready), served, now - began)
        finally:
            self._after()

    def _woken(self) -> None:
        """A signal handler or a thread has something for us."""
        with contextlib.suppress(BlockingIOError):  # called twice, if the loop was left meanwhile
            os.eventfd_read(self._wakeup.fd)
        self._steady = False
        self._orders.read()
        self._accepting.serve_accepted()
        self._accepting.look_again()
        self._take_received()
        if self._quit_ordered and not self._ending:
            self._quit()
        self._after()

    def _ordered(self) -> None:
        """The master has sent an order, or is gone."""
        self._steady = False
        self._orders.read()
        if self._orders.closed:
            self._loop.remove_reader(self._channel.fileno())
        self._after()

    def _changed(self) -> None:
        """Something has happened outside of a turn: `_after` follows soon, once for all of it."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._after)

    def _after(self) -> None:
        """What is to be done after each piece of work."""
        self._scheduled = False
        orders, service = self._orders, self._service
        if _getsignal(signal.SIGTERM) is not orders.terminate_handler:
            orders.install_handlers()  # the application, or its event loop, has replaced it
        if not self._steady:
            self._carry_out_orders()
        if service.bounded:
            self._keep_bound()
        if service.calls and self._look is None:
            self._look = self._loop.call_later(service.look_every, self._look_at_calls)
        service.flush()
        if self._poller.next_tick < self._timer_at:
            self._arm()

    def _carry_out_orders(self) -> None:
        """Carries out what the master has ordered: to serve, and to stop."""
        orders, pending, handover = self._orders, self._pending, self._handover
        if orders.serving and not self._serving and not pending.stopping:
            self._serving = True
            self._accepting.start()
            handover.start_receiving()
            self._watcher.start()
        if handover.inbox is not None and not self._inbox_watched:
            self._inbox_watched = True
            self._loop.add_reader(handover.inbox.fileno(), self._empty_inbox)
        if pending.stopping:
            self._stop()
        watched = self._inbox_watched or handover.inbox is None
        self._steady = self._serving and watched and not pending.stopping

    def _keep_bound(self) -> None:
        """Has as many requests read as there may be calls at a time."""
        service = self._service
        full = service.full
        if full is not self._full:
            self._full = full
            self._accepting.set_full(full)
        if not full and service.holds_back:
            service.release_held_back()

    def _look_at_calls(self) -> None:
        self._look = None
        self._service.expire_late(monotonic())
        self._after()

    def _serve_accepted(self, accepted: AcceptedSocket, listener: WorkerListener) -> None:
        scheduled, self._scheduled = self._scheduled, True  # all callers call `_after` themselves
        try:
            self._service.serve_accepted(accepted, listener, self._record)
        finally:
            self._scheduled = scheduled

    # Deadlines.

    def _arm(self) -> None:
        """Sees to it that the loop comes back for the next deadline."""
        next_tick = self._poller.next_tick
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = next_tick
        self._timer = self._loop.call_later(max(next_tick - monotonic(), 0.0), self._close_overdue)

    def _close_overdue(self) -> None:
        self._timer, self._timer_at = None, inf
        self._service.close_overdue(monotonic(), self._record)
        self._after()

    # The inbox.

    def _empty_inbox(self) -> None:
        handover = self._handover
        while (received := handover.receive()) is not None:
            self._serve_received(*received)
        if handover.no_descriptor_left:
            # Reported until the master has taken it. The inbox stays readable: no spinning.
            self._channel.send(InboxStuckReport())
            assert handover.inbox is not None
            self._loop.remove_reader(handover.inbox.fileno())
            self._loop.call_later(_RETRY_INBOX, self._watch_inbox)
        elif handover.receiving_paused:
            self._loop.call_later(_CHECK_DESCRIPTORS, self._check_descriptors)
        self._after()

    def _watch_inbox(self) -> None:
        self._inbox_watched = self._steady = False
        self._after()

    def _check_descriptors(self) -> None:
        if self._handover.receiving_paused:
            self._handover.check_descriptors()
            if self._handover.receiving_paused:
                self._loop.call_later(_CHECK_DESCRIPTORS, self._check_descriptors)

    def _take_received(self) -> None:
        """Serves what the watcher has taken out of the inbox, and could not pass on."""
        received = self._pending.received
        while received:
            try:
                message, fd = received.popleft()
            except IndexError:  # the watcher has passed it on, after all
                return
            self._serve_received(message, fd)

    def _serve_received(self, message: HandoverMessage, fd: int) -> None:
        self._turns += 1  # for the watcher: the loop is not blocked
        for listener in self._listeners:
            if listener.inode == message.listener:
                self._service.serve_received(message, fd, listener, self._record)
                return
        os.close(fd)

    def _check_answers(self) -> None:
        """Has the master take back what siblings do not take out of their inboxes."""
        handover = self._handover
        for slot in handover.silent_siblings(monotonic()):
            if self._channel.send(InboxStuckReport(slot)):
                handover.silence_reported(slot)
        if handover.awaits_answer:
            self._loop.call_later(ANSWER, self._check_answers)

    # The end.

    def _quit(self) -> None:
        """No connection and no request is begun any more."""
        self._quitting = True
        self._accepting.replace_listeners(())
        self._handover.stop_receiving()
        self._loop.remove_reader(self._poller.fileno())
        if not self._over.done():
            self._over.set_result(None)

    def _stop(self) -> None:
        accepting, handover = self._accepting, self._handover
        if not self._shutting_down:
            self._shutting_down = True
            accepting.forget_listeners()
            self._service.shut_down_idle()
            self._loop.call_later(_OFFER_AGAIN, self._offer_again)
        if accepting.draining:
            accepting.drain()
            self._changed()
        if handover.awaits_answer:
            self._loop.call_later(ANSWER, self._check_answers)
        if self._nothing_left() and not self._over.done():
            self._over.set_result(None)

    def _nothing_left(self) -> bool:
        return not (
            self._accepting.draining
            or self._accepting.accepted
            or self._pending.received
            or self._service.held
            or self._service.calls
        )

    def _offer_again(self) -> None:
        """Offers siblings what they had no room for."""
        if self._poller.parked and self._handover.expects_receiver:
            if self._handover.has_receiver:
                self._service.hand_over_all()
            self._loop.call_later(_OFFER_AGAIN, self._offer_again)
        self._after()
