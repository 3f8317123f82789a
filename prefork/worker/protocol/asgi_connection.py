"""An HTTP connection whose requests are answered by tasks of an event loop.

Reading, writing, the states and the limits are those of every HTTP connection.  What differs: a
call returns before its response is complete.  Until then the connection's events are those of its
exchange (prefork.worker.protocol.connection_exchange).
"""

import contextlib
from math import inf
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLRDHUP
from socket import MSG_DONTWAIT, SHUT_RDWR
from time import monotonic
from typing import Final

from prefork.http.memory_budget import MemoryBudget
from prefork.http.request import Request
from prefork.http.response_head import CONTINUE
from prefork.http.streamed_body import StreamedBody
from prefork.scoreboard import ThreadRecord
from prefork.worker.protocol.connection_state import TABLE, ConnectionState, Readiness, TimeLimit
from prefork.worker.protocol.http_connection import Call, HttpConnection
from prefork.worker.transport.client_limits import Pace
from prefork.worker.transport.output_buffer import AHEAD

_HEAD_SIZE: Final = 16 * 1024
"""Bytes read at one time while a head is awaited, and of further requests during a call."""

_TIME_SLICE: Final = 0.001
"""Seconds after which a connection with more requests in its pipeline waits behind others."""

_DONTWAIT: Final = int(MSG_DONTWAIT)
_LOST: Final = EPOLLERR | EPOLLHUP

_NEW: Final = ConnectionState.NEW
_IDLE: Final = ConnectionState.IDLE
_QUEUED: Final = ConnectionState.QUEUED
_CALL: Final = ConnectionState.CALL
_RECEIVE: Final = ConnectionState.RECEIVE
_SEND: Final = ConnectionState.SEND
_WRITABLE: Final = Readiness.WRITABLE


class AsgiConnection(HttpConnection):
    """One accepted HTTP connection of a worker with an event loop."""

    __slots__ = ()

    def proceed(
        self,
        call: Call,
        record: ThreadRecord,
        now: float,
        leave_at: float = 0.0,
        request: Request | None = None,
    ) -> float:
        """As for each HTTP connection; returns also while the application has a request.

        `call` sets an `exchange` that has the connection until `end_exchange`, or answers at once.
        """
        self.proceeding = True
        try:
            began, exchange = now, self.exchange
            if exchange is not None:
                exchange.ready(now)
            elif request is None:
                state = self.state
                if (state is _IDLE or state is _NEW) and self.response_size <= AHEAD:
                    # The short way for the most frequent case.
                    try:
                        data = self.sock.recv(_HEAD_SIZE, _DONTWAIT)
                    except OSError:
                        data = b""
                    if data:
                        request = self.reader.feed(data)
                        if request is None or self.reader.unread or request.body is not None:
                            request = self._was_read(request, data, now, begins=True)
                    else:
                        request = self.receive(now)  # it is asked once more, for the reason
                elif state is _QUEUED:
                    request = self.take(monotonic())
                elif TABLE[state].waits_for is _WRITABLE:
                    self.flush()
                else:
                    request = self.receive(now)
            if request is None and self.exchange is None:
                now = monotonic()
            while True:
                if request is not None:
                    if self.state is _IDLE or self.state is _NEW:  # the table allows it
                        self.state = _CALL
                    else:
                        self.enter(_CALL)
                    self._started = self.left = False
                    self._record = record
                    self.serving = request
                    self.served = served = self.served + 1
                    if served == self._rules.keepalive_requests:
                        self.closing = True
                    outcome = call(self, request, record, now)
                    if outcome is not None:
                        self._end_call(request, outcome.sent, last=outcome.last)
                        now = outcome.ended
                    exchange = self.exchange
                    if exchange is None:
                        now = monotonic()
                        if not leave_at and self.has_come_to_rest(now):
                            return now
                    elif not leave_at and exchange.state is _CALL:
                        self.deadline = 0.0
                        return now
                state = self.advance(now, leave_at)
                if state is not _QUEUED or now - began > _TIME_SLICE:
                    return now
                request = self.take(now)
        finally:
            self.proceeding = False

    def end_exchange(self, request: Request, sent: int, *, last: bool) -> None:
        """The response is complete, with that many bytes of body; `last`: it is the last one."""
        self.exchange = None
        if not (last or self.left or self.broken) and request.body is None:
            self.response_size = sent  # all that is left to do
            self.serving = None
            return
        # What came before the end of the client is answered.
        self._end_call(request, sent, last=last or (self.left and not self.reader.pending))

    def pace(self, now: float) -> Pace | None:
        exchange = self.exchange
        if exchange is None or self.broken:
            return None if self.broken else super().pace(now)
        # It may be an upload or a response that its client delays, or a WebSocket; or the
        # application takes its time.
        body = self.reader.body
        if self.state is _RECEIVE and body is not None:
            return Pace(body.size / max(now - (body.since or now), 0.001), inf)
        return Pace(inf, self._since)

    def give_way(self) -> None:
        exchange = self.exchange
        if exchange is None:
            super().give_way()
            return
        self.broken = self.left = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(SHUT_RDWR)  # now, however long the application takes to notice
        exchange.client_left()

    # During a call.

    @property
    def wanted(self) -> int:
        """The events of epoll(7) to wait for during an exchange."""
        exchange = self.exchange
        assert exchange is not None
        events = exchange.events
        reader = self.reader
        if not (self.left or reader.in_body):
            # The end is read, or seen by the kernel behind bytes that are not read yet.
            paused = events or reader.pending or reader.surplus or reader.last
            events |= EPOLLRDHUP if paused else EPOLLIN
        return events or EPOLLHUP

    def stays_upgraded(self, now: float) -> bool:
        """Has the other protocol deal with an event; whether it waits for the same as before."""
        exchange = self.exchange
        assert exchange is not None
        self.proceeding = True
        try:
            if exchange.ready(now):
                return True
        finally:
            self.proceeding = False
        if self.exchange is not exchange or self.broken:
            return False
        events = exchange.events if self.left else exchange.events | EPOLLRDHUP
        return (events or EPOLLHUP) == self.events and exchange.deadline(now) == self.deadline

    def noticed(self, events: int) -> None:
        """What epoll(7) has reported during an exchange, beside that the socket is ready."""
        exchange = self.exchange
        if exchange is None:
            return
        if events & _LOST:
            self.broken = True
        if events & (_LOST | EPOLLRDHUP):
            self.left = True
            exchange.client_left()

    def read_ahead(self) -> None:
        """Reads once while the application has a request: more of its body, or of what follows."""
        reader = self.reader
        if reader.pending and not reader.in_body:
            return  # enough of what follows; the epoll tells of its end
        try:
            data = self.sock.recv(_HEAD_SIZE if not reader.in_body else 4 * _HEAD_SIZE, _DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
            self.broken = True
        if not data or self._ended_unseen:
            self.left = True
        if data:
            if reader.in_body:
                reader.feed(data)
            else:
                reader.keep(data)
            if not self._count_held():
                self._finish()
        if self.left and self.exchange is not None:
            self.exchange.client_left()

    def continue_body(self) -> None:
        """The application asks for the body: a client that waits for 100 gets it."""
        reader = self.reader
        if reader.wants_continue:
            reader.wants_continue = False
            body = reader.body
            if type(body) is StreamedBody:
                body.awaited = False
            self._continued = True
            self.send_interim(CONTINUE)

    @property
    def budget(self) -> MemoryBudget:
        """That of all clients of the worker."""
        return self._rules.budget

    def upgrade(self) -> bytes:
        """Another protocol follows the request; returns what has come of it."""
        rest = self.reader.rest
        self._finish()
        self.reader.surplus = False
        return rest

    def fail_body(self) -> None:
        """The client takes too long over the body: nothing more is read."""
        self.reader.finish()

    def _next_state(self, now: float) -> ConnectionState:
        exchange = self.exchange
        if exchange is None:
            return super()._next_state(now)
        return exchange.state  # also of a connection that is lost: the application still has it

    def _time_limit(self, limit: TimeLimit, now: float) -> float:
        if limit is TimeLimit.UPGRADED:
            assert self.exchange is not None
            return self.exchange.deadline(now)
        return super()._time_limit(limit, now)

    def on_deadline(self) -> None:
        exchange = self.exchange
        if exchange is None:
            super().on_deadline()
            return
        unsent = self.unsent
        if unsent is not None and 0 < unsent.due() <= monotonic() and unsent.given_up():
            self._gave_up()
        elif self.state is _SEND:
            return
        self.proceeding = True  # the service looks at the next state itself, once
        try:
            exchange.overdue(monotonic())
        finally:
            self.proceeding = False
