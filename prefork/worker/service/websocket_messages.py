"""The coroutines of a WebSocket: the `receive` and `send` of its application.

They do what waits, and are those of Python in each build.  All else is done by the WebSocket
(prefork.worker.service.asgi_websocket).
"""

import asyncio

from prefork.apps.asgi_response import Message, kind_of
from prefork.worker.service.asgi_call import UNSENT, ClientDisconnectedError, Sent
from prefork.worker.service.asgi_task import wait_for_event
from prefork.worker.service.asgi_websocket import AsgiWebsocket

_DONE, _PARTLY = Sent.DONE, Sent.PARTLY


async def receive(websocket: AsgiWebsocket) -> Message:
    """The `receive` of ASGI."""
    message = websocket.take()
    if message is not None:
        return message
    waiter: asyncio.Future[Message] = websocket.owner.loop.create_future()
    websocket.arrived.append(waiter)
    try:
        return await waiter
    except BaseException:
        websocket.not_received(waiter)
        raise


async def send(websocket: AsgiWebsocket, message: Message) -> None:
    """The `send` of ASGI.  Raises ClientDisconnectedError at the end of the WebSocket, and
    MisusedProtocol, TypeError or ValueError for a message that may not be sent."""
    sent = websocket.accept(message)
    if sent is _DONE:
        return
    if sent is _PARTLY:
        await _complete(websocket)
    else:
        await _send(websocket, message)


async def _send(websocket: AsgiWebsocket, message: Message) -> None:
    """The long way of a message."""
    kind, sender = kind_of(message), websocket.sender
    websocket.must_take(kind)
    if kind == "websocket.send":
        while sender.busy:  # of several tasks that send, the first one goes on first
            await _wait(websocket)
            websocket.must_take(kind)
        if websocket.put(message) is _PARTLY:
            await _complete(websocket)
    elif kind == "websocket.close":
        while not websocket.close(message):
            await _wait(websocket)
    elif kind == "websocket.http.response.body":
        await _deny(websocket, message)
    elif kind == "websocket.accept":
        websocket.open(message)
    else:  # websocket.http.response.start
        websocket.deny(message)


async def _complete(websocket: AsgiWebsocket) -> None:
    """Sends what is left of a message, when the client takes it; others may have their turn."""
    connection, sender = websocket.connection, websocket.sender
    try:
        if sender.rest:
            await _send_rest(websocket)
        if connection.broken:
            raise ClientDisconnectedError("the client has left")
        if connection.unsent is not None:
            websocket.owner.settle(connection)  # it is to be sent from the epoll
        elif sender.others_turn:
            await asyncio.sleep(0)
    except BaseException:
        websocket.message_over(failed=True)
        raise
    websocket.message_over()


async def _send_rest(websocket: AsgiWebsocket) -> None:
    """Sends what is left of a frame; nothing gets in between."""
    connection, sender = websocket.connection, websocket.sender
    try:
        for part in sender.rest:
            left = part
            while len(left) and not sender.over:
                left = left[connection.offer(left, UNSENT) :]
                if len(left):
                    await _wait(websocket)
    except BaseException:
        # Cancelled: the client has half a frame, and nothing that follows would make sense.
        connection.broken = True
        raise
    finally:
        sender.halfway = False
        sender.rest = []
    sender.flush()
    sender.wake()


async def _deny(websocket: AsgiWebsocket, message: Message) -> None:
    """A piece of the response that denies the WebSocket."""
    connection = websocket.connection
    left = memoryview(websocket.denial(message))
    while len(left):
        left = left[connection.offer(left, UNSENT) :]
        if len(left):
            await _wait(websocket)
        if connection.broken:
            websocket.message_over(failed=True)
            raise ClientDisconnectedError("the client has left")
    websocket.denial_sent()


async def _wait(websocket: AsgiWebsocket) -> None:
    """Waits until the client has taken what waits for it, or the WebSocket is at its end."""
    await wait_for_event(websocket, websocket.sender.drained)
