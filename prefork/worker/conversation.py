"""An HTTP client and its socket: read, answer, write, wait.

Nobody waits for a slow client: what is read or written never blocks. What the client won't take
is kept here, in memory and past a size on disk, and finished from the epoll; only a response that
outgrows even that makes its thread wait.
"""

import contextlib
import os
import select
import socket
from collections import deque
from enum import Enum
from tempfile import TemporaryFile
from time import monotonic
from typing import IO

from msgspec import Struct

from prefork.http.body import Body, Budget
from prefork.http.connection import CONTINUE, Connection, Environ, Limits, Request
from prefork.http.head import Reject
from prefork.http.response import Headers, early_hints, error
from prefork.http.stream import DRAIN, Stream
from prefork.worker.accept import Door
from prefork.worker.handover import UNREAD, Parcel

_HEAD = 16 * 1024  # bytes read at one time while a head is awaited
_BODY = 256 * 1024  # and while a body is
_SMALL_FILE = 32 * 1024  # read and sent with the head: one call in place of three
_SENDFILE = 1024 * 1024  # bytes asked of the kernel at one time
_FILES_AT_ONCE = 8  # such pieces, until other connections get their turn
# A client that is told the end may finish what it was sending, and reads the answer only then: for
# so many seconds in all, of silence, and so many bytes.
_LINGER = 10.0
_LINGER_SILENCE = 2.0
_LINGER_BYTES = 64 * 1024 * 1024
_DISCARDS_AT_ONCE = 8  # reads, until other connections get their turn
_GRACE = 30.0
"""Seconds before a rate is looked at where silence has no limit."""

_DONTWAIT = socket.MSG_DONTWAIT


class Rules(Struct, frozen=True):
    """Time limits in seconds and size limits in bytes, 0 for none."""

    limits: Limits
    keepalive: float
    keepalive_requests: int
    """Requests answered on one connection."""
    header_timeout: float
    body_timeout: float
    min_body_rate: int
    """Bytes a second, on the average since the body began, after `body_timeout`."""
    write_timeout: float
    min_write_rate: int
    """Bytes a second that a client takes, since it began to lag behind, after `write_timeout`."""
    response_memory: int
    response_spill: int
    budget: Budget
    """What all bodies and responses of a worker may take of its memory."""


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


class FilePart:
    """Bytes of a file that are still to be sent; owns its descriptor."""

    __slots__ = ("count", "fd", "offset", "spilled")

    def __init__(self, fd: int, offset: int, count: int, *, spilled: bool = False) -> None:
        self.fd = fd
        self.spilled = spilled
        self.offset = offset
        self.count = count

    def close(self) -> None:
        os.close(self.fd)


class Conversation:
    """One accepted HTTP connection."""

    __slots__ = (
        "_answered",
        "_continued",
        "_discarded",
        "_lagging_since",
        "_lingering",
        "_memory",
        "_pending",
        "_rules",
        "_served",
        "_since",
        "_sock",
        "_spill",
        "_spilled",
        "_started",
        "_taken",
        "_unfinished",
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
        self._pending: deque[memoryview | FilePart] | tuple[()] = ()
        self._memory = 0
        self._spill: IO[bytes] | None = None
        self._spilled = 0
        self._since = now
        self._served = 0
        self._answered = False
        self._continued = False
        self._unfinished: bytes | bytearray | None = None
        self._lingering = False
        self._discarded = 0
        self._started = False
        self._lagging_since = 0.0
        self._taken = 0
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
        return not self._pending and not self._lingering and self.connection.idle

    def read(self, now: float) -> bool:
        """Takes what has come; True where a request is complete."""
        if self._lingering:
            self._discard()
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
            if self._draining:
                self._discarded += len(data)
                if self._discarded > DRAIN:
                    connection.finish()
        self._feed(data)
        if connection.requests:
            # Should there be the beginning of another behind it, nobody can tell where.
            self._unfinished = None
            return True
        self._note(data, begins)
        return False

    def _feed(self, data: bytes) -> None:
        try:
            self.connection.feed(data)
        except OSError as problem:
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
        if self._pending or self.broken or not self.connection.requests:
            return None
        return self.connection.requests.pop(0)

    # To another worker and back.

    def parcel(self) -> Parcel | None:
        """What another worker needs to go on with it, None where it cannot move: it has something
        to send, or too much was read of a request, or the end of one was not told."""
        connection, door = self.connection, self.door
        if door is None or self._pending or self._lingering or self.broken:
            return None
        if self.serving is not None or connection.requests or connection.last or connection.error:
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
            self._feed(parcel.data)
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
            request.body.more = self._pull
        self._served += 1
        if self._served == self._rules.keepalive_requests:
            self.closing = True

    def done(self, keep_alive: bool) -> None:
        """The application is through with its request."""
        request, self.serving = self.serving, None
        self._answered = True
        if request is not None and type(request.body) is Stream:
            self._let_go(request.body)
        if not keep_alive:
            self.connection.finish()

    # A body that the application reads while it comes.

    def _pull(self) -> None:
        """Takes more of the body, and waits for it, in the thread of the application."""
        connection = self.connection
        body = connection.body
        assert type(body) is Stream
        if connection.wants_continue:
            connection.wants_continue = body.awaited = False
            self._send_interim(CONTINUE)
        try:
            data = b"" if self.broken else self._await_data()
        except TimeoutError:
            body.fail(Reject(408, "the request did not come in time"))
            connection.finish()
            return
        except OSError:
            data = b""
        if data:
            connection.feed(data)
        else:
            self.broken = True
            body.fail(Reject(400, "the client is gone"))

    def _await_data(self) -> bytes:
        """Raises TimeoutError after `body_timeout`, and other OSErrors of a broken connection."""
        timeout = self._rules.body_timeout
        due = monotonic() + timeout
        poll = select.poll()
        while True:
            with contextlib.suppress(BlockingIOError):
                return self._sock.recv(_BODY, _DONTWAIT)
            # A client may want its answer read before it sends on.
            poll.register(self.fd, select.POLLIN | (select.POLLOUT if self._pending else 0))
            left = max(due - monotonic(), 0.0) * 1000 if timeout else None
            events = poll.poll(left)
            if not events:
                raise TimeoutError
            if events[0][1] & select.POLLOUT:
                self.flush()
                if self.broken:
                    raise ConnectionError

    def _let_go(self, body: Stream) -> None:
        """The application has answered, and may have left some of the body unread."""
        body.abandon()
        connection = self.connection
        if connection.body is not body:
            return  # it is complete
        self._discarded = 0
        if not body.drainable:
            connection.wants_continue = False
            connection.finish()

    @property
    def _draining(self) -> bool:
        """What is read now is the rest of a body that nobody wants."""
        body = self.connection.body
        return type(body) is Stream and body.unwanted

    def early_hints(self, headers: Headers) -> None:
        """`wsgi.early_hints`: sends 103 with these headers, such as `Link`, before the response.

        RFC 8297. Nothing is sent to a client of HTTP/1.0, or once the response has begun. Raises
        TypeError or ValueError for a header that may not be sent.
        """
        request = self.serving
        data = early_hints(headers)
        if request is not None and request.http11 and not self._started:
            self._send_interim(data)

    def _send_interim(self, data: bytes) -> None:
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
        if self._pending:
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
        if self.broken:
            return
        # The application may close its file before the client has it all.
        self._lag()
        self._queue(FilePart(os.dup(fd), offset, count))
        self._sock.setblocking(False)  # sendfile(2) knows no MSG_DONTWAIT
        self.flush()

    def _lag(self) -> None:
        """The client does not take what is sent to it."""
        if not self._pending:
            self._lagging_since = monotonic()
            self._taken = 0

    def _queue(self, part: memoryview | FilePart) -> None:
        if not isinstance(self._pending, deque):  # which takes 0.6 KB, even where it is empty
            self._pending = deque()
        self._pending.append(part)

    def _keep(self, data: memoryview) -> None:
        rules = self._rules
        self._lag()
        while data:
            size = len(data)
            room = not rules.response_memory or self._memory + size <= rules.response_memory
            if room and rules.budget.take(size):
                self._memory += size
                # A copy: the tail of a large body would keep all of it in memory.
                self._queue(memoryview(bytes(data)))
                return
            if not rules.response_spill or self._spilled + size <= rules.response_spill:
                self._spill_over(data)
                return
            data = self._wait_for_reader(data)

    def _spill_over(self, data: memoryview) -> None:
        """Puts bytes on disk, behind all that is kept. A full disk ends the connection."""
        size = len(data)
        offset = self._spilled
        try:
            if self._spill is None:
                self._spill = TemporaryFile(buffering=0)  # noqa: SIM115
            fd = self._spill.fileno()
            while data:
                written = os.pwrite(fd, data, self._spilled)
                self._spilled += written
                data = data[written:]
            last = self._pending[-1] if self._pending else None
            if isinstance(last, FilePart) and last.spilled:
                last.count += size
            else:
                self._queue(FilePart(os.dup(fd), offset, size, spilled=True))
                self._sock.setblocking(False)
        except OSError:
            self.broken = True

    def _wait_for_reader(self, data: memoryview) -> memoryview:
        """Waits until the client takes something; returns what is left of `data`."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        now = monotonic()
        due = self._write_due(now)
        if not poll.poll(max(due - now, 0.0) * 1000 if due else None):
            self.broken = True
        self.flush()
        if self.broken:
            return data[:0]
        if self._pending:
            return data
        try:
            sent = self._sock.send(data, _DONTWAIT)
            self._taken += sent
            return data[sent:]
        except BlockingIOError:
            return data
        except OSError:
            self.broken = True
            return data[:0]

    def flush(self) -> None:
        """Sends what is kept, as much as the client takes now and others can wait for."""
        pending = self._pending
        if not isinstance(pending, deque):
            return
        files = 0
        try:
            while pending and not self.broken and files < _FILES_AT_ONCE:
                part = pending[0]
                if isinstance(part, FilePart):
                    files += 1
                    sent = self._send_part(part)
                    if not sent:
                        self.broken = True  # the file has shrunk since it was promised
                    self._taken += sent
                    part.offset += sent
                    part.count -= sent
                    if not part.count:
                        part.close()
                        pending.popleft()
                else:
                    sent = self._sock.send(part, _DONTWAIT)
                    self._taken += sent
                    self._memory -= sent
                    self._rules.budget.give_back(sent)
                    if sent == len(part):
                        pending.popleft()
                    else:
                        pending[0] = part[sent:]
        except BlockingIOError:
            return
        except OSError:
            self.broken = True
        if not pending and self._spill is not None:
            self._spill.close()
            self._spill = None
            self._spilled = 0

    def _send_part(self, part: FilePart) -> int:
        """Sends bytes of a file as far as the client takes them; 0 where it has no more."""
        return os.sendfile(self.fd, part.fd, part.offset, min(part.count, _SENDFILE))

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
        if not self._pending and not connection.requests and connection.error is not None:
            self._reject(connection.error)
        if self._pending:
            self.deadline = self._write_due(now)
            return _WRITE
        if connection.requests:
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
            timeout = rules.body_timeout
            self.deadline = now + timeout if timeout else 0.0
            if rules.min_body_rate and connection.body is not None:
                self._demand_rate(connection.body, now)
        else:
            # From the first byte of the head on: a byte now and then gains no time.
            timeout = rules.header_timeout
            self.deadline = self._since + timeout if timeout else 0.0
        return _READ

    def _write_due(self, now: float) -> float:
        """When a client that has something to take is given up; 0 for never."""
        rules = self._rules
        due = now + rules.write_timeout if rules.write_timeout else 0.0
        if rules.min_write_rate:
            grace = rules.write_timeout or _GRACE
            slowest = self._lagging_since + grace + self._taken / rules.min_write_rate
            if not due or slowest < due:
                return slowest
        return due

    def _demand_rate(self, body: Body | Stream, now: float) -> None:
        """A byte now and then gains no time for ever: a body has to come at some rate."""
        if not body.since:
            body.since = now
        rules = self._rules
        due = body.since + (rules.body_timeout or _GRACE) + body.size / rules.min_body_rate
        if not self.deadline or due < self.deadline:
            self.deadline = due

    def _reject(self, problem: Reject) -> None:
        connection = self.connection
        answer = error(problem.status, problem.reason, method=connection.method)
        connection.error = None
        connection.finish()
        connection.surplus = True
        self.send(answer)

    def _end(self, now: float) -> Wish:
        """The last response is sent; a client that still sends must not be reset by our close."""
        if self._lingering:
            self.deadline = min(now + _LINGER_SILENCE, self._since + _LINGER)
            return _READ
        if not self.connection.surplus:
            return _CLOSE
        self._lingering = True
        self._since = now
        self.deadline = now + _LINGER_SILENCE
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return _CLOSE
        self._discard()
        return _CLOSE if self.broken else _READ

    def _discard(self) -> None:
        try:
            for _ in range(_DISCARDS_AT_ONCE):
                size = len(self._sock.recv(_BODY, _DONTWAIT))
                self._discarded += size
                if not size or self._discarded > _LINGER_BYTES:
                    self.broken = True
                    return
        except BlockingIOError:
            return
        except OSError:
            self.broken = True

    def overdue(self) -> None:
        """The deadline has passed: 408 for a request that has begun, an end for all else."""
        if not (self._pending or self._lingering or self.connection.idle or self._draining):
            method = self.connection.method
            self.send(error(408, "the request did not come in time", method=method))
        self.broken = True

    def abandon(self) -> None:
        """In a child that the application has forked: the connection is the parent's alone."""
        self.broken = True
        self._sock.close()

    def close(self) -> None:
        for part in self._pending:
            if isinstance(part, FilePart):
                part.close()
        self._pending = ()
        if self._memory:
            self._rules.budget.give_back(self._memory)
            self._memory = 0
        if self._spill is not None:
            self._spill.close()
        self.connection.close()
        self._sock.close()
