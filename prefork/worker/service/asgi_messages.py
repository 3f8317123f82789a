"""The coroutines of a call: the `receive` and `send` of its application.

They do what waits, and are those of Python in each build.  All else is done by the call
(prefork.worker.service.asgi_call).
"""

import asyncio
import stat
from typing import Any, NoReturn

from prefork.apps.asgi_response import (
    Message,
    MisusedProtocol,
    as_bytes,
    early_hint,
    field,
    kind_of,
    wrong_field,
    wrong_value,
)
from prefork.apps.asgi_response_state import DISCONNECTED, TABLE, UNANSWERED, ResponseState
from prefork.unpatched import os
from prefork.worker.service.asgi_call import (
    UNSENT,
    AsgiCall,
    ClientDisconnectedError,
    Sent,
)
from prefork.worker.service.asgi_task import wait_for_event

_DONE, _PARTLY = Sent.DONE, Sent.PARTLY
_STARTED, _BODY = ResponseState.STARTED, ResponseState.BODY
_COMPLETE, _CUT = ResponseState.COMPLETE, ResponseState.CUT
_ENDED, _GIVEN_UP = ResponseState.ENDED, ResponseState.GIVEN_UP

_PIECE = 64 * 1024

_TURNS_OF_LISTENER = 10
"""Turns of the loop in which a task that awaits the end of the client can act, before `send` fails
in another one.  Django's needs three."""


async def receive(call: AsgiCall) -> Message:
    """The `receive` of ASGI."""
    while (message := call.take()) is None:
        await _wait(call, call.arrived)
    return message


async def send(call: AsgiCall, message: Message) -> None:
    """The `send` of ASGI.  Raises ClientDisconnectedError, and MisusedProtocol, TypeError or
    ValueError for a message that may not be sent."""
    sent = call.accept(message)
    if sent is _DONE:
        return
    if sent is _PARTLY:
        await _complete(call)
    else:
        await _send(call, message)
    if call.response_state is _COMPLETE:
        call.finish()


async def _send(call: AsgiCall, message: Message) -> None:
    """The long way of a message."""
    kind = kind_of(message)
    await _may_send(call, kind)
    if kind == "http.response.start":
        call.start(message)
    elif kind == "http.response.body":
        data = as_bytes(message)
        if field(message, "more_body", bool, int):
            await _send_more(call, data)
        else:
            await _send_body(call, data, more=False)
    elif kind == "http.response.early_hint":
        hint = early_hint(message)  # if it is wrong, it is so for each client
        if call.response_state in UNANSWERED and call.request.http11:
            call.connection.send_interim(hint)
    elif kind == "http.response.trailers":
        await _transmit(call, call.trailers(message))
    elif kind == "http.response.pathsend":
        # A FIFO without a writer would block the loop.
        path = message.get("path")
        if not isinstance(path, (str, bytes, os.PathLike)):
            raise wrong_field(message, "path", "str")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except ValueError as problem:  # a zero byte; what the system says names the path
            raise wrong_value(message, f"path: {problem}") from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise MisusedProtocol(f"{path!r} is not a regular file")
            await _send_file(call, fd, 0, status.st_size, more=False)
        finally:
            os.close(fd)
    else:  # http.response.zerocopysend
        await _zero_copy(call, message)


async def _may_send(call: AsgiCall, kind: str) -> None:
    """Returns when a message may be sent: of several tasks that send, the first one goes on
    first.  Raises as `send` does."""
    while True:
        state = call.response_state
        if call.connection.broken and state is not _ENDED:
            await _raise_disconnected(call)
        if state in DISCONNECTED:
            await _raise_disconnected(call, TABLE[state].other)
        call.must_take(kind)
        if not call.drained:
            return
        await _wait(call, call.drained)


async def _raise_disconnected(call: AsgiCall, reason: str = "the client has left") -> NoReturn:
    """Nothing more can be sent.

    Raises ClientDisconnectedError, and CancelledError if another task of the application awaits
    the end of the client and cancels this one for that.  Django tells its receivers of
    `request_finished`, which close connections of databases, in this order only.
    """
    if call.listened:
        call.client_left()
        for _ in range(_TURNS_OF_LISTENER):
            await asyncio.sleep(0)
    raise ClientDisconnectedError(reason)


async def _send_more(call: AsgiCall, data: bytes) -> None:
    """Sends a piece of a body of which more is to come."""
    if not call.ends_stream:
        await _send_body(call, data, more=True)
        return
    # The worker stops: the stream ends behind this event, and its client connects anew.
    await _send_body(call, data, more=False)
    call.give_up(call.status)
    await _raise_disconnected(call, "the worker stops, and ends streams of events")


async def _send_body(call: AsgiCall, data: bytes, *, more: bool) -> None:
    compressor = call.compressor
    if compressor is not None:
        if call.response_state is _STARTED:
            call.headers = compressor.start(call.status_text, call.headers)
        data = compressor.body(data, more=more)
    if more and not data and call.response_state is _BODY:
        return
    before, after = call.framing(len(data), more=more, closing=call.connection.closing)
    await _transmit(call, before, data if call.has_body else b"", after)


async def _zero_copy(call: AsgiCall, message: Message) -> None:
    """`http.response.zerocopysend`: part of an open file, from its own position if no other is
    given."""
    fd: Any = message.get("file")
    try:
        fd = fd.fileno() if hasattr(fd, "fileno") else fd
    except ValueError as problem:  # it is closed, or only in memory
        raise wrong_value(message, f"file: {problem}") from None
    if not isinstance(fd, int):
        raise wrong_field(message, "file", "a file or its descriptor")
    offset, count = field(message, "offset", int), field(message, "count", int)
    if (offset or 0) < 0 or (count or 0) < 0:
        raise wrong_value(message, "offset and count must not be negative")
    begin = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
    size = max(os.fstat(fd).st_size - begin, 0)
    count = size if count is None else min(count, size)
    if offset is None:
        os.lseek(fd, begin + count, os.SEEK_SET)
    more = bool(field(message, "more_body", bool, int))
    await _send_file(call, fd, begin, count, more=more)


async def _send_file(call: AsgiCall, fd: int, offset: int, count: int, *, more: bool) -> None:
    """Sends part of a file; the descriptor is the caller's."""
    connection = call.connection
    prefix = call.file(count, more=more, closing=connection.closing)
    if prefix is None:
        while count > _PIECE:
            data = os.pread(fd, _PIECE, offset)
            if not data:
                break
            await _transmit(call, call.body(data, more=True, closing=connection.closing))
            offset, count = offset + len(data), count - len(data)
        data = os.pread(fd, count, offset)
        await _transmit(call, call.body(data, more=more, closing=connection.closing))
        return
    if call.has_body and count:
        connection.send_file(prefix, fd, offset, count)
        if connection.unsent is not None and more:
            await _wait(call, call.drained)
    elif prefix:
        connection.send(prefix)


async def _transmit(call: AsgiCall, before: bytes, data: bytes = b"", after: bytes = b"") -> None:
    """Sends bytes; returns when no more than UNSENT of them wait for the client."""
    if before or data or after:
        call.put(before, data, after)
        await _complete(call)


async def _complete(call: AsgiCall) -> None:
    """Sends what is left of a message, when the client takes it; others may have their turn."""
    connection = call.connection
    try:
        for part in call.rest:
            left = part
            while len(left) and call.response_state is not _GIVEN_UP:
                left = left[connection.offer(left, UNSENT) :]
                if len(left):
                    await _wait(call, call.drained)
    except BaseException:
        if call.response_state is not _GIVEN_UP:
            call.response_state = _CUT
        raise
    finally:
        call.rest.clear()
    if call.response_state is _GIVEN_UP or connection.broken:
        await _raise_disconnected(call)
    if call.response_state is not _COMPLETE:
        call.was_put()
        if call.others_turn:
            await asyncio.sleep(0)


async def _wait(call: AsgiCall, waiters: "list[asyncio.Future[None]]") -> None:
    """Waits for an event of the connection."""
    client = call.pause(waiters)
    try:
        await wait_for_event(call, waiters)
    finally:
        if client:
            call.resume()
