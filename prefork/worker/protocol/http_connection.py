"""An HTTP/1 connection: bytes to requests, responses to bytes, and its state in between.

`HttpConnection.proceed` is called when the socket is ready.  It reads, has each request that is
complete answered by a call that the service gives, and comes back when the connection has to wait:
its `state` says for which event (prefork.worker.protocol.connection_state).

Nothing here waits for a slow client: no read or write blocks.  Bytes that the client does not take
are kept (prefork.worker.transport.output_buffer) and sent when the socket is writable.
"""

import contextlib
import socket
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from prefork import linux, logs
from prefork.http.head_rules import Reject
from prefork.http.reader import Peer, RequestReader, State
from prefork.http.request import Environ, Request
from prefork.http.response_head import CONTINUE, body_size, error
from prefork.http.response_sink import CallOutcome
from prefork.http.streamed_body import StreamedBody
from prefork.scoreboard import ThreadRecord
from prefork.worker.protocol.body_pull import abandon_body, is_draining, pull
from prefork.worker.protocol.connection_exchange import Exchange
from prefork.worker.protocol.connection_state import (
    TABLE,
    ConnectionState,
    Movable,
    OnDeadline,
    OnStop,
    Readiness,
    TimeLimit,
)
from prefork.worker.protocol.state_change import successor
from prefork.worker.schedule.handover import UNREAD, HandoverMessage
from prefork.worker.transport.client_limits import ClientLimits, Pace, due
from prefork.worker.transport.lingering_close import LingeringClose
from prefork.worker.transport.output_buffer import AHEAD, SendFile
from prefork.worker.transport.response_writer import ResponseWriter

if TYPE_CHECKING:
    from prefork.worker.transport.tls_transport import TlsTransport
    from prefork.worker.transport.upgraded_socket import UpgradedSocket

_HEAD_SIZE: Final = 16 * 1024
"""Bytes read at one time while a head is awaited."""

_BODY_SIZE: Final = 256 * 1024
"""Bytes read at one time while a body is, until other connections get their turn."""

_LARGE_SIZE: Final = 1024 * 1024
"""The same if at least that much of it is known to come: none of it belongs to another request."""

_TIME_SLICE: Final = 0.001
"""Seconds after which a connection with more requests in its pipeline waits behind others.  A
switch costs some microseconds, so that a pipeline of trivial requests loses next to nothing."""

_no_room = logs.RateLimit(5.0)

_DONTWAIT: Final = socket.MSG_DONTWAIT

# An enum's member is looked up by a descriptor, at 80 ns each time in CPython 3.11.
_WRITABLE: Final = Readiness.WRITABLE
_START: Final = State.START
_PROXY_HEADER: Final = ConnectionState.PROXY_HEADER
_NEW: Final = ConnectionState.NEW
_IDLE: Final = ConnectionState.IDLE
_HEAD: Final = ConnectionState.HEAD
_BODY: Final = ConnectionState.BODY
_DRAIN: Final = ConnectionState.DRAIN
_QUEUED: Final = ConnectionState.QUEUED
_CALL: Final = ConnectionState.CALL
_WRITE: Final = ConnectionState.WRITE
_LINGER: Final = ConnectionState.LINGER
_CLOSED: Final = ConnectionState.CLOSED


class RefusedRequest(NamedTuple):
    """A request that the server has answered itself."""

    status: int
    reason: str
    size: int
    """Bytes of the answer's body."""
    line: bytes
    """The first line of the request, as far as it is known."""


Call = Callable[["HttpConnection", Request, ThreadRecord, float], CallOutcome | None]
"""Answers a request: (connection, request, the thread's record, monotonic seconds by now).  None if
the answer comes later (prefork.worker.protocol.asgi_connection)."""


class Opening(Protocol):
    """What comes before HTTP (prefork.worker.protocol.connection_opening)."""

    began: float
    """Monotonic seconds at which the TLS handshake began."""

    @property
    def due(self) -> float:
        """Monotonic seconds at which the time for that is over; 0 for never."""

    @property
    def state(self) -> ConnectionState:
        """The state that the connection has to wait in now."""

    def proceed(self, connection: "HttpConnection", now: float) -> None:
        """Reads what has come.  The connection has no opening any more if that was its end."""

    def push(self) -> None:
        """Sends what is left of the server's flight."""

    def peer_known(self, connection: "HttpConnection", now: float) -> None:
        """The PROXY header is over, or there is none."""


class HttpConnection(ResponseWriter):
    """One accepted HTTP connection."""

    __slots__ = (
        "_continued",
        "_held",
        "_lingering",
        "_since",
        "_unfinished",
        "deadline",
        "events",
        "exchange",
        "expired",
        "holder",
        "left",
        "listener",
        "opening",
        "proceeding",
        "reader",
        "refusal",
        "served",
        "serving",
        "state",
        "tls",
        "upgraded",
        "wheel_time",
    )

    def __init__(
        self, sock: socket.SocketType, base: Environ, peer: Peer, rules: ClientLimits, now: float
    ) -> None:
        """`now`: monotonic seconds at which it was accepted."""
        super().__init__(sock, rules)
        self.state = _NEW
        self.opening: Opening | None = None
        """What has to happen before HTTP begins."""
        self.tls: TlsTransport | None = None
        """What goes over the socket, once a handshake is over."""
        self.reader = RequestReader(base, rules.limits, peer)
        self._since = now
        self._continued = False
        self._unfinished: bytes | bytearray | None = None
        """What was read of a request whose body is not complete, if that may move."""
        self._held = 0  # bytes that are counted in the budget: the reader's, and these
        self._lingering: LingeringClose | None = None
        self.served = 0
        """Requests that were answered, or are being."""
        self.expired: int | None = None
        """Its request was given up: the bytes of body of the 504, or 0 if a response had begun."""
        self.refusal: RefusedRequest | None = None
        """Its last request was refused, and the service has not noted that yet."""
        self.closing = False
        """The next response is the last."""
        self.serving: Request | None = None
        """The request that the application has now."""
        self.upgraded: UpgradedSocket | None = None
        """What its request was given to speak another protocol on."""
        self.listener: int | None = None
        """Inode of the listener at which it was accepted, if it may move to another worker."""
        self.holder = ""
        """Whom it counts for; see prefork.worker.service.admission."""
        # For prefork.worker.protocol.asgi_connection.
        self.exchange: Exchange | None = None
        """What has the connection while its application does, in a worker with an event loop."""
        self.left = False
        """The client has sent its last byte while an exchange had the connection."""
        self.proceeding = False
        """An event is being dealt with: the next state is found at its end."""
        # For prefork.worker.schedule.poller.
        self.events = 0
        self.deadline = 0.0
        self.wheel_time = inf

    def enter(self, state: ConnectionState) -> None:
        """Changes the state, to one that the table allows; any other ends the connection."""
        self.state = successor(self.state, state)
        self.broken = self.broken or self.state is not state

    @property
    def _ended_unseen(self) -> bool:
        """The end of what the client sends was read, and the epoll will not report it."""
        return self.tls is not None and self.tls.ended

    @property
    def encrypted(self) -> bool:
        """Whether what goes over the socket is TLS."""
        return self.tls is not None

    @property
    def idle(self) -> bool:
        """No request has begun."""
        return bool(TABLE[self.state].idle)

    def pace(self, now: float) -> Pace | None:
        """How much the client gives or takes; None while the worker is at work for it.

        Asked by any thread, of a connection that another one may just have taken.
        """
        state = self.state
        if TABLE[state].idle:
            # The last request left no other time than that at which the patience ends.
            idle_since = self.deadline - self._rules.keepalive
            return Pace(0.0, idle_since if state is _IDLE else self._since)
        if state is _HEAD:
            return Pace.of(len(self.reader.partial or b""), self._since, now)
        if state is _BODY:
            body = self.reader.body
            return None if body is None else Pace.of(body.size, body.since or now, now)
        if state is _WRITE:
            unsent = self.unsent
            with contextlib.suppress(OSError):
                return None if unsent is None else unsent.pace(now)
        if state is _QUEUED:
            return Pace(inf, self._since)
        # In these the client's request is over, or was given up.
        return Pace(0.0, self._since) if state is _DRAIN or state is _LINGER else None

    def give_way(self) -> None:
        """The connection ends for another one; its client is told if it has begun a request."""
        if self.state is _QUEUED or TABLE[self.state].on_deadline is OnDeadline.ANSWER_408:
            reason = "too many connections"
            retry = ("Retry-After", "1")
            answer = error(503, reason, method=self.reader.method, headers=(retry,))
            self._note_refusal(503, reason, answer)
            self.send(answer)
        self.broken = True

    # An event, and all that can be done then.

    def proceed(
        self,
        call: Call,
        record: ThreadRecord,
        now: float,
        leave_at: float = 0.0,
        request: Request | None = None,
    ) -> float:
        """Goes on after an event, until the connection has to wait; returns when that was over.

        `now`: monotonic seconds, as of a moment ago.  `leave_at`: those at which a worker that is
        on its way out ends its idle connections; 0 if it is not on its way out.  `request`: one
        that is to be answered before anything is read.
        """
        began, state, reader = now, self.state, self.reader
        if (state is _IDLE or state is _NEW) and self.response_size <= AHEAD and request is None:
            # The short way for the most frequent case: all of a request, and no more, has come.
            try:
                data = self.sock.recv(_HEAD_SIZE, _DONTWAIT)
            except OSError:
                data = b""
            if data:
                request = reader.feed(data)
                if request is None or reader.unread or request.body is not None:
                    request = self._was_read(request, data, now, begins=True)
            else:
                request = self.receive(now)  # it is asked once more, for the reason
        elif request is not None:
            pass
        elif state is _QUEUED:
            now = monotonic()
            request = self.take(now)
        elif TABLE[state].waits_for is _WRITABLE:
            self.flush()
            request, now = None, monotonic()
        else:
            request = self.receive(now)
            reader = self.reader  # a PROXY header may have brought another one
            if request is None:
                now = monotonic()
        while True:
            if request is not None:
                # The call, without a function of its own: that would be 3 % of a kept hello.
                if self.state is _IDLE or self.state is _NEW:  # the table allows it
                    self.state = _CALL
                else:
                    self.enter(_CALL)
                self._started = False
                self._record = record
                self.serving = request
                self.served = served = self.served + 1
                if served == self._rules.keepalive_requests:
                    self.closing = True
                body = request.body
                if body is not None and type(body) is StreamedBody:
                    body.more = partial(pull, self, self._rules, body)
                outcome = call(self, request, record, now)
                assert outcome is not None
                now = outcome.ended
                if body is not None or self.broken or (outcome.last and not reader.last):
                    self._end_call(request, outcome.sent, last=outcome.last)
                else:
                    self.response_size = outcome.sent
                    self.serving = None
                if not leave_at and self.has_come_to_rest(now):
                    return now
            if self.advance(now, leave_at) is not _QUEUED or now - began > _TIME_SLICE:
                return now
            request = self.take(now)

    def has_come_to_rest(self, now: float) -> bool:
        """The outcome of `advance` behind a response in the most frequent cases, by a shorter way;
        False in all others.  `now`: monotonic seconds."""
        if self.unsent is not None:
            return False
        reader, tls = self.reader, self.tls
        if reader.state is _START and not reader.unread and (tls is None or not tls.ended):
            keepalive = self._rules.keepalive
            self.deadline = now + keepalive if keepalive else 0.0
            self.state = _IDLE
            return True
        if reader.last and not (reader.error or reader.surplus or self.broken):
            self.allow_close()
            self.deadline = 0.0
            self.state = _CLOSED
            return True
        return False

    def _end_call(self, request: Request, sent: int, *, last: bool) -> None:
        """The response to a request is complete, with that many bytes of body.

        `last`: the connection ends with it."""
        self.response_size = sent
        self.serving = None
        body = request.body
        if body is not None and type(body) is StreamedBody:
            abandon_body(self.reader, body)
            if not self._count_held():
                self._finish()
        if last or self.broken:
            self._finish()

    def _finish(self) -> None:
        """No request is read any more."""
        self.reader.finish()
        if self._held:
            self._unfinished = None
            self._count_held()

    # Reading.

    def receive(self, now: float) -> Request | None:
        """Reads once; returns the next request to answer, if one is complete."""
        if self.state is _LINGER:
            assert self._lingering is not None
            self._lingering.discard()
            return None
        if self.opening is not None:
            self.opening.proceed(self, now)
            if self.opening is not None or self.broken:
                return None
        reader = self.reader
        if self.response_size > AHEAD and reader.idle and self._look_ahead():
            return None  # what it sends can stay in the kernel until it has taken more
        size, room = _HEAD_SIZE, None
        if reader.in_body:
            size = _BODY_SIZE
            if self.tls is None:  # it has memory of its own, from which the bytes are copied
                size = _LARGE_SIZE if reader.left >= _LARGE_SIZE else _BODY_SIZE
                room = reader.room()
        data: bytes | memoryview
        try:
            if room is None:
                data = self.sock.recv(size, _DONTWAIT)
            else:
                size = self.sock.recv_into(room, min(len(room), size), _DONTWAIT)
                data = room[:size]  # with the call in it, mypyc would call twice
        except BlockingIOError:
            return None
        except OSError:  # reset, or gone in another way
            data = b""
        if not data:
            self.broken = True
            return None
        if type(data) is bytes:
            return self._read(data, now)
        self._since = now
        return self._was_read(reader.received(len(data)), data, now, begins=False)

    def _read(self, data: bytes, now: float) -> Request | None:
        """Has bytes read; returns a request that is to be answered now."""
        reader = self.reader
        begins, partial = reader.idle, reader.partial
        if not begins and partial is None:
            self._since = now
        return self._was_read(reader.feed(data), data, now, partial, begins=begins)

    def _was_read(
        self,
        request: Request | None,
        data: bytes | memoryview,
        now: float,
        partial: bytearray | None = None,
        *,
        begins: bool,
    ) -> Request | None:
        """Notes what is kept of the client's bytes; returns the request to be answered now.

        request: what the reader has made of `data`.  partial: the head that it had begun, with
        `data`.  begins: `data` is the beginning of a request.
        """
        reader = self.reader
        if begins:
            self._since = now
            self._continued = False
        if request is None and reader.in_body:
            self._keep_unfinished(bytes(data) if begins else partial, data)
        else:
            self._unfinished = None
        if not self._count_held():
            if request is None:
                reader.error = Reject(
                    503, "http.buffer_memory is used up: no more of the request can be kept"
                )
                return None
            self.closing = True  # what it has sent beyond is dropped, as with any last response
        if begins and len(data) == _HEAD_SIZE and reader.in_body and request is None:
            return self.receive(now)  # there is more, most likely
        return request

    def receive_body(self) -> bytes:
        """More bytes of a body; raises OSError as a recv(2) that does not wait."""
        return self.sock.recv(_BODY_SIZE, _DONTWAIT)

    def take(self, now: float) -> Request | None:
        """The next request of what has come, if it is complete and nothing has to be sent before.

        `now`: monotonic seconds, at which the time of one that is not complete begins.
        """
        if self.unsent is not None or self.broken:
            return None
        self._since = now
        self._continued = False
        self._unfinished = None
        request = self.reader.next()
        self._count_held()
        return request

    def _count_held(self) -> bool:
        """Counts what is kept of the client's bytes in the worker's budget.

        Returns False if that has no room for what was added.
        """
        unfinished = self._unfinished
        held = self.reader.held + (0 if unfinished is None else len(unfinished))
        more = held - self._held
        if more <= 0:
            if more:
                self._rules.budget.give_back(-more)
        elif not self._rules.budget.take(more):
            if unfinished is None:
                return False
            self._unfinished = None  # then it can't move
            return self._count_held()
        self._held = held
        return True

    def _keep_unfinished(self, begun: bytes | bytearray | None, data: bytes | memoryview) -> None:
        """Keeps the bytes of a request whose body is not complete: another worker may have to read
        them.

        `begun`: its bytes up to now, if its head became complete with `data`.
        """
        if begun is not None:
            self._unfinished = begun if len(begun) <= UNREAD else None
        elif self._unfinished is not None:
            if len(self._unfinished) + len(data) > UNREAD:
                self._unfinished = None
                return
            if type(self._unfinished) is bytes:
                self._unfinished = bytearray(self._unfinished)
            self._unfinished += data

    # To another worker and back.

    def handover_message(self) -> HandoverMessage | None:
        """The data with which another worker can go on; None if the connection cannot move in its
        state, or too much of a request was read: the state of a TLS session can't be sent."""
        listener, movable = self.listener, TABLE[self.state].movable
        if listener is None or movable is Movable.NO or self.tls is not None:
            return None
        reader = self.reader
        data, deadline = b"", 0.0
        if movable is Movable.EMPTY:
            deadline = self.deadline
        else:
            unfinished = self._unfinished if reader.partial is None else reader.partial
            if unfinished is None or len(unfinished) > UNREAD:
                return None
            data = bytes(unfinished)
        return HandoverMessage(
            *(listener, None, reader.peer, data, self._since, deadline),
            *(self.state is _IDLE, self._continued, self.served),
        )

    def resume(self, message: HandoverMessage) -> Request | None:
        """Brings a new connection to the point at which another worker has sent it.

        Returns a request that is to be answered now: this worker may stream bodies, and the other
        one not.
        """
        request = None
        if self.opening is not None and self.state is _PROXY_HEADER:
            # The other worker has read it, and sends whom it named.
            self.opening.peer_known(self, message.since)
        self.served = message.served
        if message.answered:
            self.state = _IDLE  # it was NEW there
        if message.data:
            request = self._read(message.data, message.since)
            self._continued = message.continued
            if message.continued:
                self.reader.wants_continue = False
        self._since = message.since
        return request

    # During a call.

    def overdue(self, now: float, limit: float) -> bool:
        """Whether the application has been at work on the next piece of a response for so long."""
        record = self._record
        return self.serving is not None and record is not None and record.overdue(now, limit)

    def expire(self) -> Request | None:
        """Answers 504 for the application if nothing was sent yet, and ends the connection.

        Called by a signal handler, or by the main thread for another one: bytes that the
        application sends later are dropped.  Returns the request that was given up.
        """
        request = self.serving
        if request is None or self.broken:
            return None
        # `send` marks the response as started before it sends, so that the two never both answer.
        # Still racy: a thread that is switched away after it has seen that nothing was sent, and
        # before it sets the mark.
        started, self._started = self._started, True
        size = 0
        with contextlib.suppress(OSError):
            if not started:
                answer = error(504, "the application took too long", method=request.method)
                size = body_size(answer)
                self.sock.send(request.marked(answer), _DONTWAIT | socket.MSG_NOSIGNAL)
            elif self._ends_with_close:
                linux.reset_connection(self.fd)  # a shutdown would be the end of a whole response
            self.sock.shutdown(socket.SHUT_RDWR)
        self.broken, self.expired = True, size
        return request

    # With TLS, or before it.

    def flush(self) -> None:
        if self.opening is not None:
            self.opening.push()
            return
        super().flush()

    def _file_sender(self) -> SendFile:
        return super()._file_sender() if self.tls is None else self.tls.send_file

    # The next state.

    def advance(self, now: float, leave_at: float = 0.0) -> ConnectionState:
        """Enters the state that follows from the bytes read and sent, and sets its deadline.

        `leave_at`: as in `proceed`.
        """
        if leave_at:
            self.closing = True
        self.enter(self._next_state(now))
        self._set_deadline(now, leave_at)
        return self.state

    def _next_state(self, now: float) -> ConnectionState:
        """The one place that looks at the reader and the buffers together."""
        if self.broken:
            return _CLOSED
        if self.opening is not None:
            return self.opening.state
        if self.unsent is not None:
            return _WRITE
        reader = self.reader
        if reader.pending:
            if self.response_size > AHEAD and self._look_ahead():
                return _WRITE
            return _QUEUED
        if reader.error is not None:
            self._reject(reader.error)
            return self._next_state(now)
        if reader.last:
            return self._linger(now)
        if self._ended_unseen:
            return _CLOSED
        if reader.idle:
            return _NEW if self.state is _NEW else _IDLE
        if not reader.in_body:
            return _HEAD
        if reader.wants_continue:
            reader.wants_continue = False
            self._continued = True
            self.send(CONTINUE)
            return self._next_state(now)
        return _DRAIN if is_draining(reader) else _BODY

    def _set_deadline(self, now: float, leave_at: float) -> None:
        row = TABLE[self.state]
        deadline = self._time_limit(row.time_limit, now)
        if leave_at and row.on_stop is OnStop.LAST_CHANCE:
            deadline = min(deadline or leave_at, leave_at)
        self.deadline = deadline

    def _time_limit(self, limit: TimeLimit, now: float) -> float:
        """Monotonic seconds at which a state's time is over; 0 for never."""
        if limit is TimeLimit.NONE:
            return 0.0
        rules = self._rules
        if limit is TimeLimit.KEEPALIVE:
            return now + rules.keepalive if rules.keepalive else 0.0
        if limit is TimeLimit.FIRST_BYTE:
            return now + rules.header_timeout if rules.header_timeout else 0.0
        if limit is TimeLimit.HEAD or limit is TimeLimit.PROXY_HEADER:
            # A byte now and then gains no time.
            return self._since + rules.header_timeout if rules.header_timeout else 0.0
        if limit is TimeLimit.HANDSHAKE:
            assert self.opening is not None
            return self.opening.due
        if limit is TimeLimit.BODY:
            body = self.reader.body
            assert body is not None
            body.since = body.since or now
            return due(
                now,
                silence=rules.body_timeout,
                rate=rules.min_body_rate,
                since=body.since,
                done=body.size,
            )
        if limit is TimeLimit.WRITE:
            assert self.unsent is not None
            return self.unsent.due()
        if limit is TimeLimit.LINGER:
            assert self._lingering is not None
            return self._lingering.due(now)
        return 0.0

    def _reject(self, problem: Reject) -> None:
        reader = self.reader
        if problem.status == 507 and _no_room.due():
            logs.event("warning", "body refused", reason=problem.reason)
        reason = problem.reason
        if problem.status == 413:
            reason += " (http.max_body)"
        answer = error(problem.status, reason, method=reader.method, headers=problem.headers)
        self._note_refusal(problem.status, problem.reason, answer)
        # However long this client lingers, the memory is for others.
        reader.error = None
        self._finish()
        reader.surplus = True
        self.send(answer)

    def _note_refusal(self, status: int, reason: str, answer: bytes) -> None:
        self.refusal = RefusedRequest(status, reason, body_size(answer), self.reader.line)

    def _linger(self, now: float) -> ConnectionState:
        """The last response is sent; a client that still sends must not be reset by our close."""
        if self._lingering is None:
            self.allow_close()
            if not self.reader.surplus:
                return _CLOSED
            try:
                self._lingering = LingeringClose(self.sock, now)
            except OSError:
                return _CLOSED
        return _CLOSED if self._lingering.over else _LINGER

    def stop(self, now: float, leave_at: float) -> None:
        """The worker is on its way out, and ends its idle connections at `leave_at`."""
        on_stop = TABLE[self.state].on_stop
        if on_stop is not OnStop.NOTHING:
            self.closing = True
        if on_stop is OnStop.LAST_CHANCE:
            self._set_deadline(now, leave_at)

    def on_deadline(self) -> None:
        """The deadline has passed; to be followed by `advance`."""
        action = TABLE[self.state].on_deadline
        if action is OnDeadline.CHECK_PROGRESS:
            assert self.unsent is not None
            if not self.unsent.given_up():
                return
            self._gave_up()
        elif action is OnDeadline.ANSWER_408:
            reason = "the request did not come in time"
            answer = error(408, reason, method=self.reader.method)
            self._note_refusal(408, reason, answer)
            self.send(answer)
        self.broken = True

    def abandon(self) -> None:
        """In a child that the application has forked: the connection is the parent's alone."""
        self.broken = True
        self.sock.close()

    def close(self) -> None:
        # Not if an answer was cut: its client has to see that.
        if self.tls is not None and self.unsent is None:
            self.tls.close_notify()
        if self.unsent is not None:
            self.unsent.close()
            self.unsent = None
        if self._held:
            self._rules.budget.give_back(self._held)
            self._held = 0
        if self.upgraded is not None:
            self.upgraded.cut()
        self.sock.close()
