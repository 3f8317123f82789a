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
from typing import NamedTuple, Protocol

from prefork import linux, logs
from prefork.http.head_rules import Reject
from prefork.http.request import Environ, Request
from prefork.http.request_parser import CONTINUE, Peer, RequestParser
from prefork.http.response_head import error
from prefork.http.streamed_body import DRAIN, StreamedBody
from prefork.scoreboard import ThreadRecord
from prefork.worker.protocol.body_pull import abandon_body, is_draining, pull
from prefork.worker.protocol.connection_state import (
    TABLE,
    ConnectionState,
    Movable,
    OnDeadline,
    OnStop,
    Readiness,
    TimeLimit,
)
from prefork.worker.schedule.handover import UNREAD, HandoverMessage
from prefork.worker.transport.client_limits import ClientLimits, due
from prefork.worker.transport.lingering_close import LingeringClose
from prefork.worker.transport.output_buffer import AHEAD
from prefork.worker.transport.response_writer import ResponseWriter

_HEAD_SIZE = 16 * 1024
"""Bytes read at one time while a head is awaited."""

_BODY_SIZE = 256 * 1024
"""Bytes read at one time while a body is, until other connections get their turn."""

_TIME_SLICE = 0.001
"""Seconds after which a connection with more requests in its pipeline waits behind others.  A
switch costs some microseconds, so that a pipeline of trivial requests loses next to nothing."""

_no_room = logs.RateLimit(5.0)

_DONTWAIT = socket.MSG_DONTWAIT

# An enum's member is looked up by a descriptor, at 80 ns each time in CPython 3.11.
_WRITABLE = Readiness.WRITABLE
_NEW, _IDLE, _HEAD, _BODY = (
    *(ConnectionState.NEW, ConnectionState.IDLE),
    *(ConnectionState.HEAD, ConnectionState.BODY),
)
_DRAIN, _QUEUED, _CALL, _WRITE, _LINGER, _CLOSED = (
    *(ConnectionState.DRAIN, ConnectionState.QUEUED, ConnectionState.CALL),
    *(ConnectionState.WRITE, ConnectionState.LINGER, ConnectionState.CLOSED),
)


class CallOutcome(Protocol):
    """The facts about a response that its connection needs."""

    sent: int
    """Bytes of body."""
    last: bool
    """The connection ends with it."""
    ended: float
    """Monotonic seconds at which the call was over."""


class RefusedRequest(NamedTuple):
    """A request that the server has answered itself."""

    status: int
    reason: str
    size: int
    """Bytes of the answer's body."""
    line: bytes
    """The first line of the request, as far as it is known."""


Call = Callable[["HttpConnection", Request, ThreadRecord, float], CallOutcome]
"""Answers a request: (connection, request, the thread's record, monotonic seconds by now)."""


class HttpConnection(ResponseWriter):
    """One accepted HTTP connection."""

    __slots__ = (
        "_continued",
        "_discarded",
        "_lingering",
        "_since",
        "_unfinished",
        "began",
        "closing",
        "deadline",
        "events",
        "expired",
        "listener",
        "parser",
        "refusal",
        "served",
        "serving",
        "state",
        "wheel_time",
    )

    def __init__(
        self, sock: socket.SocketType, base: Environ, peer: Peer, rules: ClientLimits, now: float
    ) -> None:
        """`now`: monotonic seconds at which it was accepted."""
        super().__init__(sock, rules)
        self.state = _NEW
        self.parser = RequestParser(base, rules.limits, peer)
        self._since = now
        self._continued = False
        self._unfinished: bytes | bytearray | None = None
        self._lingering: LingeringClose | None = None
        self._discarded = 0
        self.served = 0
        """Requests that were answered, or are being."""
        self.expired = False
        """Its request was given up, and answered without the application."""
        self.refusal: RefusedRequest | None = None
        """Its last request was refused, and the service has not noted that yet."""
        self.closing = False
        """The next response is the last."""
        self.serving: Request | None = None
        """The request that the application has now."""
        self.began = 0.0
        """Monotonic seconds at which it got that."""
        self.listener: int | None = None
        """Inode of the listener at which it was accepted, if it may move to another worker."""
        # For prefork.worker.schedule.poller.
        self.events = 0
        self.deadline = 0.0
        self.wheel_time = inf

    def enter(self, state: ConnectionState) -> None:
        """Changes the state, to one that the table allows; any other ends the connection.

        The latter is a defect of ours.  It is logged, and costs this client its connection, and no
        other client of the worker.
        """
        if state is not self.state and state not in TABLE[self.state].successors:
            reason = f"state {state.value!r} after {self.state.value!r}"
            logs.event("error", "connection lost", reason=reason)
            self.broken = True
            state = _CLOSED
        self.state = state

    @property
    def idle(self) -> bool:
        """No request has begun."""
        return TABLE[self.state].idle

    # An event, and all that can be done then.

    def proceed(self, call: Call, record: ThreadRecord, now: float, leave_at: float = 0.0) -> float:
        """Goes on after an event, until the connection has to wait; returns when that was over.

        `now`: monotonic seconds, as of a moment ago.  `leave_at`: those at which a worker that is
        on its way out ends its idle connections; 0 if it is not on its way out.
        """
        began = now
        state = self.state
        parser = self.parser
        known = None
        if state is _IDLE and (cache := parser.recall) is not None and self.response_size <= AHEAD:
            # The short way for the most frequent case: a head that came before, byte for byte.
            try:
                data = self.sock.recv(_HEAD_SIZE, _DONTWAIT)
            except OSError:
                data = b""
            known = cache.heads.get(data)
            if known is not None:
                parser.last = not known.keep_alive
                request: Request | None = parser.again(known)
            else:
                # If nothing came, it is asked once more, for the reason.
                request = self._parse(data, now) if data else self.receive(now)
        elif state is _QUEUED:
            request, now = self.take(), monotonic()
        elif TABLE[state].waits_for is _WRITABLE:
            self.flush()
            request, now = None, monotonic()
        else:
            request = self.receive(now)
            parser = self.parser  # a PROXY header may have brought another one
            if request is None:
                now = monotonic()
        while True:
            if request is not None:
                now = self.answer(request, call, record, now)
                if known is not None and not (parser.last or leave_at or self.unsent is not None):
                    # The outcome of `advance`, by a shorter way.
                    keepalive = self._rules.keepalive
                    self.deadline = now + keepalive if keepalive else 0.0
                    self.state = _IDLE
                    return now
                known = None
            if self.advance(now, leave_at) is not _QUEUED or now - began > _TIME_SLICE:
                return now
            request = self.take()

    def answer(self, request: Request, call: Call, record: ThreadRecord, now: float) -> float:
        """Has a request answered; returns when that was over."""
        if self.state is _IDLE:  # which the table allows, and `enter` would take its time to find
            self.state = _CALL
        else:
            self.enter(_CALL)
        self._started = False
        self.began = now
        self.serving = request
        body = request.body
        if body is not None and type(body) is StreamedBody:
            body.more = partial(pull, self, self._rules.body_timeout, body)
        self.served = served = self.served + 1
        if served == self._rules.keepalive_requests:
            self.closing = True
        outcome = call(self, request, record, now)
        self.response_size = outcome.sent
        self.serving = None
        if body is not None and type(body) is StreamedBody:
            self._discarded = 0
            abandon_body(self.parser, body)
        if outcome.last or self.broken:
            self.parser.finish()
        return outcome.ended

    # Reading.

    def receive(self, now: float) -> Request | None:
        """Reads once; returns the next request to answer, if one is complete."""
        if self.state is _LINGER:
            assert self._lingering is not None
            self._lingering.discard()
            return None
        size = _BODY_SIZE if self.parser.in_body else _HEAD_SIZE
        try:
            data = self.sock.recv(size, _DONTWAIT)
        except BlockingIOError:
            return self.take()
        except OSError:  # reset, or gone in another way
            data = b""
        if not data:
            self.broken = True
            return None
        return self._parse(data, now)

    def _parse(self, data: bytes, now: float) -> Request | None:
        parser = self.parser
        begins = parser.idle
        if begins:
            self._since = now
        elif parser.in_body:
            self._since = now
            if is_draining(parser):
                self._discarded += len(data)
                if self._discarded > DRAIN:
                    parser.finish()
        request = None
        try:
            request = parser.read(data)
        except OSError as problem:
            self._refuse_body(problem)
        if request is not None:
            if self.response_size <= AHEAD and self.unsent is None:
                return request
            parser.requests.append(request)
        if parser.requests:
            # The beginning of another request may follow, and the parser does not say at which
            # byte.
            self._unfinished = None
            if self.response_size > AHEAD:
                self._look_ahead()
            return self.take()
        self._keep_unfinished(data, begins)
        if begins and len(data) == _HEAD_SIZE and parser.in_body:
            return self.receive(now)  # there is more, most likely
        return None

    def receive_body(self) -> bytes:
        """More bytes of a body; raises OSError as a recv(2) that does not wait."""
        return self.sock.recv(_BODY_SIZE, _DONTWAIT)

    def _refuse_body(self, problem: OSError) -> None:
        self.parser.error = Reject(507, f"the body can't be kept: {problem.strerror}")

    def take(self) -> Request | None:
        """The next complete request, if nothing has to be sent before."""
        if self.unsent is not None or self.broken or not self.parser.requests:
            return None
        return self.parser.requests.pop(0)

    def _keep_unfinished(self, data: bytes, begins: bool) -> None:
        """Keeps the bytes of an unfinished request: another worker may have to read them."""
        if begins:
            self._unfinished = data if len(data) <= UNREAD else None
            self._continued = False
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
        state, or too much of a request was read."""
        listener, movable = self.listener, TABLE[self.state].movable
        if listener is None or movable is Movable.NO:
            return None
        data, deadline = b"", 0.0
        if movable is Movable.EMPTY:
            deadline = self.deadline
        elif self._unfinished is None:
            return None
        else:
            data = bytes(self._unfinished)
        return HandoverMessage(
            *(listener, None, self.parser.peer, data, self._since, deadline),
            *(self.state is _IDLE, self._continued, self.served),
        )

    def resume(self, message: HandoverMessage) -> None:
        """Brings a new connection to the point at which another worker has sent it."""
        self._since = message.since
        self.served = message.served
        if message.answered:
            self.state = _IDLE  # it was NEW there
        if message.data:
            try:
                self.parser.feed(message.data)
            except OSError as problem:
                self._refuse_body(problem)
            self._keep_unfinished(message.data, True)
            self._continued = message.continued
            if message.continued:
                self.parser.wants_continue = False

    # During a call.

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
        with contextlib.suppress(OSError):
            if not started:
                answer = error(504, "the application took too long", method=request.method)
                self.sock.send(request.marked(answer), _DONTWAIT | socket.MSG_NOSIGNAL)
            elif self._ends_with_close:
                linux.reset_connection(self.fd)  # a shutdown would be the end of a whole response
            self.sock.shutdown(socket.SHUT_RDWR)
        self.broken = self.expired = True
        return request

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
        """The one place that looks at the parser and the buffers together."""
        if self.broken:
            return _CLOSED
        if self.unsent is not None:
            return _WRITE
        parser = self.parser
        if parser.requests:
            if self.response_size > AHEAD and self._look_ahead():
                return _WRITE
            return _QUEUED
        if parser.error is not None:
            self._reject(parser.error)
            return self._next_state(now)
        if parser.last:
            return self._linger(now)
        if parser.idle:
            return _NEW if self.state is _NEW else _IDLE
        if not parser.in_body:
            return _HEAD
        if parser.wants_continue:
            parser.wants_continue = False
            self._continued = True
            self.send(CONTINUE)
            return self._next_state(now)
        return _DRAIN if is_draining(parser) else _BODY

    def _set_deadline(self, now: float, leave_at: float) -> None:
        row = TABLE[self.state]
        deadline = self._time_limit(row.time_limit, now)
        if leave_at and row.on_stop is OnStop.LAST_CHANCE:
            deadline = min(deadline or leave_at, leave_at)
        self.deadline = deadline

    def _time_limit(self, limit: TimeLimit, now: float) -> float:
        """Monotonic seconds at which a state's time is over; 0 for never."""
        rules = self._rules
        if limit is TimeLimit.KEEPALIVE:
            return now + rules.keepalive if rules.keepalive else 0.0
        if limit is TimeLimit.FIRST_BYTE:
            return now + rules.header_timeout if rules.header_timeout else 0.0
        if limit is TimeLimit.HEAD or limit is TimeLimit.PROXY_HEADER:
            # A byte now and then gains no time.
            return self._since + rules.header_timeout if rules.header_timeout else 0.0
        if limit is TimeLimit.BODY:
            body = self.parser.body
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
            return self.unsent.due(now)
        if limit is TimeLimit.LINGER:
            assert self._lingering is not None
            return self._lingering.due(now)
        return 0.0

    def _reject(self, problem: Reject) -> None:
        parser = self.parser
        if problem.status == 507 and _no_room.due():
            logs.event("warning", "body refused", reason=problem.reason)
        reason = problem.reason
        if problem.status == 413:
            reason += " (http.max_body)"
        answer = error(problem.status, reason, method=parser.method, headers=problem.headers)
        self._note_refusal(problem.status, problem.reason, answer)
        parser.error = None
        parser.body = None  # its memory is for others, however long this client lingers
        parser.finish()
        parser.surplus = True
        self.send(answer)

    def _note_refusal(self, status: int, reason: str, answer: bytes) -> None:
        # The bytes of a request that begins in the middle of what was read are not kept.
        line = bytes(self._unfinished or b"").lstrip(b"\r\n").partition(b"\n")[0]
        size = len(answer) - answer.index(b"\r\n\r\n") - 4
        self.refusal = RefusedRequest(status, reason, size, line)

    def _linger(self, now: float) -> ConnectionState:
        """The last response is sent; a client that still sends must not be reset by our close."""
        if self._lingering is None:
            self.allow_close()
            if not self.parser.surplus:
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
            answer = error(408, reason, method=self.parser.method)
            self._note_refusal(408, reason, answer)
            self.send(answer)
        self.broken = True

    def abandon(self) -> None:
        """In a child that the application has forked: the connection is the parent's alone."""
        self.broken = True
        self.sock.close()

    def close(self) -> None:
        if self.unsent is not None:
            self.unsent.close()
            self.unsent = None
        self.parser.close()
        self.sock.close()
