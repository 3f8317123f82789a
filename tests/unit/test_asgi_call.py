"""A call of an ASGI application, as its worker looks at it."""

import asyncio
import contextlib
import io
import os
import socket
from collections.abc import Iterator
from math import inf
from time import monotonic
from typing import Any
from unittest.mock import Mock

import pytest

from prefork.http.memory_budget import MemoryBudget
from prefork.http.request import Request
from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.service.asgi_call import TURN, AsgiCall
from prefork.worker.service.asgi_messages import send
from tests.support.client_limits import client_limits

START = {"type": "http.response.start", "status": 200, "headers": []}


def piece(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def owner_of_calls(loop: asyncio.AbstractEventLoop | None = None) -> Mock:
    """Its methods return None: compiled code sees to that."""
    methods = ("settle", "pause", "resume", "refused", "answered", "ended", "failed")
    return Mock(loop=loop, **{f"{name}.return_value": None for name in methods})


@contextlib.contextmanager
def call_of(owner: Mock, **limits: Any) -> Iterator[tuple[AsgiCall, socket.socket]]:
    """A call that began ten seconds ago, and its client."""
    ours, client = socket.socketpair()
    with ours, client:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setblocking(False)
        connection = AsgiConnection(ours, {}, ("", ""), client_limits(**limits), 0.0)
        connection.proceeding = True
        request = Request({}, b"GET /", True, True, None, None)
        yield AsgiCall(owner, connection, request, monotonic() - 10, None), client


def take(call: AsgiCall, client: socket.socket) -> bytes:
    """The client takes all that there is for it."""
    taken = bytearray()
    while True:
        try:
            taken += client.recv(65536)
        except BlockingIOError:
            if call.connection.unsent is None:
                return bytes(taken)
            call.ready(monotonic())


def test_a_call_that_is_woken_waits_for_its_client_until_its_task_has_run() -> None:
    """A look in between finds it neither late nor at work: it is not cancelled at a stop."""

    async def run() -> None:
        owner = owner_of_calls(asyncio.get_running_loop())
        owner.pause.side_effect = lambda call: setattr(call, "at_work_since", inf)
        owner.resume.side_effect = lambda call: setattr(call, "at_work_since", monotonic())
        with call_of(owner) as (call, client):

            def waits() -> bool:
                return call.waits_for_client(monotonic(), 60)

            await send(call, START)
            assert not waits()
            sending = asyncio.create_task(send(call, piece(b"x" * 100_000)))
            while not (owner.pause.called or sending.done()):
                await asyncio.sleep(0)
            assert waits()
            take(call, client)
            assert not owner.resume.called
            assert waits()
            await sending
            assert owner.resume.called
            assert not waits()

    asyncio.run(run())


def test_what_waits_for_the_client_is_the_message_and_no_copy_of_it() -> None:
    """Many clients may have the same message, and take it slowly."""
    body = bytes(range(256)) * 1000
    with call_of(owner_of_calls()) as (call, _):
        call.start(START)
        before, after = call.framing(len(body), more=True, closing=False)
        call.put(before, body, after)
        assert [each.obj for each in call.rest if each.obj is body]
        assert all(len(each) <= 16 for each in call.rest if each.obj is not body)


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("size", [100, 10_000, 256_000])
@pytest.mark.parametrize("memory", [0, 1000])
def test_a_client_that_takes_slowly_gets_all_of_a_body(more: bool, size: int, memory: int) -> None:
    """Also if the worker has no memory to keep more of it."""
    body = bytes(range(250)) * (size // 250 + 1)

    async def run() -> bytes:
        owner, budget = owner_of_calls(asyncio.get_running_loop()), MemoryBudget(memory)
        with call_of(owner, budget=budget) as (call, client):
            taken = b""
            await send(call, START)
            sending = asyncio.create_task(send(call, piece(body, more=more)))
            while not sending.done():
                await asyncio.sleep(0)
                taken += take(call, client)
            await sending
            return taken + take(call, client)

    _, _, sent = asyncio.run(run()).partition(b"\r\n\r\n")
    assert sent == (b"%x\r\n%b\r\n" % (len(body), body) if more else body)


def test_others_have_their_turn_while_a_client_takes_all_at_once() -> None:
    """The application awaits nothing but `send`, which has never to wait for the client."""

    async def run() -> int:
        with call_of(owner_of_calls(asyncio.get_running_loop())) as (call, client):
            await send(call, START)
            other = asyncio.create_task(asyncio.sleep(0))
            for count in range(4000):
                if other.done():
                    return count * 100
                await send(call, piece(b"x" * 100))
                take(call, client)
        return -1

    assert 0 < asyncio.run(run()) < 3 * TURN


@pytest.mark.parametrize("closed", [False, True])
def test_a_file_without_a_descriptor(closed: bool) -> None:
    file: Any = io.BytesIO()
    if closed:
        with open(os.devnull, "rb") as file:
            pass
    message = {"type": "http.response.zerocopysend", "file": file}
    with call_of(owner_of_calls()) as (call, _):
        call.start(START)
        with pytest.raises(ValueError, match=r"zerocopysend: file: \w+"):
            asyncio.run(send(call, message))


@pytest.mark.parametrize("body", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_what_a_message_may_have_for_bytes_and_pairs(body: Any, kind: Any) -> None:
    """And keys that the specification does not have."""
    start = {**START, "headers": kind([kind([b"a", b"b"])]), "other": 1}

    async def run() -> bytes:
        with call_of(owner_of_calls(asyncio.get_running_loop())) as (call, client):
            await send(call, start)
            await send(call, {**piece(body, more=False), "other": 1})
            return take(call, client)

    sent = asyncio.run(run())
    assert b"\r\na: b\r\n" in sent
    assert sent.endswith(b"\r\n\r\nabc")
