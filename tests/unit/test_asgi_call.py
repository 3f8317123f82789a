"""A call of an ASGI application, as its worker looks at it."""

import asyncio
from math import inf
from time import monotonic
from unittest.mock import Mock

import pytest

from prefork.http.request import Request
from prefork.worker.service.asgi_call import TURN, AsgiCall


def test_a_call_that_is_woken_waits_for_its_client_until_its_task_has_run() -> None:
    """A look in between finds it neither late nor at work: it is not cancelled at a stop."""

    async def run() -> None:
        owner = Mock(loop=asyncio.get_running_loop())
        connection = Mock(unsent=b"full", broken=False, left=False, closing=False)
        connection.offer.return_value = 0
        request = Request({}, b"GET /", True, True, None, None)
        call = AsgiCall(owner, connection, request, monotonic() - 10, None)
        owner.pause.side_effect = lambda call: setattr(call, "at_work_since", inf)
        owner.resume.side_effect = lambda call: setattr(call, "at_work_since", monotonic())

        def waits() -> bool:
            return call.waits_for_client(monotonic(), 60)

        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        assert not waits()
        piece = {"type": "http.response.body", "body": b"x" * 100_000, "more_body": True}
        sending = asyncio.create_task(call.send(piece))
        while not (owner.pause.called or sending.done()):
            await asyncio.sleep(0)
        assert waits()
        connection.offer.side_effect = lambda view, _: len(view)
        connection.flush.side_effect = lambda: setattr(connection, "unsent", None)
        call.ready(monotonic())
        assert not owner.resume.called
        assert waits()
        await sending
        assert owner.resume.called
        assert not waits()

    asyncio.run(run())


@pytest.mark.parametrize("more", [False, True])
def test_what_waits_for_the_client_is_the_message_and_no_copy_of_it(more: bool) -> None:
    """Many clients may have the same message, and take it slowly."""
    body = bytes(range(256)) * 1000
    taken = bytearray()
    waiting: list[bytes] = []

    def offer(data: bytes | memoryview, most: int) -> int:
        if isinstance(data, memoryview):
            assert isinstance(data.obj, bytes)
            waiting.append(data.obj)
        size = min(len(data), 7 + len(taken))
        taken.extend(data[:size])
        return size

    async def run() -> None:
        owner = Mock(loop=asyncio.get_running_loop())
        connection = Mock(unsent=None, broken=False, left=False, closing=False)
        connection.offer.side_effect = offer
        request = Request({}, b"GET /", True, True, None, None)
        call = AsgiCall(owner, connection, request, monotonic(), None)
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        piece = {"type": "http.response.body", "body": body, "more_body": more}
        sending = asyncio.create_task(call.send(piece))
        while not sending.done():
            await asyncio.sleep(0)
            connection.unsent = b"some"
            connection.flush.side_effect = lambda: setattr(connection, "unsent", None)
            call.ready(monotonic())
        await sending

    asyncio.run(run())
    head, _, sent = taken.partition(b"\r\n\r\n")
    assert sent == (b"%x\r\n%b\r\n" % (len(body), body) if more else body)
    assert any(each is body for each in waiting)
    assert max(len(each) for each in waiting if each is not body) <= len(head) + 16


def test_others_have_their_turn_while_a_client_takes_all_at_once() -> None:
    """The application awaits nothing but `send`, which has never to wait for the client."""

    async def run() -> int:
        owner = Mock(loop=asyncio.get_running_loop())
        connection = Mock(unsent=None, broken=False, left=False, closing=False)
        connection.offer.side_effect = lambda data, most: len(data)
        request = Request({}, b"GET /", True, True, None, None)
        call = AsgiCall(owner, connection, request, monotonic(), None)
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        other = asyncio.create_task(asyncio.sleep(0))
        piece = {"type": "http.response.body", "body": b"x" * 100, "more_body": True}
        for count in range(4000):
            if other.done():
                return count * 100
            await call.send(piece)
        return -1

    assert 0 < asyncio.run(run()) < 3 * TURN
