"""What one WebSocket of an ASGI application sends: whole messages, and control frames between them.

A frame that the client has taken by half has the connection until its end: messages of other tasks
wait for their turn, and control frames of the server's own (pongs, pings, a close) follow it.
"""

import asyncio
from collections.abc import Awaitable
from typing import Protocol

from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.service.asgi_call import TURN, UNSENT, ClientDisconnectedError, wake_all
from prefork.worker.transport.output_buffer import AHEAD


class SenderOwner(Protocol):
    """What a sender needs of its worker."""

    loop: asyncio.AbstractEventLoop

    def settle(self, connection: AsgiConnection) -> None:
        """The connection may have another state now."""


class WebsocketSender:
    """The sending side of one WebSocket."""

    __slots__ = ("_connection", "_drained", "_owner", "halfway", "over", "sent", "waiting")

    def __init__(self, owner: SenderOwner, connection: AsgiConnection) -> None:
        self._owner = owner
        self._connection = connection
        self.waiting = b""
        """Control frames that wait for the end of a message, or for room."""
        self._drained: list[asyncio.Future[None]] = []
        self.halfway = False
        """A message is sent by half."""
        self.over = False
        """The connection ends: what is left of a message is not sent."""
        self.sent = 0
        """Bytes of messages, or of a response's body, given to the client."""

    @property
    def busy(self) -> bool:
        """No message may begin: one is sent by half, or control frames wait."""
        return self.halfway or bool(self.waiting)

    def message(self, data: bytes, payload: bytes = b"") -> Awaitable[None] | None:
        """Sends the frame of a message, which must not be `busy`; None if the kernel has all of it
        and nobody else waits for a turn.

        `payload`: bytes of the application's with which the frame ends, if there are such.  What
        waits for the client is those then, and no copy: many clients may have the same message.

        Else what is returned is to be awaited at once, until no more than UNSENT bytes wait for the
        client: it raises ClientDisconnectedError if the connection has ended before.
        """
        self.sent = sent = self.sent + len(data)
        connection = self._connection
        if sent > AHEAD and not connection.ahead_limited:
            connection.limit_ahead()
        taken = connection.offer(data, UNSENT)
        if connection.unsent is None and not connection.broken:
            # A client that takes all of it at once is not the only one.
            return asyncio.sleep(0) if sent % TURN < len(data) else None
        if taken == len(data):
            return self._rest()
        head = len(data) - len(payload)
        behind = memoryview(payload)[max(taken - head, 0) :]
        return self._rest(memoryview(data[:head])[taken:], behind)

    async def _rest(self, *parts: memoryview) -> None:
        """Sends what is left of a frame, when the client takes more; nothing gets in between."""
        connection = self._connection
        if parts:
            await self._send_in_parts(parts)
        if connection.broken:
            raise ClientDisconnectedError("the client has left")
        if connection.unsent is not None:
            self._owner.settle(connection)  # it is to be sent from the epoll

    async def _send_in_parts(self, parts: tuple[memoryview, ...]) -> None:
        connection = self._connection
        self.halfway = True
        try:
            for rest in parts:
                while len(rest) and not self.over:
                    rest = rest[connection.offer(rest, UNSENT) :]
                    if len(rest):
                        await self.wait()
        except BaseException:
            # Cancelled: the client has half a frame, and nothing that follows would make sense.
            connection.broken = True
            raise
        finally:
            self.halfway = False
        self.flush()
        self.wake()

    async def response(self, data: bytes) -> None:
        """Sends a piece of a response of HTTP, as `message`."""
        connection, rest = self._connection, memoryview(data)
        while len(rest):
            rest = rest[connection.offer(rest, UNSENT) :]
            if len(rest):
                await self.wait()
            if connection.broken:
                raise ClientDisconnectedError("the client has left")

    def control(self, data: bytes) -> None:
        """Sends control frames, behind the message that is sent by half."""
        if data:
            self.waiting += data
            self.flush()

    def flush(self) -> None:
        """Sends the control frames that wait, as far as there is room."""
        if self.waiting and not self.halfway:
            # What does not fit waits for the next time: meanwhile, nothing more is read.
            self.waiting = self.waiting[self._connection.offer(self.waiting, 2 * UNSENT) :]

    async def wait(self) -> None:
        """Waits until the client has taken what waits for it, or the WebSocket is at its end."""
        waiter = self._owner.loop.create_future()
        self._drained.append(waiter)
        try:
            self._owner.settle(self._connection)
            await waiter
        finally:
            if waiter in self._drained:
                self._drained.remove(waiter)

    def wake(self) -> None:
        """Wakes all tasks that `wait`."""
        wake_all(self._drained)
