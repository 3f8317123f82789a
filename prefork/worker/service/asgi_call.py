"""One call of an ASGI application: its `receive` and `send`, and the task that runs it.

The contract, beside the specification (HTTP 2.5):

- `send` returns at once while no more than 64 KiB wait for the client, and waits otherwise.
  Nothing is written to disk, and the event loop is never blocked for a client.
- The body is read as it is asked for: 64 KiB ahead, no more.
- If the client leaves, `receive` returns `http.disconnect` and `send` raises OSError.  The task is
  not cancelled for that, and CancelledError passes through both.
- The response is complete with its last message, not with the end of the task: the connection goes
  on at once, and what the task still does is background work.
"""

import asyncio
import stat
from collections.abc import Awaitable, Callable
from select import EPOLLIN, EPOLLOUT
from time import monotonic
from typing import Any, NoReturn, Protocol

from prefork.apps.asgi_compress import MessageCompressor
from prefork.apps.asgi_response import (
    AsgiResponse,
    Message,
    MisusedProtocol,
    as_bytes,
    early_hint,
    field,
    wrong_field,
)
from prefork.http.asgi_scope import Scope
from prefork.http.head_rules import Reject
from prefork.http.request import Request
from prefork.http.response_head import body_size, error
from prefork.http.streamed_body import StreamedBody
from prefork.unpatched import os
from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.protocol.connection_state import ConnectionState
from prefork.worker.transport.output_buffer import AHEAD

AsgiReceive = Callable[[], Awaitable[Message]]
AsgiSend = Callable[[Message], Awaitable[None]]
AsgiApplication = Callable[[Scope, AsgiReceive, AsgiSend], Awaitable[object]]

UNSENT = 64 * 1024
"""Bytes that may wait for the client before `send` waits."""

TURN = 128 * 1024
"""Bytes of a response after which others get their turn, if the application awaits nothing else."""

UNREAD = 64 * 1024
"""Bytes of a body that are read before the application asks for them."""

_PIECE = 64 * 1024

_TURNS_OF_LISTENER = 10
"""Turns of the loop in which a task that awaits the end of the client can act, before `send` fails
in another one.  Django's needs three."""

_LEAVE = 1.0
"""Seconds in which a call that is over its time can end by itself, if it awaits the end of its
client: the server gives its workers `prefork.master.observe.timeouts._CANCELLATION`."""

_CALL, _RECEIVE, _SEND = ConnectionState.CALL, ConnectionState.RECEIVE, ConnectionState.SEND


class ClientDisconnectedError(ConnectionError):
    """The client has left before the response was complete."""


class CallOwner(Protocol):
    """What a call needs of its worker."""

    loop: asyncio.AbstractEventLoop

    def settle(self, connection: AsgiConnection) -> None:
        """The connection may have another state now."""

    def pause(self, call: "AsgiCall") -> None:
        """The application waits for its client."""

    def resume(self, call: "AsgiCall") -> None:
        """The application is at work again."""

    def refused(self, problem: Reject) -> None:
        """The server answers a request whose body is not as it has to be."""

    def answered(self, call: "AsgiCall") -> None:
        """The response is complete, or was given up."""

    def ended(self, call: "AsgiCall") -> None:
        """The task has ended."""

    def failed(self, request: Request, problem: BaseException) -> None:
        """The application has raised an exception."""


class AsgiCall(AsgiResponse):
    """One request in the application (prefork.worker.protocol.connection_exchange.Exchange)."""

    __slots__ = (
        *("_arrived", "_body", "_compressor", "_cut", "_drained", "_given", "_leaving"),
        *("_listened", "_owner", "_started", "_stream", "at_work_since", "began", "cancelled"),
        *("connection", "expired", "over", "slot", "status", "task", "waited", "waits_since"),
        "_waiting",
    )

    def __init__(
        self,
        owner: CallOwner,
        connection: AsgiConnection,
        request: Request,
        now: float,
        compressor: MessageCompressor | None,
    ) -> None:
        AsgiResponse.__init__(self, request)  # `super` would take longer
        self._owner = owner
        self.connection = connection
        self.began = now
        """Monotonic seconds."""
        self.slot = 0
        """Its record on the scoreboard."""
        self.task: asyncio.Task[None] | None = None
        self.over = False
        """Nothing more is sent: the response is complete, or was given up."""
        self.expired = False
        """The request took too long, and was answered without the application."""
        self.cancelled = False
        """Its task was cancelled, since the worker stops."""
        self.at_work_since = now
        """Monotonic seconds since which the application is at work on the next piece of its
        response; infinity while it waits for its client."""
        self.waited = 0.0
        """Seconds that it has waited for its client before."""
        self.waits_since = 0.0
        """Monotonic seconds since which it waits for its client, if it does."""
        self.status = 500
        """Of the response, once it has begun; else that of the error in its place."""
        self._compressor = compressor
        body = request.body
        self._body = body if type(body) is StreamedBody else None
        self._given = False  # the last byte of the body was received
        self._started = False  # bytes of the response were sent
        self._cut = False  # a message was sent by half
        self._leaving = False  # a stream is to end: the worker stops
        self._listened = False  # the application knows of the end of the client, or awaits it
        self._stream = False  # of events: silence is no fault of the application
        self._arrived: list[asyncio.Future[None]] = []
        self._drained: list[asyncio.Future[None]] = []
        self._waiting = 0  # tasks that wait for the client; one that is woken has to run first

    async def run(self, application: AsgiApplication, scope: Scope) -> None:
        """The task: calls the application, and sees to it that the client gets an answer."""
        try:
            await application(scope, self.receive, self.send)
        except BaseException as problem:  # SystemExit too: it ends the request, not the worker
            self._fail(problem)
        else:
            if not self.over:
                what = "without a response" if not self._started else "before its response did"
                # To end is one answer to the end of the client.
                told = self._gave_up and (self._listened or self.connection.broken)
                kind = ClientDisconnectedError if told else MisusedProtocol
                self._fail(kind(f"the application ended {what}"))
        finally:
            self._owner.ended(self)

    # prefork.worker.protocol.connection_exchange.Exchange

    @property
    def state(self) -> ConnectionState:
        connection = self.connection
        if connection.unsent is not None:
            return _SEND
        return _RECEIVE if self._arrived and connection.reader.in_body else _CALL

    @property
    def events(self) -> int:
        connection, body = self.connection, self._body
        events = EPOLLOUT if connection.unsent is not None else 0
        reading = body is not None and connection.reader.body is body
        if reading and body is not None and body.problem is None and body.unread < UNREAD:
            # The client that waits for 100 has nothing to be read.
            events |= EPOLLIN
        return events

    def deadline(self, now: float) -> float:
        return 0.0

    def ready(self, now: float) -> bool:
        connection = self.connection
        if connection.unsent is not None:
            connection.flush()
            if connection.unsent is None or connection.broken:
                wake_all(self._drained)
        if connection.left or connection.broken:
            wake_all(self._arrived)
            return False
        body = self._body
        if body is None or connection.reader.body is not body or body.unread < UNREAD:
            connection.read_ahead()
        if body is not None and self._arrived and (body.unread or body.whole or body.problem):
            self._look_at_body(body)
        return False

    def client_left(self) -> None:
        wake_all(self._arrived)
        if self.connection.broken:
            wake_all(self._drained)

    def overdue(self, now: float) -> None:
        body = self._body
        if self.connection.broken:
            wake_all(self._drained)
        elif body is not None and self._arrived:
            body.fail(Reject(408, "the request did not come in time"))
            self.connection.fail_body()
            self._look_at_body(body)

    def stop(self, by: float, *, reload: bool) -> None:
        """Tells an application whose response has begun, and that awaits the end of its client,
        that the client has left: a stream of events ends, and its client connects anew."""
        self._leaving = True
        wake_all(self._arrived)

    # The worker's side.

    def waits_for_client(self, now: float, limit: float) -> bool:
        """The application waits until its client takes or sends more, or has done so most of its
        time: between two waits it is at work for a moment, shorter than `limit` seconds."""
        if self._waiting:
            return True
        return now - limit < self.at_work_since <= now and self.waited * 2 >= now - self.began

    def expire(self) -> None:
        """The application has taken too long: answers 504 if nothing was sent, and cancels it.

        One that awaits the end of its client is told of that, and cancelled if it goes on: Django
        would leave the task of its view running, with its connections of databases.
        """
        connection = self.connection
        listens = self._listened and bool(self._arrived)
        if not self.over:
            self.expired = True
            if not self._started and not connection.broken:
                self._answer(504, "the application took too long")
            else:
                connection.break_off()
            self.give_up(504)
        if self.task is not None:
            if listens:
                self._owner.loop.call_later(_LEAVE, self.task.cancel)
            else:
                self.task.cancel()

    def cancel(self) -> None:
        """The worker has no more time for it."""
        self.cancelled = True
        if not self.over:
            self._owner.resume(self)
        if self.task is not None:
            self.task.cancel()

    def _look_at_body(self, body: StreamedBody) -> None:
        problem = body.problem
        if problem is not None and not self._started and not self.over:
            # The server answers, whatever the application makes of it.
            self._answer(problem.status, problem.reason)
            self._owner.refused(problem)
            self.give_up(problem.status)
        wake_all(self._arrived)

    def _answer(self, status: int, reason: str) -> None:
        """The server answers for the application."""
        request = self.request
        answer = error(status, reason, method=request.method)
        self.sent = body_size(answer)
        self.connection.send(request.marked(answer))

    def give_up(self, status: int) -> None:
        """The request was answered, or cut, by the server: the application sends nothing more."""
        self.status = status
        self._end(last=True)

    # The application's side.

    async def receive(self) -> Message:
        """The `receive` of ASGI."""
        body, connection = self._body, self.connection
        while not (self._given or self.over):
            if body is None:
                self._given = True
                data = self.request.environ["wsgi.input"].read()
                return {"type": "http.request", "body": data, "more_body": False}
            was_full = body.unread >= UNREAD
            data = body.take()
            if body.whole:
                self._given = True
                return {"type": "http.request", "body": data, "more_body": False}
            if data:
                if was_full:
                    self._owner.settle(connection)
                return {"type": "http.request", "body": data, "more_body": True}
            if connection.left or connection.broken:
                break
            if body.problem is not None:
                self._look_at_body(body)
                break
            connection.continue_body()
            await self._wait(self._arrived)
        self._listened = True
        while not (self.over or connection.left or connection.broken):
            if self._leaving and self._started:
                break
            await self._wait(self._arrived)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """The `send` of ASGI.  Raises ClientDisconnectedError, and MisusedProtocol, TypeError or
        ValueError for a message that may not be sent."""
        kind, connection = message["type"], self.connection
        if self.over or self.complete or self._cut or self._drained or connection.broken:
            await self._may_send(kind)
        if kind == "http.response.start":
            self.start(message)
            return
        if kind == "http.response.body":
            data = message.get("body", b"")
            if type(data) is not bytes:
                data = as_bytes(message)
            more = message.get("more_body")
            if more and (more is True or field(message, "more_body", bool, int)):
                await self._send_more(data)
            elif self._sent_whole(data):
                if not self.over:
                    await self._raise_disconnected()
                return
            else:
                await self._send_body(data, more=False)
        elif kind == "http.response.early_hint":
            if not self._started and self.request.http11:
                connection.send_interim(early_hint(message))
        elif kind == "http.response.trailers":
            await self._transmit(self.trailers(message))
        elif kind == "http.response.pathsend":
            # A FIFO without a writer would block the loop.
            path = message.get("path")
            if not isinstance(path, (str, bytes, os.PathLike)):
                raise wrong_field(message, "path", "str")
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise MisusedProtocol(f"{path!r} is not a regular file")
                await self._send_file(fd, 0, status.st_size, more=False)
            finally:
                os.close(fd)
        elif kind == "http.response.zerocopysend":
            await self._zero_copy(message)
        else:
            raise MisusedProtocol(f"the message {kind!r} is unknown, or not one of a response")
        if self.complete and not self.over:
            self._end(last=self.head is None or not self.head.keep_alive)

    async def _may_send(self, kind: str) -> None:
        """Returns when a message may be sent: of several tasks that send, the first one goes on
        first.  Raises as `send` does."""
        if self.complete:
            raise MisusedProtocol(f"{kind} was sent after the end of the response")
        while not (self.over or self._cut or self.connection.broken):
            if not self._drained:
                return
            await self._wait(self._drained)
        cut = self._cut and not (self.over or self.connection.broken)
        reason = (
            "a message was cancelled after part of it was sent" if cut else "the client has left"
        )
        await self._raise_disconnected(reason)

    def _sent_whole(self, data: bytes) -> bool:
        """Sends a response whose body is complete with its first message, by a shorter way; it is
        over then, unless the client has left.

        False if it is up to `_send_body`.
        """
        connection, size = self.connection, len(data)
        if self._compressor is not None or connection.unsent is not None or size > UNSENT // 2:
            return False
        now = monotonic()
        head = self.whole_head(size, now, closing=connection.closing)
        if head is None:
            return False
        self.head, self.sent, self.status = head, size, head.code
        self._started = self.ending = self.complete = True
        piece = head.data + data
        connection.offer(piece, len(piece))
        if not connection.broken:
            self._end(last=not head.keep_alive)
        return True

    async def _raise_disconnected(self, reason: str = "the client has left") -> NoReturn:
        """Nothing more can be sent.

        Raises ClientDisconnectedError, and CancelledError if another task of the application awaits
        the end of the client and cancels this one for that.  Django tells its receivers of
        `request_finished`, which close connections of databases, in this order only.
        """
        if self._listened:
            wake_all(self._arrived)
            for _ in range(_TURNS_OF_LISTENER):
                await asyncio.sleep(0)
        raise ClientDisconnectedError(reason)

    async def _send_more(self, data: bytes) -> None:
        """Sends a piece of a body of which more is to come."""
        if not (self._leaving and self._stream):
            await self._send_body(data, more=True)
            return
        # The worker stops: the stream ends behind this event, and its client connects anew.
        await self._send_body(data, more=False)
        self._end(last=True)
        await self._raise_disconnected("the worker stops, and ends streams of events")

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        compressor = self._compressor
        if compressor is not None:
            if self.head is None and self.status_text is not None:
                self.headers = compressor.start(self.status_text, self.headers)
            data = compressor.body(data, more=more)
        if more and not data and self.head is not None:
            return
        before, after = self.framing(len(data), more=more, closing=self.connection.closing)
        await self._transmit(before, data if self.has_body else b"", after)

    async def _zero_copy(self, message: Message) -> None:
        """`http.response.zerocopysend`: part of an open file, from its own position if no other is
        given."""
        fd: Any = message.get("file")
        if hasattr(fd, "fileno"):
            fd = fd.fileno()
        if not isinstance(fd, int):
            raise wrong_field(message, "file", "a file or its descriptor")
        offset, count = field(message, "offset", int), field(message, "count", int)
        begin = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
        size = max(os.fstat(fd).st_size - begin, 0)
        count = size if count is None else min(count, size)
        if offset is None:
            os.lseek(fd, begin + count, os.SEEK_SET)
        more = bool(field(message, "more_body", bool, int))
        await self._send_file(fd, begin, count, more=more)

    async def _send_file(self, fd: int, offset: int, count: int, *, more: bool) -> None:
        """Sends part of a file; the descriptor is the caller's."""
        connection = self.connection
        prefix = self.file(count, more=more, closing=connection.closing)
        if prefix is None:
            while count > _PIECE:
                data = os.pread(fd, _PIECE, offset)
                if not data:
                    break
                await self._transmit(self.body(data, more=True, closing=connection.closing))
                offset, count = offset + len(data), count - len(data)
            data = os.pread(fd, count, offset)
            await self._transmit(self.body(data, more=more, closing=connection.closing))
            return
        self._begin()
        if self.has_body and count:
            connection.send_file(prefix, fd, offset, count)
            if connection.unsent is not None and more:
                await self._wait(self._drained)
        elif prefix:
            connection.send(prefix)

    def _begin(self) -> None:
        """Bytes of the response are about to be sent."""
        if not self._started:
            self._started = True
            assert self.head is not None
            self.status = self.head.code
            self._stream = any(
                name.lower() == "content-type" and value.startswith("text/event-stream")
                for name, value in self.headers
            )
            if self.ends_with_close:
                self.connection.ends_with_close()

    async def _transmit(self, before: bytes, data: bytes = b"", after: bytes = b"") -> None:
        """Sends bytes; returns when no more than UNSENT of them wait for the client."""
        whole = before + data + after
        if not whole:
            return
        self._begin()
        connection = self.connection
        if self.sent > AHEAD:
            connection.limit_ahead()
        taken = connection.offer(whole, UNSENT)
        if taken != len(whole):
            del whole  # what waits is the application's own bytes, of which many clients have one
            for part in (before, data, after):
                view = memoryview(part)[taken:]
                taken = max(taken - len(part), 0)
                while len(view) and not self.over:
                    view = view[connection.offer(view, UNSENT) :]
                    if len(view):
                        try:
                            await self._wait(self._drained)
                        except BaseException:
                            self._cut = True
                            raise
        if self.over or connection.broken:
            await self._raise_disconnected()
        if not self.complete:
            self._work_goes_on()
            if connection.unsent is not None:
                self._owner.settle(connection)  # it is to be sent from the epoll
            if self.sent % TURN < len(data):
                await asyncio.sleep(0)  # a client that takes all of it at once is not the only one

    async def _wait(self, waiters: "list[asyncio.Future[None]]") -> None:
        """Waits for an event of the connection."""
        waiter = self._owner.loop.create_future()
        waiters.append(waiter)
        # For more of the body, or until more was taken: but not for the end of the client, which
        # is awaited beside the work.
        client = waiters is self._drained or not self._given
        if client:
            self._waiting += 1
            self._owner.pause(self)
        try:
            self._owner.settle(self.connection)
            await waiter
        finally:
            if client:
                self._waiting -= 1
                if not self.over:
                    self._work_goes_on()
            if waiter in waiters:
                waiters.remove(waiter)

    def _work_goes_on(self) -> None:
        """The application is at work on the next piece; of a stream of events, it waits for one."""
        if self._stream and not self.cancelled:
            self._owner.pause(self)
        else:
            self._owner.resume(self)

    # The end.

    def _end(self, *, last: bool) -> None:
        """Nothing more is sent by the application; the connection goes on."""
        self.over = True
        self._owner.answered(self)
        connection = self.connection
        connection.end_exchange(self.request, self.sent, last=last)
        if self._arrived:
            wake_all(self._arrived)
        if self._drained:
            wake_all(self._drained)
        if not connection.proceeding:
            self._owner.settle(connection)

    def _fail(self, problem: BaseException) -> None:
        """The application has raised an exception, in whatever state its response is."""
        connection, request = self.connection, self.request
        ours = self.expired or self.cancelled
        if not (self._gave_up and came_of_the_client(problem)) and not (
            ours and isinstance(problem, asyncio.CancelledError)
        ):
            self._owner.failed(request, problem)
        BaseException.with_traceback(problem, None)  # whatever its class makes of it
        if self.over:
            return
        if not self._started and not connection.broken:
            status, reason = 500, "the application failed"
            if self.cancelled:
                status, reason = 503, "the server stops"
            self.status = status
            self._answer(status, reason)
        else:
            connection.break_off()
        self._end(last=True)

    @property
    def _gave_up(self) -> bool:
        """The application need not complete its response: the client has left, or is to leave."""
        connection = self.connection
        return (
            connection.broken
            or connection.left
            or self._leaving
            or (self.over and not self.complete)
        )


def wake_all(waiters: "list[asyncio.Future[None]]") -> None:
    """Wakes all that wait, and forgets them."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


_DISCONNECTS = frozenset({"ClientDisconnect", "WebSocketDisconnect", "WebSocketDisconnected"})
"""Names of exceptions: of Starlette, FastAPI, Litestar and Falcon."""


def came_of_the_client(problem: BaseException) -> bool:
    """Whether an exception is the application's answer to a client that has left."""
    seen = set()
    todo = [problem]
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        # Those of frameworks have no cause of ours if they come of `http.disconnect`.
        if isinstance(each, ConnectionError) or type(each).__name__ in _DISCONNECTS:
            return True
        if isinstance(each, BaseExceptionGroup):
            todo += each.exceptions
        todo += [cause for cause in (each.__cause__, each.__context__) if cause is not None]
    return False
