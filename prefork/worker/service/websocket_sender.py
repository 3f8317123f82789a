"""What one WebSocket of an ASGI application sends: whole messages, and control frames between them.

A frame that the client has taken by half has the connection until its end: messages of other tasks
wait for their turn, and control frames of the server's own (pongs, pings, a close) follow it.

Nothing here waits: prefork.worker.service.websocket_messages does, in coroutines.
"""

import asyncio

from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.service.asgi_call import TURN, UNSENT, wake_all
from prefork.worker.transport.output_buffer import AHEAD


class WebsocketSender:
    """The sending side of one WebSocket."""

    __slots__ = (
        *("_connection", "drained", "halfway", "others_turn", "over", "rest", "sent", "waiting"),
    )

    def __init__(self, connection: AsgiConnection) -> None:
        self._connection = connection
        self.waiting = b""
        """Control frames that wait for the end of a message, or for room."""
        self.drained: list[asyncio.Future[None]] = []
        """Of those that wait until the client has taken something, or for their turn."""
        self.halfway = False
        """A message is sent by half."""
        self.rest: list[memoryview] = []
        """What is left of it: the client has not taken it, and there is no room for it."""
        self.others_turn = False
        """The last message has ended a share of what is sent, and others are to have their turn: a
        client that takes all of it at once is not the only one."""
        self.over = False
        """The connection ends: what is left of a message is not sent."""
        self.sent = 0
        """Bytes of messages, or of a response's body, given to the client."""

    @property
    def busy(self) -> bool:
        """No message may begin: one is sent by half, or control frames wait."""
        return self.halfway or bool(self.waiting)

    def message(self, data: bytes, payload: bytes = b"") -> None:
        """Sends the frame of a message, which must not be `busy`; see `rest`.

        `payload`: bytes of the application's with which the frame ends, if there are such.  What
        is left is those then, and no copy: many clients may have the same message.
        """
        self.sent = sent = self.sent + len(data)
        connection = self._connection
        if sent > AHEAD and not connection.ahead_limited:
            connection.limit_ahead()
        taken = connection.offer(data, UNSENT)
        self.others_turn = sent % TURN < len(data)
        if taken != len(data):
            self.halfway = True
            head = len(data) - len(payload)
            taken_of_payload = max(taken - head, 0)
            behind = memoryview(payload)[taken_of_payload:]
            self.rest = [memoryview(data[:head])[taken:], behind]

    def control(self, data: bytes) -> None:
        """Sends control frames, behind the message that is sent by half."""
        if data:
            self.waiting += data
            self.flush()

    def flush(self) -> None:
        """Sends the control frames that wait, as far as there is room."""
        if self.waiting and not self.halfway:
            # What does not fit waits for the next time: meanwhile, nothing more is read.
            taken = self._connection.offer(self.waiting, 2 * UNSENT)
            self.waiting = self.waiting[taken:]

    def wake(self) -> None:
        """Wakes all tasks that wait."""
        wake_all(self.drained)
