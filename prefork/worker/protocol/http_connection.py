"""An HTTP client and its socket: read, answer, write, wait.

Nobody waits for a slow client: what is read or written never blocks. What the client won't take
is kept (prefork.worker.transport.output_buffer) and finished from the epoll.
"""

import contextlib
import socket
from enum import Enum
from functools import partial
from math import inf
from time import monotonic

from prefork import logs
from prefork.apps.wsgi import Application, Failed, WsgiResponse
from prefork.http.head_rules import Reject
from prefork.http.request import Environ, Request
from prefork.http.request_parser import CONTINUE, Peer, RequestParser
from prefork.http.response_head import Headers, early_hints, error
from prefork.http.streamed_body import DRAIN, StreamedBody
from prefork.worker.protocol.body_pull import draining, let_go, pull
from prefork.worker.schedule.handover import UNREAD, HandoverMessage
from prefork.worker.transport.client_limits import ClientLimits, due
from prefork.worker.transport.lingering_close import LingeringClose
from prefork.worker.transport.output_buffer import AHEAD
from prefork.worker.transport.response_writer import ResponseWriter

HEAD = 16 * 1024
"""Bytes read at one time while a head is awaited."""

_BODY = 256 * 1024  # and while a body is, until other connections get their turn

_no_room = logs.RateLimit(5.0)

_DONTWAIT = socket.MSG_DONTWAIT


class NextStep(Enum):
    """What a conversation needs next."""

    IDLE = "idle"
    """The next request."""
    READ = "read"
    """The rest of one that has begun, or of what is thrown away."""
    WRITE = "write"
    SERVE = "serve"
    CLOSE = "close"


_IDLE, _READ, _WRITE = NextStep.IDLE, NextStep.READ, NextStep.WRITE
_SERVE, _CLOSE = NextStep.SERVE, NextStep.CLOSE


class HttpConnection(ResponseWriter):
    """One accepted HTTP connection."""

    __slots__ = (
        "_answered",
        "_continued",
        "_discarded",
        "_lingering",
        "_served",
        "_since",
        "_unfinished",
        "began",
        "closing",
        "connection",
        "deadline",
        "events",
        "expired",
        "listener",
        "serving",
        "wheel_time",
        "wish",
    )

    def __init__(
        self, sock: socket.SocketType, base: Environ, peer: Peer, rules: ClientLimits, now: float
    ) -> None:
        super().__init__(sock, rules)
        self.connection = RequestParser(base, rules.limits, peer)
        self._since = now
        self._served = 0
        self._answered = False
        self._continued = False
        self._unfinished: bytes | bytearray | None = None
        self._lingering: LingeringClose | None = None
        self._discarded = 0
        self.expired = False
        """Its request was given up, and answered without the application."""
        self.closing = False
        """The next response is the last."""
        self.serving: Request | None = None
        """The request that the application has now."""
        self.began = 0.0
        """Monotonic seconds at which it got that."""
        self.listener: int | None = None
        """Inode of the listener at which it came in, if it may move to another worker."""
        self.wish = _CLOSE
        """What it waits for, as far as that was noted."""
        self.events = 0
        self.deadline = 0.0
        self.wheel_time = inf

    # Reading.

    @property
    def idle(self) -> bool:
        """Between two requests, with nothing left to send."""
        return self.unsent is None and self._lingering is None and self.connection.idle

    def read(self, now: float) -> Request | None:
        """Takes what has come; returns the next request to answer, where it is complete."""
        if self._lingering is not None:
            self._lingering.discard()
            return None
        connection = self.connection
        try:
            data = self.sock.recv(_BODY if connection.in_body else HEAD, _DONTWAIT)
        except BlockingIOError:
            return self.take()
        except OSError:  # reset, or gone in another way
            data = b""
        if not data:
            self.broken = True
            return None
        return self.digest(data, now)

    def digest(self, data: bytes, now: float) -> Request | None:
        """The same for bytes that have come."""
        connection = self.connection
        begins = connection.idle
        if begins:
            self._since = now
            self._answered = False
        elif connection.in_body:
            self._since = now
            if draining(connection):
                self._discarded += len(data)
                if self._discarded > DRAIN:
                    connection.finish()
        request = None
        try:
            request = connection.read(data)
        except OSError as problem:
            self._fail(problem)
        if request is not None:
            if self.weight <= AHEAD and self.unsent is None:
                return request
            connection.requests.append(request)
        if connection.requests:
            # Should there be the beginning of another behind it, nobody can tell where.
            self._unfinished = None
            if self.weight > AHEAD:
                self._look_ahead()
            return self.take()
        self._note(data, begins)
        if begins and len(data) == HEAD and connection.in_body:
            return self.read(now)  # there is more, most likely
        return None

    def receive(self) -> bytes:
        """More of a body; raises OSError as recv(2) does that does not wait."""
        return self.sock.recv(_BODY, _DONTWAIT)

    def _fail(self, problem: OSError) -> None:
        self.connection.error = Reject(507, f"the body can't be kept: {problem.strerror}")

    def take(self) -> Request | None:
        """The next request to answer, if nothing stands before it."""
        if self.unsent is not None or self.broken or not self.connection.requests:
            return None
        return self.connection.requests.pop(0)

    def _note(self, data: bytes, begins: bool) -> None:
        """Keeps what was read of an unfinished request: another worker may have to read it."""
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

    def parcel(self) -> HandoverMessage | None:
        """What another worker needs to go on with it, None where it cannot move: it has something
        to send, or too much was read of a request, or the end of one was not told."""
        connection, listener = self.connection, self.listener
        if listener is None or self.unsent is not None or self._lingering is not None:
            return None
        if self.broken or self.serving is not None or connection.requests:
            return None
        if connection.last or connection.error:
            return None
        data, deadline = b"", 0.0
        if connection.idle:
            deadline = self.deadline
        elif self._unfinished is None:
            return None
        else:
            data = bytes(self._unfinished)
        return HandoverMessage(
            *(listener, None, connection.peer, data, self._since, deadline),
            *(self._answered, self._continued, self._served),
        )

    def resume(self, parcel: HandoverMessage) -> None:
        """Goes on where another worker was."""
        self._since = parcel.since
        self._answered = parcel.answered
        self._served = parcel.served
        if parcel.data:
            try:
                self.connection.feed(parcel.data)
            except OSError as problem:
                self._fail(problem)
            self._note(parcel.data, True)
            self._continued = parcel.continued
            if parcel.continued:
                self.connection.wants_continue = False

    # What an application's response is sent with (prefork.apps.wsgi.ResponseSink).

    def answer(
        self, request: Request, application: Application, failed: Failed, now: float
    ) -> WsgiResponse:
        """Has the application answer a request: until something is sent, it can be expired."""
        self._started = False
        self.began = now
        self.serving = request
        request.environ["wsgi.early_hints"] = self.early_hints
        body = request.body
        if body is not None and type(body) is StreamedBody:
            body.more = partial(pull, self, self._rules.body_timeout)
        self._served = served = self._served + 1
        if served == self._rules.keepalive_requests:
            self.closing = True
        response = WsgiResponse(request, self)
        try:
            result = application(request.environ, response.start)
            repeated = request.repeated
            if (
                repeated is not None
                and (answered := repeated.answered) is not None
                and type(result) is list
                and len(result) == 1
                and type(data := result[0]) is bytes
                and answered.short == (response.status, response.headers, self.closing, len(data))
                and response.head is None
                and not request.id_line
                and monotonic() < answered.until
            ):
                # It begins as the last one did: what `take` comes to in the end.
                response.head = head = answered.head
                response.sent = head.length
                response.last = not head.keep_alive
                self.send(head.data + data)
            else:
                response.take(result)
        except BaseException as raised:  # SystemExit too: it ends the request, not the worker
            response.fail(raised, failed)
        self.weight = response.sent
        self.serving = None
        self._answered = True
        if body is not None and type(body) is StreamedBody:
            self._discarded = 0
            let_go(self.connection, body)
        if response.last or self.broken:
            self.connection.finish()
        return response

    def early_hints(self, headers: Headers) -> None:
        """`wsgi.early_hints`: sends 103 with these headers, such as `Link`, before the response.

        RFC 8297. Nothing is sent to a client of HTTP/1.0, or once the response has begun. Raises
        TypeError or ValueError for a header that may not be sent.
        """
        request = self.serving
        data = early_hints(headers)
        if request is not None and request.http11 and not self._started:
            self.send_interim(data)

    def expire(self) -> Request | None:
        """Answers 504 for the application where nothing was sent yet, and ends the connection.

        Called by a signal handler, or by the main thread for another one: what the application
        sends later goes nowhere.  Returns the request that was given up.
        """
        request = self.serving
        if request is None or self.broken:
            return None
        # `send` says that it has started before it sends, so that the two never both answer; a
        # thread that is switched away between its look and its mark is the race that is left.
        started, self._started = self._started, True
        with contextlib.suppress(OSError):
            if not started:
                answer = error(504, "the application took too long", method=request.method)
                self.sock.send(request.marked(answer))
            self.sock.shutdown(socket.SHUT_RDWR)
        self.broken = self.expired = True
        return request

    # What comes next.

    def settle(self, now: float, leaving: float = 0.0) -> NextStep:
        """Decides what to wait for, and sets the deadline.

        `leaving`: monotonic seconds at which a worker that is on its way out ends its idle
        connections; 0 when it is not on its way out.
        """
        if self.broken:
            return _CLOSE
        connection = self.connection
        if leaving:
            self.closing = True
        if self.unsent is not None:
            self.deadline = self.unsent.due(now)
            return _WRITE
        if connection.requests:  # a pipeline
            if self.weight > AHEAD and self._look_ahead():
                return self.settle(now, leaving)
            self.deadline = 0.0
            return _SERVE
        if connection.error is not None:
            self._reject(connection.error)
            return self.settle(now, leaving)
        if connection.last:
            return self._end(now)
        rules = self._rules
        if connection.idle:
            timeout = rules.keepalive if self._answered else rules.header_timeout
            self.deadline = now + timeout if timeout else 0.0
            if leaving and (not self.deadline or leaving < self.deadline):
                self.deadline = leaving
            return _IDLE
        if connection.in_body:
            if connection.wants_continue:
                connection.wants_continue = False
                self._continued = True
                self.send(CONTINUE)
            body = connection.body
            assert body is not None
            body.since = body.since or now
            self.deadline = due(
                now,
                silence=rules.body_timeout,
                rate=rules.min_body_rate,
                since=body.since,
                done=body.size,
            )
        else:
            # From the first byte of the head on: a byte now and then gains no time.
            timeout = rules.header_timeout
            self.deadline = self._since + timeout if timeout else 0.0
        return _READ

    def _reject(self, problem: Reject) -> None:
        connection = self.connection
        if problem.status == 507 and _no_room.due():
            logs.event("warning", "body refused", reason=problem.reason)
        answer = error(
            problem.status, problem.reason, method=connection.method, headers=problem.headers
        )
        connection.error = None
        connection.body = None  # what it took is for others, however long this client lingers
        connection.finish()
        connection.surplus = True
        self.send(answer)

    def _end(self, now: float) -> NextStep:
        """The last response is sent; a client that still sends must not be reset by our close."""
        if self._lingering is None:
            if not self.connection.surplus:
                return _CLOSE
            try:
                self._lingering = LingeringClose(self.sock, now)
            except OSError:
                return _CLOSE
        self.deadline = self._lingering.due(now)
        return _CLOSE if self._lingering.over else _READ

    def overdue(self) -> None:
        """The deadline has passed: 408 for a request that has begun, an end for all else."""
        if self.unsent is not None and not (self.broken or self.unsent.given_up()):
            return
        given_up = (
            self.unsent is not None or self._lingering is not None or draining(self.connection)
        )
        if not (given_up or self.connection.idle):
            method = self.connection.method
            self.send(error(408, "the request did not come in time", method=method))
        self.broken = True

    def abandon(self) -> None:
        """In a child that the application has forked: the connection is the parent's alone."""
        self.broken = True
        self.sock.close()

    def close(self) -> None:
        if self.unsent is not None:
            self.unsent.close()
            self.unsent = None
        self.connection.close()
        self.sock.close()
