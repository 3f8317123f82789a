"""The table of a WebSocket's states, and WebSockets that are driven through all of them."""

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import Any
from unittest.mock import Mock

import pytest

from prefork.apps.asgi_response import MisusedProtocol
from prefork.apps.asgi_websocket_state import CLOSED, TABLE, WebsocketState
from prefork.config import Websocket
from prefork.http.request import Request
from prefork.websocket.opening_handshake import OpeningHandshake
from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.service.asgi_call import ClientDisconnectedError
from prefork.worker.service.asgi_websocket import AsgiWebsocket
from prefork.worker.service.websocket_messages import send
from tests.support.client_limits import client_limits

S = WebsocketState

MESSAGES: dict[str, dict[str, Any]] = {
    "a": {"type": "websocket.accept"},
    "m": {"type": "websocket.send", "text": "some"},
    "c": {"type": "websocket.close"},
    "d": {"type": "websocket.http.response.start", "status": 401, "headers": []},
    "p": {"type": "websocket.http.response.body", "body": b"some", "more_body": True},
    "b": {"type": "websocket.http.response.body", "body": b"all"},
    "x": {"type": "websocket.push"},
}

# What may be sent by the specification: the beginnings of "am*c" and "dp*b", or "c" alone.  At the
# end, a further close has no effect.
ALLOWED = re.compile("(am*(c+)?|d(p*(bc*)?)?|c+)?")


@contextlib.contextmanager
def new() -> Iterator[tuple[AsgiWebsocket, socket.socket]]:
    """A WebSocket whose client has asked for it, and has sent nothing since; and its client."""
    methods = ("settle", "upgraded", "closed", "ended", "failed")
    owner = Mock(loop=None, **{f"{name}.return_value": None for name in methods})
    ours, client = socket.socketpair()
    with ours, client:
        connection = AsgiConnection(ours, {}, ("", ""), client_limits(), 0.0)
        connection.proceeding = True
        request = Request({}, b"GET /", True, True, None, None)
        handshake = OpeningHandshake("key", (), ())
        yield AsgiWebsocket(owner, connection, request, handshake, Websocket(), 0.0), client


def give(websocket: AsgiWebsocket, name: str) -> str:
    """Sends a message, and returns what the error says; empty if there is none."""
    try:
        send(websocket, MESSAGES[name]).send(None)
    except StopIteration:
        return ""
    except (ClientDisconnectedError, MisusedProtocol) as problem:
        return str(problem)
    raise AssertionError("it waits for the client")


def test_what_may_be_sent_is_what_the_specification_says() -> None:
    todo = [""]
    for before in todo:
        for name in MESSAGES:
            with new() as (websocket, _):
                assert not any(give(websocket, each) for each in before)
                allowed = ALLOWED.fullmatch(before + name) is not None
                said = give(websocket, name)
                assert (not said) == allowed, (before, name, said)
                if allowed and len(before) < 4:
                    todo.append(before + name)


def closed_by_client(websocket: AsgiWebsocket, client: socket.socket) -> None:
    client.send(b"\x88\x80\0\0\0\0")
    websocket.ready(monotonic())


def halfway(websocket: AsgiWebsocket, client: socket.socket) -> None:
    """As `closed_by_client`, while the client has a message by half."""
    websocket.sender.halfway = True
    closed_by_client(websocket, client)


def sent(websocket: AsgiWebsocket, client: socket.socket) -> None:
    """The client has all of the message."""
    websocket.sender.halfway = False
    websocket.message_over()


def lost(websocket: AsgiWebsocket, client: socket.socket) -> None:
    websocket.connection.broken = True
    websocket.client_left()


WAYS = {S.CONNECTING: "", S.DENYING: "d", S.OPEN: "a", S.CLOSING: "ac", S.ENDING: "a", S.OVER: "c"}


def in_state(state: WebsocketState, websocket: AsgiWebsocket, client: socket.socket) -> None:
    for name in WAYS[state]:
        give(websocket, name)
    if state is S.ENDING:
        halfway(websocket, client)
    assert websocket.websocket_state is state


@pytest.mark.parametrize("state", S)
def test_each_message_in_each_state(state: WebsocketState) -> None:
    """One that is not taken has an error, and leaves the state as it is."""
    for name, message in MESSAGES.items():
        with new() as (websocket, client):
            in_state(state, websocket, client)
            if message["type"] in TABLE[state].takes:
                websocket.must_take(message["type"])
                continue
            error = ClientDisconnectedError if state in CLOSED else MisusedProtocol
            text = "closed" if state in CLOSED else f"{message['type']} .* {state.value}$"
            with pytest.raises(error, match=text):
                websocket.must_take(message["type"])
            assert give(websocket, name)
            assert websocket.websocket_state is state


@pytest.mark.parametrize("state", sorted(CLOSED, key=str))
def test_to_close_what_is_closed_is_no_mistake(state: WebsocketState) -> None:
    """Both sides may close at one time."""
    with new() as (websocket, client):
        in_state(state, websocket, client)
        assert not give(websocket, "c")
        assert websocket.websocket_state is state


@pytest.mark.parametrize("kind", [7, ["websocket.send"], None])
@pytest.mark.parametrize("state", S)
def test_no_state_takes_what_is_no_message(state: WebsocketState, kind: Any) -> None:
    with new() as (websocket, client):
        in_state(state, websocket, client)
        with pytest.raises((ClientDisconnectedError, MisusedProtocol)):
            websocket.must_take(kind)


@pytest.mark.parametrize("state", S)
def test_the_successors_are_those_that_happen(state: WebsocketState) -> None:
    found = set()
    actions: list[Callable[[AsgiWebsocket, socket.socket], object]] = [
        *(partial(lambda name, websocket, client: give(websocket, name), each) for each in "acdb"),
        *(closed_by_client, halfway, sent, lost),
        lambda websocket, client: websocket.expire(),
        lambda websocket, client: websocket.returned(),
    ]
    for action in actions:
        with new() as (websocket, client):
            in_state(state, websocket, client)
            action(websocket, client)
            found.add(websocket.websocket_state)
    assert found - {state} == TABLE[state].successors
