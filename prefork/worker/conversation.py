"""An HTTP client and its socket: read, answer, write, wait.

Nobody waits for a slow client: what is read or written never blocks. What the client won't take
is kept (prefork.worker.unsent) and finished from the epoll.
"""

import contextlib
import os
import socket
from enum import Enum
from functools import partial

from prefork import linux
from prefork.http.connection import CONTINUE, Connection
from prefork.http.head import Reject
from prefork.http.request import Environ, Request
from prefork.http.response import Headers, early_hints, error
from prefork.http.stream import DRAIN, Stream
from prefork.worker.accept import Door
from prefork.worker.handover import UNREAD, Parcel
from prefork.worker.lingering import Lingering
from prefork.worker.pull import draining, let_go, pull
from prefork.worker.rules import Rules, due
from prefork.worker.unsent import SendFile, Unsent

_HEAD = 16 * 1024  # bytes read at one time while a head is awaited
_BODY = 256 * 1024  # and while a body is
_SMALL_FILE = 32 * 1024  # read and sent with the head: one call in place of three
_SENDFILE = 1024 * 1024  # bytes asked of the kernel at one time
# Bytes of a response that the kernel may still have for the client when its next request is served.
# For one that does not read, it keeps up to net.ipv4.tcp_wmem, which are megabytes.
_AHEAD = 128 * 1024

_DONTWAIT = socket.MSG_DONTWAIT


class Wish(Enum):
    """What a conversation needs next."""

    IDLE = "idle"
    """The next request."""
    READ = "read"
    """The rest of one that has begun, or of what is thrown away."""
    WRITE = "write"
    SERVE = "serve"
    CLOSE = "close"


_IDLE, _READ, _WRITE = Wish.IDLE, Wish.READ, Wish.WRITE
_SERVE, _CLOSE = Wish.SERVE, Wish.CLOSE


class Conversation:
    """One accepted HTTP connection."""

    __slots__ = (
        "_answered",
        "_continued",
        "_discarded",
        "_lingering",
        "_rules",
        "_served",
        "_since",
        "_sock",
        "_started",
        "_unfinished",
        "_unsent",
        "_weight",
        "broken",
        "closing",
        "connection",
        "deadline",
        "door",
        "events",
        "expired",
        "fd",
        "serving",
        "tick",
        "wish",
    )

    def __init__(self, sock: socket.SocketType, base: Environ, rules: Rules, now: float) -> None:
        self._sock = sock
        self.fd = sock.fileno()
        self._rules = rules
        self.connection = Connection(base, rules.limits)
        self._unsent: Unsent | None = None  # there while the client lags behind
        self._since = now
        self._served = 0
        self._answered = False
        self._continued = False
        self._unfinished: bytes | bytearray | None = None
        self._lingering: Lingering | None = None
        self._discarded = 0
        self._started = False
        self._weight = 0  # of the last response, in bytes
        self.broken = False
        """The client is gone, or its request was given up."""
        self.expired = False
        """Its request was given up, and answered without the application."""
        self.closing = False
        """The next response is the last."""
        self.serving: Request | None = None
        """The request that the application has now."""
        self.door: Door | None = None
        """Where it came in, if it may leave for another worker."""
        self.wish = _CLOSE
        """What it waits for, as far as that was noted."""
        self.events = 0
        self.deadline = 0.0
        self.tick = 0

    # Reading.

    @property
    def idle(self) -> bool:
        """Between two requests, with nothing left to send."""
        return self._unsent is None and self._lingering is None and self.connection.idle

    @property
    def lagging(self) -> bool:
        """The client has something to take."""
        return self._unsent is not None

    def read(self, now: float) -> bool:
        """Takes what has come; True where a request is complete."""
        if self._lingering is not None:
            self._lingering.discard()
            return False
        connection = self.connection
        try:
            data = self._sock.recv(_BODY if connection.in_body else _HEAD, _DONTWAIT)
        except BlockingIOError:
            return bool(connection.requests)
        except OSError:  # reset, or gone in another way
            data = b""
        if not data:
            self.broken = True
            return False
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
        try:
            connection.feed(data)
        except OSError as problem:
            self._fail(problem)
        if connection.requests:
            # Should there be the beginning of another behind it, nobody can tell where.
            self._unfinished = None
            if self._weight > _AHEAD:
                self._look_ahead()
            return True
        self._note(data, begins)
        return False

    def receive(self) -> bytes:
        """More of a body; raises OSError as recv(2) does that does not wait."""
        return self._sock.recv(_BODY, _DONTWAIT)

    def _fail(self, problem: OSError) -> None:
        self.connection.error = Reject(507, f"the body can't be kept: {problem.strerror}")

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

    def take(self) -> Request | None:
        """The next request to answer, if nothing stands before it."""
        if self._unsent is not None or self.broken or not self.connection.requests:
            return None
        return self.connection.requests.pop(0)

    # To another worker and back.

    def parcel(self) -> Parcel | None:
        """What another worker needs to go on with it, None where it cannot move: it has something
        to send, or too much was read of a request, or the end of one was not told."""
        connection, door = self.connection, self.door
        if door is None or self._unsent is not None or self._lingering is not None:
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
        environ = connection.differs(door.base)
        if environ is None:
            return None
        return Parcel(
            *(door.inode, None, environ, data, self._since, deadline),
            *(self._answered, self._continued, self._served),
        )

    def resume(self, parcel: Parcel) -> None:
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

    # What an application's response is sent with (prefork.apps.wsgi.Out).

    def begin(self, request: Request) -> None:
        """The application gets a request: until something is sent, it can be expired."""
        self._started = False
        self.serving = request
        request.environ["wsgi.early_hints"] = self.early_hints
        if type(request.body) is Stream:
            request.body.more = partial(pull, self, self._rules.body_timeout)
        self._served += 1
        if self._served == self._rules.keepalive_requests:
            self.closing = True

    def done(self, keep_alive: bool, sent: int) -> None:
        """The application is through with its request, whose response had so many bytes."""
        self._weight = sent
        request, self.serving = self.serving, None
        self._answered = True
        if request is not None and type(request.body) is Stream:
            self._discarded = 0
            let_go(self.connection, request.body)
        if not keep_alive:
            self.connection.finish()

    def early_hints(self, headers: Headers) -> None:
        """`wsgi.early_hints`: sends 103 with these headers, such as `Link`, before the response.

        RFC 8297. Nothing is sent to a client of HTTP/1.0, or once the response has begun. Raises
        TypeError or ValueError for a header that may not be sent.
        """
        request = self.serving
        data = early_hints(headers)
        if request is not None and request.http11 and not self._started:
            self.send_interim(data)

    def send_interim(self, data: bytes) -> None:
        """What is no response yet: one that takes too long can still become a 504."""
        started = self._started
        self.send(data)
        self._started = started

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
                method = request.environ["REQUEST_METHOD"]
                answer = error(504, "the application took too long", method=method)
                self._sock.send(request.marked(answer))
            self._sock.shutdown(socket.SHUT_RDWR)
        self.broken = self.expired = True
        return request

    def send(self, data: bytes) -> None:
        """Sends now what the client takes, and keeps the rest."""
        if self.broken:
            return
        self._started = True
        if self._unsent is not None:
            self._keep(memoryview(data))
            return
        try:
            sent = self._sock.send(data, _DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.broken = True
            return
        if sent != len(data):
            self._keep(memoryview(data)[sent:])

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        """Sends a head and `count` bytes of a file from `offset`."""
        if count <= _SMALL_FILE:
            data = os.pread(fd, count, offset)
            self.send(head + data)
            self.broken = self.broken or len(data) != count  # shrunk since it was promised
            return
        self.send(head)
        if not self.broken:
            self._lag().add_file(fd, offset, count)
            self.flush()

    def _keep(self, data: memoryview) -> None:
        try:
            unsent = self._lag()
            unsent.add(data)
            if not unsent:  # it was waited for
                self._unsent = None
        except OSError:
            self.broken = True

    def _lag(self) -> Unsent:
        """From now on the client has something to take."""
        if self._unsent is None:
            self._unsent = Unsent(self._sock, self._file_sender(), self._rules)
        return self._unsent

    def _file_sender(self) -> SendFile:
        return partial(_send_file, self.fd)

    def _look_ahead(self) -> bool:
        """Before the next request is served: whether its client has to take more of the last
        response first, of which the kernel has much.

        A client that asks for more than it reads would otherwise have its worker make, and keep,
        as many responses as it cares to ask for.
        """
        try:
            if linux.not_sent(self.fd) <= _AHEAD:
                self._weight = 0
                return False
            # From now on the epoll calls it writable only with less than half of that unsent
            # (tcp(7)); and for this client the kernel will keep no more.
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _AHEAD)
        except OSError:  # a Unix socket, for which the kernel keeps little
            self._weight = 0
            return False
        self._lag()
        return True

    def flush(self) -> None:
        """Sends what is kept, as much as the client takes now and others can wait for."""
        unsent = self._unsent
        if unsent is None:
            return
        try:
            unsent.flush()
            if not unsent:
                self._unsent = None
        except OSError:
            self.broken = True

    # What comes next.

    def settle(self, now: float, leaving: float = 0.0) -> Wish:
        """Decides what to wait for, and sets the deadline.

        `leaving`: monotonic seconds at which a worker that is on its way out ends its idle
        connections; 0 when it is not on its way out.
        """
        if self.broken:
            return _CLOSE
        rules = self._rules
        connection = self.connection
        if leaving:
            self.closing = True
        if self._unsent is None and not connection.requests and connection.error is not None:
            self._reject(connection.error)
        if self._unsent is not None:
            self.deadline = self._unsent.due(now)
            return _WRITE
        if connection.requests:  # a pipeline
            if self._weight > _AHEAD and self._look_ahead():
                return self.settle(now, leaving)
            self.deadline = 0.0
            return _SERVE
        if connection.last:
            return self._end(now)
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
        answer = error(problem.status, problem.reason, method=connection.method)
        connection.error = None
        connection.finish()
        connection.surplus = True
        self.send(answer)

    def _end(self, now: float) -> Wish:
        """The last response is sent; a client that still sends must not be reset by our close."""
        if self._lingering is None:
            if not self.connection.surplus:
                return _CLOSE
            try:
                self._lingering = Lingering(self._sock, now)
            except OSError:
                return _CLOSE
        self.deadline = self._lingering.due(now)
        return _CLOSE if self._lingering.over else _READ

    def overdue(self) -> None:
        """The deadline has passed: 408 for a request that has begun, an end for all else."""
        if self._unsent is not None and not (self.broken or self._unsent.given_up()):
            return
        given_up = (
            self._unsent is not None or self._lingering is not None or draining(self.connection)
        )
        if not (given_up or self.connection.idle):
            method = self.connection.method
            self.send(error(408, "the request did not come in time", method=method))
        self.broken = True

    def abandon(self) -> None:
        """In a child that the application has forked: the connection is the parent's alone."""
        self.broken = True
        self._sock.close()

    def close(self) -> None:
        if self._unsent is not None:
            self._unsent.close()
            self._unsent = None
        self.connection.close()
        self._sock.close()


def _send_file(to: int, fd: int, offset: int, count: int) -> int:
    return os.sendfile(to, fd, offset, min(count, _SENDFILE))
