"""The HTTP connections of a worker with an event loop.

Admission, waiting, handover and the end are those of every HTTP service.  What differs: a
connection stays parked while the application has its request, with the events of its exchange, and
it may get its next state at any moment of the loop, and not only when its socket is ready.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from random import random, shuffle
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from time import monotonic
from typing import Any, Final

from prefork import logs
from prefork.http.head_rules import Reject
from prefork.http.request import Request
from prefork.scoreboard import ThreadRecord, WorkerStatsWriter
from prefork.websocket.close_codes import GOING_AWAY, SERVICE_RESTART
from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.protocol.connection_state import ConnectionState
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.schedule.handover import Handover
from prefork.worker.service.admission import Admission
from prefork.worker.service.asgi_call import AsgiCall
from prefork.worker.service.asgi_caller import AsgiCaller
from prefork.worker.service.asgi_websocket import AsgiWebsocket
from prefork.worker.service.closing_times import WITHOUT_LIMIT, closing_times, time_to_tell
from prefork.worker.service.http_service import FLUSH_AGAIN, HttpService
from prefork.worker.service.lifespan import Lifespan
from prefork.worker.service.listener_profile import ListenerProfile
from prefork.worker.service.refusals import Refusals
from prefork.worker.service.task_stack import WorkingThreads, stack_of, stacks_of_tasks
from prefork.worker.transport.client_limits import ClientLimits

_CALL: Final = ConnectionState.CALL
_CLOSED: Final = ConnectionState.CLOSED
_IDLE: Final = ConnectionState.IDLE
_UPGRADED: Final = ConnectionState.UPGRADED
_READY: Final = EPOLLIN | EPOLLOUT
_BEFORE_A_CALL: Final = frozenset(
    {
        *(ConnectionState.NEW, ConnectionState.IDLE, ConnectionState.HEAD),
        ConnectionState.QUEUED,
    }
)
_LOST: Final = EPOLLERR | EPOLLHUP

LOOK: Final = 1.0
"""Seconds between two looks at calls that may take too long."""

_OFFER_AGAIN: Final = 0.05
"""Seconds until a worker that is full offers siblings again what waits for it."""

_CANCEL: Final = 0.9
"""The share of `graceful_timeout` after which calls are cancelled: the rest is the lifespan's."""


class AsgiService(HttpService):
    """All HTTP connections of one worker with an event loop."""

    def __init__(
        self,
        caller: AsgiCaller,
        lifespan: Lifespan,
        rules: ClientLimits,
        handover: Handover,
        stats: WorkerStatsWriter,
        profiles: Sequence[ListenerProfile],
        record: ThreadRecord,
        *,
        admission: Admission[HttpConnection],
        refusals: Refusals,
        request_timeout: float,
        graceful_timeout: float,
        max_concurrency: int,
    ) -> None:
        """`record`: for what is no call of the application.  `max_concurrency`: 0 for no limit."""
        super().__init__(
            caller,
            rules,
            None,
            handover,
            stats,
            profiles,
            admission=admission,
            refusals=refusals,
            request_timeout=request_timeout,
            graceful_timeout=graceful_timeout,
        )
        self.caller = caller
        self._lifespan = lifespan
        self.changed: Callable[[], None] = lambda: None
        """Set by the loop: something has happened between two of its turns."""
        self._record = record
        self._graceful_timeout = graceful_timeout
        self._max_concurrency = max_concurrency
        self.bounded = max_concurrency > 0
        """There is a bound for the calls at a time."""
        self.look_every = min(request_timeout / 4, LOOK) if request_timeout else LOOK
        """Seconds between two looks at calls that may take too long."""
        self.calls = caller.calls
        """Calls whose task runs."""
        self._held_back: deque[HttpConnection] = deque()
        """Connections with a request that is not read, since there are as many calls as may be."""
        self._offering = False  # `_offer_held_back` is to be called
        self._unregistered: list[AsgiConnection] = []
        """New connections with a call that has just begun."""
        self._told: set[AsgiWebsocket] = set()
        """WebSockets whose close is planned, since the worker leaves."""
        self._found_late: set[AsgiCall | AsgiWebsocket] = set()
        """Calls that the master has found to be over their time, logged and counted."""
        self._moved = True
        """A connection has come, or gone, or waits for something else, since the last `flush`."""
        self._timed_out = 0
        self._stop_ordered = 0.0
        self._stop_limit = 0.0
        caller.connection_changed = self.settle
        caller.call_ended = self._call_ended
        caller.body_refused = self._body_refused

    @property
    def held(self) -> int:
        """Open connections."""
        return len(self._open)

    def serve_ready(self, fd: int, events: int, record: ThreadRecord, now: float) -> float:
        connection = self._parked.get(fd)
        if connection is not None:
            if connection.state is _IDLE and not (self.bounded or self._leave_at):
                # The outcome of what follows in the most frequent case, by a shorter way.
                del self._parked[fd]
                now = connection.proceed(self._call, record, now)
                if connection.state is _IDLE and connection.deadline >= connection.wheel_time:
                    self._parked[fd] = connection
                else:
                    self._wait(connection, _IDLE, record)
                return now
            if connection.exchange is not None:
                assert isinstance(connection, AsgiConnection)
                if events & ~_READY:
                    connection.noticed(events)
                if connection.state is _UPGRADED and not connection.broken:
                    # A WebSocket has many events, and most leave it as it is.
                    if not connection.stays_upgraded(now):
                        self.settle(connection)
                    return monotonic()
            elif self.bounded and self._holds_back(connection, events):
                return now
        return super().serve_ready(fd, events, record, now)

    def close_overdue(self, now: float, record: ThreadRecord) -> None:
        late = {connection.fd: connection for connection in self.poller.claim_expired(now)}
        if not late:
            return
        self._parked.update(late)
        # The loop may have been blocked: what has come meanwhile is read before a client is late.
        for fd, events in self.poller.ready(len(self._open)):
            if fd in late and self._parked.get(fd) is late[fd]:
                self.serve_ready(fd, events, record, now)
        for fd, connection in late.items():
            still_waits = self._parked.get(fd) is connection and 0 < connection.deadline <= now
            if still_waits and self.poller.claim_connection(connection):
                self._close_late(connection, now, record)

    def _begin(
        self,
        connection: HttpConnection,
        record: ThreadRecord,
        now: float,
        request: Request | None = None,
    ) -> None:
        # A sibling sends no request that it has read: its call began with the head.
        if self.full and request is None:
            connection.advance(now, self._leave_at)  # it is read when there is room
        else:
            super()._begin(connection, record, now, request)

    # As many calls as may be.

    @property
    def full(self) -> bool:
        """There are as many calls as there may be: no further request is read."""
        return self.bounded and self.caller.under_way >= self._max_concurrency

    def _holds_back(self, connection: HttpConnection, events: int) -> bool:
        """Whether a connection that is ready has to wait until a call has ended."""
        if not self.full or connection.state not in _BEFORE_A_CALL or events & _LOST:
            return False
        if self.hand_over(connection.fd):
            return True
        # Out of the epoll, or it would be reported again and again; and it has no deadline, since
        # it is the server that lets it wait.
        connection.deadline = 0.0
        self.poller.park(connection, EPOLLHUP)
        self._held_back.append(connection)
        if not self._offering:
            self._offering = True
            self.caller.loop.call_later(_OFFER_AGAIN, self._offer_held_back)
        return True

    def _offer_held_back(self) -> None:
        """Offers siblings again what waits here: a moment ago none of them was free."""
        waiting, self._held_back = self._held_back, deque()
        for connection in waiting:
            waits = self._parked.get(connection.fd) is connection and connection.events == EPOLLHUP
            if waits and not self.hand_over(connection.fd):
                self._held_back.append(connection)
        self._offering = bool(self._held_back)
        if self._offering:
            self.caller.loop.call_later(_OFFER_AGAIN, self._offer_held_back)
        self.changed()

    @property
    def holds_back(self) -> bool:
        """Connections wait until calls have ended."""
        return bool(self._held_back)

    def release_held_back(self) -> None:
        """Calls have ended: as many connections are read as there is room for."""
        room = self._max_concurrency - self.caller.under_way
        now = monotonic()
        while room > 0 and self._held_back:
            connection = self._held_back.popleft()
            if self._parked.get(connection.fd) is connection and connection.events == EPOLLHUP:
                self._parked.pop(connection.fd, None)
                before = connection.state
                connection.advance(now, self._leave_at)
                super()._wait(connection, before, self._record)
                room -= 1

    def _displace(self, record: ThreadRecord, connection: HttpConnection) -> bool:
        if connection.exchange is None:
            return super()._displace(record, connection)
        if not self.poller.claim_connection(connection):
            return False
        before = connection.state
        connection.give_way()
        if connection.exchange is not None and connection.state is before:
            self._wait(connection, before, record)  # until the application has noticed
        return True

    def settle(self, connection: AsgiConnection) -> None:
        """A connection may have another state, and it waits for something else now."""
        if connection.proceeding:
            return  # that will look by itself
        before = connection.state
        if before is _CLOSED:
            return
        fd = connection.fd
        parked = self._parked.get(fd) is connection
        now = monotonic()
        rests = before is _CALL and not self._leave_at and connection.exchange is None
        rests = rests and connection.has_come_to_rest(now)
        if rests and connection.state is _IDLE:
            registered = parked and connection.events == EPOLLIN
            if registered and connection.deadline >= connection.wheel_time:
                # It is registered as it should be, and its place on the wheel will do.
                self._moved = True
                self.changed()
                return
        self._moved = True
        if parked and self._parked.pop(fd, None) is not connection:
            return  # the watcher has just handed it over
        if not rests:
            connection.advance(now, self._leave_at)
        self._wait(connection, before, self._record)
        self.changed()

    def _wait(
        self, connection: HttpConnection, before: ConnectionState, record: ThreadRecord
    ) -> None:
        self._moved = True
        if connection.exchange is None:
            super()._wait(connection, before, record)
            return
        assert isinstance(connection, AsgiConnection)
        state = connection.state
        waits = state is _CALL and connection.events == EPOLLIN and connection.reader.idle
        if before is _IDLE and waits and not (connection.left or connection.broken):
            # It is registered as `wanted` says, and has no deadline.
            self._parked[connection.fd] = connection
            return
        if state is not before:
            self._count(before, state)
        if not connection.events and before is _CLOSED and not connection.broken:
            # Most calls are over when the tasks that were just created have run, and then a
            # connection of one request need not be registered at all.
            if not self._unregistered:
                self.caller.loop.call_soon(self._register_late)
            self._unregistered.append(connection)
            return
        if connection.broken:
            # Nothing comes of it any more but the end of the call.
            self.poller.remove(connection)
        else:
            self.poller.park(connection, connection.wanted)

    def flush(self) -> None:
        caller, stats, now = self.caller, self._stats, monotonic()
        stats.beat(now)
        due = now >= self._flush_again or self._leave_at
        if not (self._moved or due):
            caller.flush()
            return
        self._moved = False
        held, parked, websockets = len(self._open), len(self._parked), len(caller.websockets)
        numbers = (held, parked, caller.under_way, websockets, self._reading, self._writing)
        if numbers == self._flushed and not due:
            caller.flush()
            return
        self._flushed, self._flush_again = numbers, now + FLUSH_AGAIN
        stats.set_websockets(websockets)
        self._report()

    @property
    def _waiting(self) -> int:
        # Those in a call are parked, too, unless they are lost or have just begun.
        return max(len(self.poller.parked) - self.caller.under_way, 0)

    def _handed_over(
        self, connection: HttpConnection, *, only_idle: bool, slot: int | None = None
    ) -> bool:
        taken = super()._handed_over(connection, only_idle=only_idle, slot=slot)
        self._moved = True  # by the watcher's thread, perhaps
        return taken

    def _register_late(self) -> None:
        """Registers new connections whose calls were not over at once."""
        waiting, self._unregistered = self._unregistered, []
        for connection in waiting:
            if connection.exchange is not None and not connection.events:
                self.poller.park(connection, connection.wanted)

    def stacks(self) -> str:
        """Where the tasks of the application wait (any thread)."""
        requests = {
            call.task: call.request.line.decode("latin-1")
            for call in list(self.calls)
            if call.task is not None
        }
        return stacks_of_tasks(self.caller.loop, requests)

    # The limits of calls.

    def expire_late(self, now: float) -> None:
        """Gives up the calls whose application is at work on the next piece for too long."""
        limit = self._request_timeout
        if not limit:
            return
        threads: WorkingThreads | None = None
        for call in list(self.calls):
            if call.over or now - call.at_work_since < limit:
                continue
            if call not in self._found_late:
                self._timed_out += 1
                self._stats.set_timed_out(self._timed_out)
                if threads is None:
                    tasks = (each.task for each in self.calls)
                    threads = WorkingThreads(self.caller.loop, tasks)
                stacks = filter(None, (stack_of(call.task), threads.of(call.task)))
                logs.event(
                    "error",
                    "request timed out",
                    request=call.request.line.decode("latin-1"),
                    peer=call.request.environ["REMOTE_ADDR"] or None,
                    request_id=call.request.id or None,
                    elapsed=round(now - call.began, 3),
                    traceback="\n\n".join(stacks),
                )
            call.expire()

    def expire_requests(self, now: float) -> None:
        # Perhaps in a signal handler, in the middle of anything that the loop does: only the client
        # is answered here.
        for call in list(self.calls):
            if not call.over and now - call.at_work_since >= self._request_timeout:
                self._found_late.add(call)
                call.status = 504
                call.connection.expire()

    # The end.

    def begin_shutdown(self, seconds: float | None = None) -> None:
        self._stop_ordered = monotonic()
        self._stop_limit = self._graceful_timeout if seconds is None else seconds
        super().begin_shutdown(seconds)

    def shut_down_idle(self) -> None:
        super().shut_down_idle()
        for connection in self._held_back:
            connection.deadline = 0.0  # it has a request
        loop, left = self.caller.loop, self._left_to_tell
        if self.caller.websockets:
            code = SERVICE_RESTART if self._handover.expects_receiver else GOING_AWAY
            logs.event("info", "closing websockets", count=len(self.caller.websockets), code=code)
        self._close_websockets()
        for call in list(self.calls):
            if isinstance(call, AsgiCall):
                # A response may be complete before.
                loop.call_later(random() * left, self._stop_exchange, call)
        loop.call_later(left, self._stop_calls)
        if self._stop_limit:
            cancel_at = self._stop_ordered + _CANCEL * self._stop_limit
            loop.call_later(max(cancel_at - monotonic(), 0.0), self._cancel_calls)

    @property
    def _left_to_tell(self) -> float:
        """Seconds in which all clients have to be told that the worker leaves."""
        passed = monotonic() - self._stop_ordered
        return max(time_to_tell(self._stop_limit) - passed, 0.0)

    def _close_websockets(self) -> None:
        """Closes each at its time, and looks again for those that are accepted from now on."""
        loop, new = self.caller.loop, list(self.caller.websockets - self._told)
        self._told.update(new)
        shuffle(new)
        for delay, websocket in zip(closing_times(len(new), self._left_to_tell), new, strict=True):
            loop.call_later(delay, self._stop_exchange, websocket)
        loop.call_later(LOOK, self._close_websockets)

    def _stop_calls(self) -> None:
        """All that are left: some began after the order."""
        for call in list(self.calls):
            if isinstance(call, AsgiCall):
                self._stop_exchange(call)

    def _stop_exchange(self, exchange: AsgiCall | AsgiWebsocket) -> None:
        if not exchange.over:
            by = self._stop_ordered + _CANCEL * (self._stop_limit or WITHOUT_LIMIT)
            exchange.stop(by, reload=self._handover.expects_receiver)

    def _cancel_calls(self) -> None:
        """The time of the calls is over; what follows is that of the lifespan's shutdown."""
        left, now = list(self.calls), monotonic()
        late = [call for call in left if not call.waits_for_client(now, self._stop_limit)]
        for call in late:
            call.cancel()
        if late:
            logs.event("warning", "calls cancelled", count=len(late), reason="the worker stops")
        if len(late) < len(left):
            # They go on while their clients take something (`drain_timeout`).
            self.caller.loop.call_later(LOOK, self._cancel_calls)

    def shut_down(self) -> Coroutine[Any, Any, object]:
        """The last call has ended: the application shuts down."""
        return self._lifespan.shut_down()

    def quit(self) -> Coroutine[Any, Any, None]:
        """The server stops at once: calls are cancelled, and the application shuts down."""
        now = monotonic()
        for connection in list(self._open):
            if connection.exchange is not None:
                connection.exchange.stop(now, reload=False)
        calls = list(self.calls)
        for call in calls:
            call.cancel()
        return self._lifespan.quit([call.task for call in calls if call.task is not None])

    def _body_refused(self, problem: Reject) -> None:
        self._refusals.note_of_call(problem.status, problem.reason)

    def _call_ended(self) -> None:
        self.changed()
