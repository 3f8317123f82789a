"""One call of an ASGI application: the messages that it takes and gives, and its end.

Nothing here waits: prefork.worker.service.asgi_messages does, in coroutines.  The contract of both,
beside the specification (HTTP 2.5):

- `send` returns at once while no more than 64 KiB wait for the client, and waits otherwise.
  Nothing is written to disk, and the event loop is never blocked for a client.
- The body is read as it is asked for: 64 KiB ahead, no more.
- If the client leaves, `receive` returns `http.disconnect` and `send` raises OSError.  The task is
  not cancelled for that, and CancelledError passes through both.
- The response is complete with its last message, not with the end of the task: the connection goes
  on at once, and what the task still does is background work.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from select import EPOLLIN, EPOLLOUT
from time import monotonic
from typing import Final, Protocol

from prefork.apps.asgi_compress import MessageCompressor
from prefork.apps.asgi_response import (
    AsgiResponse,
    Message,
    MisusedProtocol,
    as_bytes,
    field,
)
from prefork.apps.asgi_response_state import OVER, UNANSWERED, ResponseState
from prefork.compiled import native
from prefork.http.asgi_scope import Scope
from prefork.http.composed_head import ResponseHead
from prefork.http.head_rules import Reject
from prefork.http.request import Request
from prefork.http.response_head import body_size, error
from prefork.http.streamed_body import StreamedBody
from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.protocol.connection_state import ConnectionState
from prefork.worker.transport.output_buffer import AHEAD

AsgiReceive = Callable[[], Awaitable[Message]]
AsgiSend = Callable[[Message], Awaitable[None]]
AsgiApplication = Callable[[Scope, AsgiReceive, AsgiSend], Awaitable[object]]

UNSENT: Final = 64 * 1024
"""Bytes that may wait for the client before `send` waits."""

TURN: Final = 128 * 1024
"""Bytes of a response after which others get their turn, if the application awaits nothing else."""

UNREAD: Final = 64 * 1024
"""Bytes of a body that are read before the application asks for them."""

_LEAVE: Final = 1.0
"""Seconds in which a call that is over its time can end by itself, if it awaits the end of its
client: the server gives its workers `prefork.master.observe.timeouts._CANCELLATION`."""

_NOT_STARTED: Final = ResponseState.NOT_STARTED
_STARTED: Final = ResponseState.STARTED
_BODY: Final = ResponseState.BODY
_COMPLETE: Final = ResponseState.COMPLETE
_ENDED: Final = ResponseState.ENDED
_GIVEN_UP: Final = ResponseState.GIVEN_UP

_CALL: Final = ConnectionState.CALL
_RECEIVE: Final = ConnectionState.RECEIVE
_SEND: Final = ConnectionState.SEND


@native(native_class=False)
class ClientDisconnectedError(ConnectionError):
    """The client has left before the response was complete."""


class Sent(Enum):
    """What has become of a message that was to be sent without a wait."""

    __hash__ = object.__hash__

    DONE = "done"
    PARTLY = "partly"
    """The rest, or the turn of others, is to be awaited; or the client has left."""
    NOT = "not"
    """Nothing was done: it is up to those that may wait."""


class TaskFate(Enum):
    """What the server has done to the task of an application, beside the response."""

    __hash__ = object.__hash__

    RUNS = "runs"
    """Nothing: it ends by itself, or has ended."""
    CANCELLED = "cancelled"
    """It was cancelled, since the worker stops."""
    EXPIRED = "expired"
    """It took too long, and its request was answered, or cut, without it; that stays so."""


_RUNS: Final = TaskFate.RUNS
_CANCELLED: Final = TaskFate.CANCELLED
_EXPIRED: Final = TaskFate.EXPIRED

_DONE: Final = Sent.DONE
_PARTLY: Final = Sent.PARTLY
_NOT: Final = Sent.NOT


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
        *("_body", "_given", "_leaving", "_stream", "_waiting", "arrived", "at_work_since"),
        *("began", "compressor", "connection", "drained", "fate", "listened", "others_turn"),
        *("owner", "rest", "slot", "status", "task", "waited", "waits_since"),
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
        self.owner = owner
        self.connection = connection
        self.began = now
        """Monotonic seconds."""
        self.slot = 0
        """Its record on the scoreboard."""
        self.task: asyncio.Task[None] | None = None
        self.fate = _RUNS
        self.at_work_since = now
        """Monotonic seconds since which the application is at work on the next piece of its
        response; infinity while it waits for its client."""
        self.waited = 0.0
        """Seconds that it has waited for its client before."""
        self.waits_since = 0.0
        """Monotonic seconds since which it waits for its client, if it does."""
        self.status = 500
        """Of the response, once it has begun; else that of the error in its place."""
        self.compressor = compressor
        body = request.body
        self._body = body if type(body) is StreamedBody else None
        self._given = False  # the last byte of the body was received
        self._leaving = False  # a stream is to end: the worker stops
        self._stream = False  # of events: silence is no fault of the application
        self.rest: list[memoryview] = []
        """What is left of the message that was sent last: the client has not taken it, and there
        is no room for it."""
        self.others_turn = False
        """That message has ended a share of a long response, and others are to have their turn: a
        client that takes all of it at once is not the only one."""
        self.listened = False
        """The application knows of the end of the client, or awaits it."""
        self.arrived: list[asyncio.Future[None]] = []
        """Of those that wait for more of the body, or for the end of the client."""
        self.drained: list[asyncio.Future[None]] = []
        """Of those that wait until the client has taken something."""
        self._waiting = 0  # tasks that wait for the client; one that is woken has to run first

    @property
    def over(self) -> bool:
        """Nothing more is sent: the response is complete, or was given up."""
        return self.response_state in OVER

    # prefork.worker.protocol.connection_exchange.Exchange

    @property
    def state(self) -> ConnectionState:
        connection = self.connection
        if connection.unsent is not None:
            return _SEND
        return _RECEIVE if self.arrived and connection.reader.in_body else _CALL

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
                wake_all(self.drained)
        if connection.left or connection.broken:
            wake_all(self.arrived)
            return False
        body = self._body
        if body is None or connection.reader.body is not body or body.unread < UNREAD:
            connection.read_ahead()
        if body is not None and self.arrived and (body.unread or body.whole or body.problem):
            self._look_at_body(body)
        return False

    def client_left(self) -> None:
        wake_all(self.arrived)
        if self.connection.broken:
            wake_all(self.drained)

    def overdue(self, now: float) -> None:
        body = self._body
        if self.connection.broken:
            wake_all(self.drained)
        elif body is not None and self.arrived:
            body.fail(Reject(408, "the request did not come in time"))
            self.connection.fail_body()
            self._look_at_body(body)

    def stop(self, by: float, *, reload: bool) -> None:
        """Tells an application whose response has begun, and that awaits the end of its client,
        that the client has left: a stream of events ends, and its client connects anew."""
        self._leaving = True
        wake_all(self.arrived)

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
        listens = self.listened and bool(self.arrived)
        if self.response_state not in OVER:
            self.fate = _EXPIRED
            if self.response_state in UNANSWERED and not connection.broken:
                self._answer(504, "the application took too long")
            else:
                connection.break_off()
            self.give_up(504)
        if self.task is not None:
            if listens:
                self.owner.loop.call_later(_LEAVE, self.task.cancel)
            else:
                self.task.cancel()

    def cancel(self) -> None:
        """The worker has no more time for it."""
        if self.fate is _RUNS:
            self.fate = _CANCELLED
        if self.response_state not in OVER:
            self.owner.resume(self)
        if self.task is not None:
            self.task.cancel()

    def _look_at_body(self, body: StreamedBody) -> None:
        problem = body.problem
        if problem is not None and self.response_state in UNANSWERED:
            # The server answers, whatever the application makes of it.
            self._answer(problem.status, problem.reason)
            self.owner.refused(problem)
            self.give_up(problem.status)
        wake_all(self.arrived)

    def _answer(self, status: int, reason: str) -> None:
        """The server answers for the application."""
        request = self.request
        answer = error(status, reason, method=request.method)
        self.sent = body_size(answer)
        self.connection.send(request.marked(answer))

    def give_up(self, status: int) -> None:
        """The request was answered, or cut, by the server: the application sends nothing more."""
        self.status = status
        self._end(_GIVEN_UP, last=True)

    # The application's side: see prefork.worker.service.asgi_messages.

    def take(self) -> Message | None:
        """The next message to `receive`; None if the application has to wait for it."""
        body, connection = self._body, self.connection
        if not self._given and self.response_state not in OVER:
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
                    self.owner.settle(connection)
                return {"type": "http.request", "body": data, "more_body": True}
            if not (connection.left or connection.broken):
                if body.problem is None:
                    connection.continue_body()
                    return None
                self._look_at_body(body)
        self.listened = True
        state = self.response_state
        over = state in OVER or (self._leaving and state not in UNANSWERED)
        if over or connection.left or connection.broken:
            return {"type": "http.disconnect"}
        return None

    def accept(self, message: Message) -> Sent:
        """Sends a message in the most frequent cases.  Raises as `send` does."""
        if self.drained or self.connection.broken:
            return _NOT
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            return _NOT
        state = self.response_state
        if state is _NOT_STARTED and kind == "http.response.start":
            self.start(message)
            return _DONE
        if kind != "http.response.body" or (state is not _STARTED and state is not _BODY):
            return _NOT
        data = message.get("body", b"")
        if type(data) is not bytes:
            data = as_bytes(message)
        more = message.get("more_body")
        if more and more is not True:
            more = field(message, "more_body", bool, int)
        if self.compressor is not None or self.connection.unsent is not None or len(data) > UNSENT:
            return _NOT
        if more:
            return self._send_piece(data)
        return self._send_whole(data) if state is _STARTED else _NOT

    def _send_whole(self, data: bytes) -> Sent:
        """Sends a response whose body is complete with its first message."""
        connection, size = self.connection, len(data)
        now = monotonic()
        head = self.whole_head(size, now, closing=connection.closing)
        if head is None:
            return _NOT
        self.head, self.sent, self.status = head, size, head.code
        self.response_state = _COMPLETE
        piece = head.data + data
        taken = connection.offer(piece, UNSENT)
        if taken != len(piece):
            self.rest = [memoryview(piece)[taken:]]
            return _PARTLY
        if connection.broken:
            return _PARTLY
        self._end(_ENDED, last=not head.keep_alive)
        return _DONE

    def _send_piece(self, data: bytes) -> Sent:
        """Sends a piece of a body of which more is to come."""
        size = len(data)
        if not size or self.ends_stream:
            return _NOT
        before, after = self.framing(size, more=True, closing=self.connection.closing)
        self.put(before, data if self.has_body else b"", after)
        if self.rest or self.others_turn or self.connection.broken:
            return _PARTLY
        self.was_put()
        return _DONE

    @property
    def ends_stream(self) -> bool:
        """The worker stops, and the response is a stream of events: it ends behind this one."""
        return self._leaving and self._stream

    def begin(self, known: int, *, closing: bool) -> ResponseHead:
        """As that of any response; notes what the head says, which is about to be sent."""
        head = AsgiResponse.begin(self, known, closing=closing)
        self.status = head.code
        for name, value in self.headers:
            if name.lower() == "content-type" and value.startswith("text/event-stream"):
                self._stream = True
        if self.ends_with_close:
            self.connection.ends_with_close()
        return head

    def put(self, before: bytes, data: bytes = b"", after: bytes = b"") -> None:
        """Sends bytes, or has up to UNSENT of them wait for the client; see `rest`.

        That is the application's own bytes and no copy, since many clients may have the same.
        """
        whole = before + data + after
        if not whole:
            return
        connection = self.connection
        if self.sent > AHEAD:
            connection.limit_ahead()
        self.others_turn = self.sent % TURN < len(data)
        taken = connection.offer(whole, UNSENT)
        if taken != len(whole):
            for part in (before, data, after):
                self.rest.append(memoryview(part)[taken:])
                taken = max(taken - len(part), 0)

    def was_put(self) -> None:
        """What was put is sent, or waits for the client: the application goes on."""
        self._work_goes_on()
        if self.connection.unsent is not None:
            self.owner.settle(self.connection)  # it is to be sent from the epoll

    def pause(self, waiters: "list[asyncio.Future[None]]") -> bool:
        """The application waits for an event; whether that is one of its work: more of the body,
        or room for more.  The end of the client is awaited beside the work."""
        client = waiters is self.drained or not self._given
        if client:
            self._waiting += 1
            self.owner.pause(self)
        return client

    def resume(self) -> None:
        """It does no longer."""
        self._waiting -= 1
        if self.response_state not in OVER:
            self._work_goes_on()

    def _work_goes_on(self) -> None:
        """The application is at work on the next piece; of a stream of events, it waits for one."""
        if self._stream and self.fate is not _CANCELLED:
            self.owner.pause(self)
        else:
            self.owner.resume(self)

    # The end.

    def returned(self) -> None:
        """The application has returned."""
        if self.response_state in OVER:
            return
        unanswered = self.response_state in UNANSWERED
        what = "without a response" if unanswered else "before its response did"
        # To end is one answer to the end of the client.
        told = self._gave_up and (self.listened or self.connection.broken)
        kind = ClientDisconnectedError if told else MisusedProtocol
        self.fail(kind(f"the application ended {what}"))

    def finish(self) -> None:
        """The response is complete, and the client has it, or is to get it without the call."""
        self._end(_ENDED, last=self.head is None or not self.head.keep_alive)

    def _end(self, state: ResponseState, *, last: bool) -> None:
        """Nothing more is sent by the application; the connection goes on."""
        self.response_state = state
        self.owner.answered(self)
        connection = self.connection
        connection.end_exchange(self.request, self.sent, last=last)
        if self.arrived:
            wake_all(self.arrived)
        if self.drained:
            wake_all(self.drained)
        if not connection.proceeding:
            self.owner.settle(connection)

    def fail(self, problem: BaseException) -> None:
        """The application has raised an exception, in whatever state its response is."""
        connection, request = self.connection, self.request
        ours = self.fate is not _RUNS
        gave_up = self._gave_up and came_of_the_client(problem)
        if not gave_up and not (ours and isinstance(problem, asyncio.CancelledError)):
            self.owner.failed(request, problem)
        BaseException.with_traceback(problem, None)  # whatever its class makes of it
        if self.response_state in OVER:
            return
        if self.response_state in UNANSWERED and not connection.broken:
            status, reason = 500, "the application failed"
            if self.fate is _CANCELLED:
                status, reason = 503, "the server stops"
            elif gave_up and connection.left:  # with a half of it open (RFC 9112 section 8)
                status, reason = 400, "the client is gone"
            self.status = status
            self._answer(status, reason)
        else:
            connection.break_off()
        self._end(_GIVEN_UP, last=True)

    @property
    def _gave_up(self) -> bool:
        """The application need not complete its response: the client has left, or is to leave."""
        connection = self.connection
        gone = connection.broken or connection.left
        return gone or self._leaving or self.response_state is _GIVEN_UP


def wake_all(waiters: "list[asyncio.Future[None]]") -> None:
    """Wakes all that wait, and forgets them."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


_DISCONNECTS: Final = frozenset(
    {"ClientDisconnect", "WebSocketDisconnect", "WebSocketDisconnected"}
)
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
