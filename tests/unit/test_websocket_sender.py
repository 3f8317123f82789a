"""What one WebSocket sends, while its client takes it slowly."""

import asyncio
from unittest.mock import Mock

from prefork.websocket.websocket_session import WebSocketSession
from prefork.worker.service.asgi_call import TURN
from prefork.worker.service.websocket_sender import WebsocketSender


def test_what_waits_for_the_client_is_the_message_and_no_copy_of_it() -> None:
    """Many clients may have the same message, and take it slowly."""
    message = bytes(range(256)) * 1000
    taken = bytearray()
    waiting: list[bytes] = []

    def offer(data: bytes | memoryview, most: int) -> int:
        if isinstance(data, memoryview):
            assert isinstance(data.obj, bytes)
            waiting.append(data.obj)
        size = min(len(data), 3 + len(taken))
        taken.extend(data[:size])
        return size

    async def run() -> None:
        owner = Mock(loop=asyncio.get_running_loop())
        connection = Mock(unsent=b"some", broken=False, ahead_limited=True)
        connection.offer.side_effect = offer
        sender = WebsocketSender(owner, connection)
        rest = sender.message(WebSocketSession(0).binary(message), message)
        assert rest is not None
        sending = asyncio.ensure_future(rest)
        while not sending.done():
            await asyncio.sleep(0)
            sender.wake()

    asyncio.run(run())
    assert bytes(taken[10:]) == message
    assert any(each is message for each in waiting)
    assert max(len(each) for each in waiting if each is not message) <= 10


def test_others_have_their_turn_while_a_client_takes_all_at_once() -> None:
    connection = Mock(unsent=None, broken=False, ahead_limited=True)
    sender = WebsocketSender(Mock(), connection)

    async def run() -> int:
        other = asyncio.create_task(asyncio.sleep(0))
        for count in range(4000):
            if other.done():
                return count * 100
            rest = sender.message(b"x" * 100)
            if rest is not None:
                await rest
        return -1

    assert 0 < asyncio.run(run()) < 3 * TURN
