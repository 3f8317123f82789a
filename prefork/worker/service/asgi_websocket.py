"""One WebSocket of an ASGI application: its messages, its pings, and its end.

Nothing here waits: prefork.worker.service.websocket_messages does, in coroutines.  The contract of
both, beside the specification (WebSocket 2.5):

- `send` returns at once while no more than 64 KiB wait for the client, and waits otherwise.
- What the client sends waits in a queue with a bound (`websocket.receive_queue`); beyond it nothing
  more is read.
- Pings, their answers and close frames are between client and server: they wake no application.
- Once the WebSocket is at its end, `receive` returns `websocket.disconnect` with the code, and
  `send` raises OSError.  The task is not cancelled for that.
- What a client does wrong ends its WebSocket with a code, and is no failure of the application.
"""

import asyncio
from collections import deque
from math import inf
from random import uniform
from select import EPOLLIN, EPOLLOUT
from socket import MSG_DONTWAIT
from time import monotonic
from typing import Final, Protocol

from prefork import logs
from prefork.apps.asgi_response import (
    AsgiResponse,
    Message,
    MisusedProtocol,
    as_bytes,
    field,
    text_pairs,
    wrong_value,
)
from prefork.apps.asgi_websocket_state import CLOSED, TABLE, WebsocketState
from prefork.config import Websocket
from prefork.http.request import Request
from prefork.http.response_head import body_size, error
from prefork.websocket.close_codes import (
    ABNORMAL,
    GOING_AWAY,
    INTERNAL_ERROR,
    NORMAL,
    SERVICE_RESTART,
    TRY_LATER,
    is_sendable,
)
from prefork.websocket.message_deflate import accept_offer
from prefork.websocket.opening_handshake import OpeningHandshake, accepting_response
from prefork.websocket.websocket_clock import ClockAction, PingRules, WebsocketClock
from prefork.websocket.websocket_session import SessionState, WebSocketSession
from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.protocol.connection_state import ConnectionState
from prefork.worker.service.asgi_call import (
    UNSENT,
    ClientDisconnectedError,
    Sent,
    TaskFate,
    came_of_the_client,
)
from prefork.worker.service.websocket_sender import WebsocketSender

_READ: Final = 65 * 1024
"""Bytes read at one time, so that a message of 64 KiB may come whole, with its head."""

_READ_MOST: Final = 256 * 1024
"""The same while more than that is missing of a frame."""

_OVERHEAD: Final = 128
"""Bytes that a message in the queue counts for beside its own."""

_COUNTED: Final = 16 * 1024
"""Bytes up to which what a WebSocket holds is not counted in the worker's budget: each change
would cost a lock."""

_LATE: Final = 0.3
"""Seconds by which a deadline may be seen too late, since they are looked at by the tick."""

_LAST_READS: Final = 8
"""Reads of a lost connection, which may yet hold a close frame."""

_violations = logs.RateLimit(5.0)

_DONTWAIT: Final = int(MSG_DONTWAIT)
_RUNS: Final = TaskFate.RUNS
_CLOSED: Final = SessionState.CLOSED
_DONE: Final = Sent.DONE
_PARTLY: Final = Sent.PARTLY
_NOT: Final = Sent.NOT


_CONNECTING: Final = WebsocketState.CONNECTING
_DENYING: Final = WebsocketState.DENYING
_OPEN: Final = WebsocketState.OPEN
_CLOSING: Final = WebsocketState.CLOSING
_ENDING: Final = WebsocketState.ENDING
_OVER: Final = WebsocketState.OVER


class WebsocketOwner(Protocol):
    """What a WebSocket needs of its worker."""

    loop: asyncio.AbstractEventLoop

    def settle(self, connection: AsgiConnection) -> None:
        """The connection may have another state now."""

    def upgraded(self, websocket: "AsgiWebsocket") -> None:
        """It was accepted: its request is answered, with 101."""

    def closed(self, websocket: "AsgiWebsocket") -> None:
        """It is over, whether it was accepted or not."""

    def ended(self, call: "AsgiWebsocket") -> None:
        """The task has ended."""

    def failed(self, request: Request, problem: BaseException) -> None:
        """The application has raised an exception."""


class AsgiWebsocket:
    """One WebSocket (prefork.worker.protocol.connection_exchange.Exchange)."""

    __slots__ = (
        *("_clock", "_connected", "_counted", "_disconnect", "_handshake", "_paused"),
        *("_queue", "_queued", "_response", "_rules", "_session", "arrived"),
        *("at_work_since", "began", "connection", "fate", "owner", "request", "sender", "slot"),
        *("status", "task", "websocket_state"),
    )

    def __init__(
        self,
        owner: WebsocketOwner,
        connection: AsgiConnection,
        request: Request,
        handshake: OpeningHandshake,
        rules: Websocket,
        now: float,
    ) -> None:
        self.owner = owner
        self.connection = connection
        self.request = request
        self._handshake = handshake
        self._rules = rules
        self.began = now
        """Monotonic seconds."""
        self.slot = -1
        """Its record on the scoreboard, until it is accepted."""
        self.task: asyncio.Task[None] | None = None
        self.at_work_since = now
        """Since when the application has had it without an answer; infinity once it has one."""
        self.fate = _RUNS
        self.status = 500
        """Of the response; else that of the error in its place."""
        self.websocket_state = _CONNECTING
        self._session: WebSocketSession | None = None
        self._response: AsgiResponse | None = None
        self._connected = False  # the application has received `websocket.connect`
        self._disconnect: Message | None = None
        # What has come: messages, and how much they count for.
        self._queue: deque[str | bytes] = deque()
        self._queued = 0
        self._counted = 0  # in the worker's budget
        self.sender = WebsocketSender(connection)
        self._paused = False  # nothing is read
        self._clock: WebsocketClock | None = None
        """Once it is accepted."""
        self.arrived: list[asyncio.Future[Message]] = []
        """Of those that wait for a message."""

    @property
    def sent(self) -> int:
        """Bytes of messages, or of a response's body, given to the client."""
        return self.sender.sent

    @property
    def accepted(self) -> bool:
        """It was open, at some time."""
        return self._session is not None

    @property
    def over(self) -> bool:
        """Nothing more is sent."""
        return self.websocket_state is _OVER

    # prefork.worker.protocol.connection_exchange.Exchange

    @property
    def state(self) -> ConnectionState:
        if self._session is not None:
            return ConnectionState.UPGRADED
        return ConnectionState.CALL if self.connection.unsent is None else ConnectionState.SEND

    @property
    def events(self) -> int:
        events = EPOLLOUT if self.connection.unsent is not None else 0
        return events if self._session is None or self._paused else events | EPOLLIN

    @property
    def _may_read(self) -> bool:
        """There is room for what comes, and for the answers to it."""
        unsent = self.connection.unsent
        full = self._queued >= self._rules.receive_queue
        if self.websocket_state is _ENDING or (full and self.websocket_state is not _CLOSING):
            return False
        return unsent is None or unsent.memory <= UNSENT // 2

    def deadline(self, now: float) -> float:
        clock, unsent = self._clock, self.connection.unsent
        due = 0.0 if clock is None else clock.due
        if unsent is None:
            return due
        late = unsent.due()
        return min(due or late, late or due)

    def ready(self, now: float) -> bool:
        connection = self.connection
        if self.arrived and connection.unsent is None and self._session and not self._paused:
            return self._read(now)  # for the application, which waits: nothing stands against it
        if connection.unsent is not None:
            connection.flush()
            self.sender.flush()
            if connection.unsent is None or connection.broken:
                self.sender.wake()
        if self.websocket_state is _ENDING and not self.sender.busy:
            self._finish()
        elif self._session is None:
            connection.read_ahead()
        elif connection.broken:
            self._lost()
        elif self._may_read:
            self._paused = False
            self._read(now)
        else:
            # Not before something comes: most often the application has received by then, and
            # nothing has to change in the epoll.
            self._paused = True
        return False

    def client_left(self) -> None:
        if self._session is None:
            self._lost()
        elif self.connection.broken:
            # A client that closes at once after its close frame may have reset the connection.
            for _ in range(_LAST_READS):
                if self.websocket_state is _OVER or not self._may_read:
                    break
                self._read(monotonic())
            self._lost()

    def overdue(self, now: float) -> None:
        clock, session = self._clock, self._session
        if self.connection.broken:  # its client takes too little
            self._lost()
        if clock is None or session is None or self.websocket_state is _OVER:
            return
        action = clock.look(now, deaf=not self._may_read)
        if action is ClockAction.PING:
            self.sender.control(session.ping(b""))
        elif action is ClockAction.CLOSE:
            self._close(clock.code, "")
        elif action is ClockAction.GIVE_UP:
            if self.websocket_state is _OPEN:
                self._close(clock.code, "no answer to a ping")
            self._finish()
        if self.connection.broken:
            self._lost()

    def stop(self, by: float, *, reload: bool) -> None:
        """Closes it now; its client has until `by` to answer."""
        clock = self._clock
        if clock is None:
            return
        now = monotonic()
        patience = max(by - now - _LATE, 0.0)
        clock.stop(now, SERVICE_RESTART if reload else GOING_AWAY, patience)
        if self.websocket_state is _OPEN:
            self._close(clock.code, "")
        else:
            self.owner.settle(self.connection)

    # The worker's side.

    def waits_for_client(self, now: float, limit: float) -> bool:
        """False: at the end of the worker it was told to end."""
        return False

    def expire(self) -> None:
        """The application takes too long to accept it: answers 504, and cancels the task."""
        if self.websocket_state is _CONNECTING or self.websocket_state is _DENYING:
            self.fate = TaskFate.EXPIRED
            connection = self.connection
            if self.websocket_state is _CONNECTING and not connection.broken:
                self._answer(504, "the application took too long")
            else:
                connection.break_off()
            self.status = 504
            self._finish()
        if self.task is not None:
            self.task.cancel()

    def cancel(self) -> None:
        """The worker has no more time for it."""
        if self.fate is _RUNS:
            self.fate = TaskFate.CANCELLED
        if self.task is not None:
            self.task.cancel()

    # What comes.

    def _read(self, now: float) -> bool:
        """Reads once; returns whether the connection waits for the same as before: it does after
        one whole message for the application."""
        connection, session, clock = self.connection, self._session, self._clock
        assert session is not None
        assert clock is not None
        reader, tls = session.reader, connection.tls
        missing = reader.missing
        try:
            size = _READ if missing <= _READ else min(missing, _READ_MOST)
            data = connection.sock.recv(size, _DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._lost()
            return False
        changed = clock.heard(now)
        ended = tls is not None and tls.ended  # which the epoll will not report
        message = session.next(data)
        if message is not None:
            self._deliver(message)
        if reader.whole and not (self._queue or self._counted or session.replies):
            if not (changed or ended):
                return True
        else:
            self._take_messages(session)
        if ended and self.websocket_state is not _OVER:
            self._lost()
        return False

    def _deliver(self, message: str | bytes) -> None:
        """Gives a message to the first `receive` that waits, or puts it into the queue."""
        arrived = self.arrived
        while arrived:
            waiter = arrived.pop(0)
            if not waiter.done():
                waiter.set_result(_received(message))
                return
        self._queue.append(message)
        self._queued += len(message) + _OVERHEAD

    def _take_back(self, message: Message) -> None:
        """A message was given to a `receive` that was cancelled before it could return."""
        content: str | bytes = message["text"] if "text" in message else message["bytes"]
        if self.arrived:
            self._deliver(content)
        else:
            self._queue.appendleft(content)
            self._queued += len(content) + _OVERHEAD

    def _wake_receivers(self) -> None:
        """The WebSocket is at its end: each `receive` that waits returns that."""
        if self._disconnect is not None:
            for waiter in self.arrived:
                if not waiter.done():
                    waiter.set_result(self._disconnect)
            self.arrived.clear()

    def _take_messages(self, session: WebSocketSession) -> None:
        """Takes what has come, as far as the queue has room."""
        reader, most = session.reader, self._rules.receive_queue
        while self._queued < most and not reader.whole:
            message = session.next()
            if message is None:
                break
            self._deliver(message)
        if self.websocket_state is not _OVER:
            if session.replies:
                self.sender.control(session.take_replies())
            if session.state is _CLOSED:
                self._closed_by_client(session)
            elif not reader.whole or self._counted or self._queued >= _COUNTED:
                self._count_held(session)
            if self.connection.broken:
                self._lost()  # the answer could not be sent, and the epoll may not say why
        self._wake_receivers()

    def _closed_by_client(self, session: WebSocketSession) -> None:
        close, violation = session.close, session.violation
        assert close is not None
        if self._disconnect is None:
            self._disconnect = _disconnect(close.code, close.reason)
        if violation is not None:
            self.connection.reader.surplus = True  # what it still sends is thrown away
            if _violations.due():
                logs.event(
                    "info",
                    "websocket failed",
                    peer=self.connection.reader.peer[0],
                    code=violation.code,
                    reason=violation.reason,
                )
        if self.sender.halfway:
            # The client gets the message that is sent by half, and the close frame behind it.
            self.websocket_state = _ENDING
            assert self._clock is not None
            self._clock.closing(monotonic())
            self.owner.settle(self.connection)
        else:
            self._finish()

    def _count_held(self, session: WebSocketSession) -> None:
        """Counts what is kept in the worker's budget; if there is no room, the WebSocket ends."""
        held = self._queued + session.held
        more = held - self._counted
        if -_COUNTED < more < _COUNTED and (held or not self._counted):
            return
        budget = self.connection.budget
        if more < 0:
            budget.give_back(-more)
        elif not budget.take(more):
            self._close(TRY_LATER, "the server has no memory for the message")
            return
        self._counted = held

    def _lost(self) -> None:
        """The connection has ended without a close frame."""
        if self.websocket_state is _OVER:
            return
        if self._disconnect is None:
            self._disconnect = _disconnect(ABNORMAL, "")
        self._finish()

    # The application's side.

    def take(self) -> Message | None:
        """The next message to `receive`; None if the application has to wait for it."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        queue, session = self._queue, self._session
        if session is not None and not queue and not session.reader.whole:
            self._take_messages(session)
        if queue:
            message = queue.popleft()
            self._queued -= len(message) + _OVERHEAD
            if self._paused and self._may_read:
                self._paused = False
                self.owner.settle(self.connection)
            return _received(message)
        return self._disconnect

    def not_received(self, waiter: "asyncio.Future[Message]") -> None:
        """A `receive` that waits was cancelled."""
        if waiter in self.arrived:
            self.arrived.remove(waiter)
        elif not waiter.cancelled() and waiter.result() is not self._disconnect:
            self._take_back(waiter.result())

    def accept(self, message: Message) -> Sent:
        """Sends a message if the WebSocket is open and nothing stands against it.  Raises as `send`
        does."""
        sender = self.sender
        if self.websocket_state is not _OPEN or sender.halfway or sender.waiting:
            return _NOT
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            return _NOT
        return self.put(message) if kind == "websocket.send" else _NOT

    def put(self, message: Message) -> Sent:
        """Sends a message, whose turn it has to be: the WebSocket is open."""
        connection, sender = self.connection, self.sender
        text = message.get("text")
        session = self._session
        assert session is not None
        if text is not None:
            if type(text) is not str:
                text = field(message, "text", str)
            try:
                frame = session.text(text)
            except UnicodeEncodeError as problem:
                raise wrong_value(message, f"text: {problem}") from None
            sender.message(frame)
        else:
            binary = message.get("bytes")
            if binary is None:
                raise MisusedProtocol("websocket.send has neither text nor bytes")
            if type(binary) is not bytes:
                binary = as_bytes(message, "bytes")
            sender.message(session.binary(binary), b"" if session.compresses else binary)
        if connection.broken or sender.rest:
            return _PARTLY
        if connection.unsent is not None:
            self.owner.settle(connection)  # it is to be sent from the epoll
        elif sender.others_turn:
            return _PARTLY
        return _DONE

    def must_take(self, kind: object) -> None:
        """Raises MisusedProtocol if a message of this type may not be sent now, or
        ClientDisconnectedError if it is for the end of the WebSocket that it may not."""
        state = self.websocket_state
        if kind not in TABLE[state].takes:
            if state in CLOSED:
                raise ClientDisconnectedError("the WebSocket is closed")
            raise MisusedProtocol(f"{kind} was sent to a WebSocket that is {state.value}")

    def message_over(self, *, failed: bool = False) -> None:
        """No `send` waits for the client any more with a message that is sent by half."""
        if failed:
            if self.connection.broken:
                self._lost()
        elif self.websocket_state is _ENDING and not self.sender.busy:
            self._finish()

    def close(self, message: Message) -> bool:
        """`websocket.close`; False if a message is sent by half: then it has to wait."""
        if self.websocket_state is _CONNECTING:
            self.status = 403
            self._answer(403, "the application refuses the WebSocket")
            self._disconnect = _disconnect(ABNORMAL, "")
            self._finish()
        if self.websocket_state in CLOSED:
            return True
        code, reason = field(message, "code", int), field(message, "reason", str) or ""
        code = NORMAL if code is None else code
        if not is_sendable(code):
            raise wrong_value(message, f"code must be 1000 to 1014 or 3000 to 4999, not {code}")
        if self.sender.halfway:
            return False
        self._close(code, reason)
        return True

    def deny(self, message: Message) -> None:
        """`websocket.http.response.start`."""
        response = AsgiResponse(self.request)
        response.start(message)
        self._response, self.websocket_state = response, _DENYING

    def denial(self, message: Message) -> bytes:
        """The bytes of a piece of the response that denies the WebSocket."""
        response = self._response
        assert response is not None
        more = bool(field(message, "more_body", bool, int))
        data = response.body(as_bytes(message), more=more, closing=True)
        if response.head is not None:
            self.status = response.head.code
        return data

    def denial_sent(self) -> None:
        """The client has them, or there is room for what it has not taken."""
        response, connection = self._response, self.connection
        assert response is not None
        self.sender.sent = response.sent
        if response.complete:
            self._disconnect = _disconnect(ABNORMAL, "")
            self._finish()
        elif connection.unsent is not None:
            self.owner.settle(connection)

    def open(self, message: Message) -> None:
        """`websocket.accept`."""
        connection, rules = self.connection, self._rules
        offers = self._handshake.extensions
        deflate = accept_offer(offers) if offers and rules.compression else None
        subprotocol, headers = field(message, "subprotocol", str), text_pairs(message)
        extensions = () if deflate is None else (deflate.response,)
        try:
            response = accepting_response(self._handshake, subprotocol, headers, extensions)
        except ValueError as problem:
            raise wrong_value(message, problem) from None
        now = monotonic()
        self._session = session = WebSocketSession(rules.max_message, deflate)
        self.at_work_since = inf
        self.status = 101
        self.websocket_state = _OPEN
        age = rules.max_age * uniform(0.9, 1.0)
        pings = PingRules(rules.ping_interval, rules.ping_timeout)
        self._clock = WebsocketClock(pings, age, now)
        early = connection.upgrade()
        self.owner.upgraded(self)
        self.sender.control(self.request.marked(response))
        if early:
            first = session.next(early)
            if first is not None:
                self._deliver(first)
            self._take_messages(session)
        if connection.broken:
            self._lost()
        else:
            self.owner.settle(connection)

    # The end.

    def _close(self, code: int, reason: str) -> None:
        """The server closes, for itself or for the application."""
        if self.websocket_state is not _OPEN:
            return
        session = self._session
        assert session is not None
        assert self._clock is not None
        self.websocket_state = _CLOSING
        if self._disconnect is None:
            self._disconnect = _disconnect(code, reason)
        self.sender.control(session.begin_close(code, reason))
        if self.connection.broken:
            self._lost()
            return
        self._clock.closing(monotonic())
        self._paused = False
        self._wake_receivers()
        self.sender.wake()
        self.owner.settle(self.connection)

    def _answer(self, status: int, reason: str) -> None:
        """The server answers the handshake for the application."""
        request = self.request
        answer = error(status, reason, method=request.method)
        self.sender.sent = body_size(answer)
        self.connection.send(request.marked(answer))

    def _finish(self) -> None:
        """Nothing more is sent, and the connection ends."""
        if self.websocket_state is _OVER:
            return
        self.websocket_state = _OVER
        connection = self.connection
        self.sender.over = True
        if self.sender.busy:
            connection.broken = True  # the client has half a frame
        connection.budget.give_back(self._counted)
        self._counted = 0
        self.owner.closed(self)
        connection.end_exchange(self.request, self.sent, last=True)
        self._wake_receivers()
        self.sender.wake()
        self.owner.settle(connection)

    def returned(self) -> None:
        """The application has returned."""
        if self.websocket_state is _CONNECTING or self.websocket_state is _DENYING:
            what = (
                "without an answer"
                if self.websocket_state is _CONNECTING
                else "within its response"
            )
            self.fail(MisusedProtocol(f"the application ended {what} to a WebSocket"))
        elif self.websocket_state is _OPEN:
            self._close(NORMAL, "")

    def fail(self, problem: BaseException) -> None:
        """The application has raised an exception, in whatever state the WebSocket is."""
        connection, request = self.connection, self.request
        left = self._disconnect is not None or connection.broken
        if not (left and came_of_the_client(problem)) and not (
            (left or self.fate is not _RUNS) and isinstance(problem, asyncio.CancelledError)
        ):
            self.owner.failed(request, problem)
        BaseException.with_traceback(problem, None)  # whatever its class makes of it
        if self.websocket_state is _CONNECTING or (
            self.websocket_state is _DENYING and not self.sent
        ):
            if not connection.broken:
                self._answer(500, "the application failed")
            self._finish()
        elif self.websocket_state is _DENYING:
            connection.break_off()
            self._finish()
        elif self.websocket_state is _OPEN:
            self._close(INTERNAL_ERROR, "")


def _received(message: str | bytes) -> Message:
    if type(message) is str:
        return {"type": "websocket.receive", "text": message}
    return {"type": "websocket.receive", "bytes": message}


def _disconnect(code: int, reason: str) -> Message:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}
