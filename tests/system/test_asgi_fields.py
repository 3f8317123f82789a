"""A field of a message of ASGI that has a wrong type: the error names the message and the field."""

from ast import literal_eval
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.server import Server, Start
from tests.support.websocket_client import websocket

Message = dict[str, Any]

START = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
BODY = {"type": "http.response.body", "body": b"x"}
TRAILERS = {"type": "http.response.trailers"}
WITH_TRAILERS: list[Message] = [{**START, "trailers": True}, BODY]
EARLY = {"type": "http.response.early_hint"}
PATH = {"type": "http.response.pathsend"}
FILE = {"type": "http.response.zerocopysend", "file": 0}
PAIRS = "headers must be pairs of bytes, (name, value)"

HTTP: list[tuple[list[Message], Message, str]] = [
    ([], {"type": "http.response.start"}, "status must be int, not NoneType"),
    ([], {**START, "status": "200"}, "status must be int, not str"),
    ([], {**START, "headers": [("a", "b")]}, PAIRS),
    ([], {**START, "headers": [(b"a", "b")]}, PAIRS),
    ([], {**START, "headers": {"a": "b"}}, PAIRS),
    ([], {**START, "headers": 7}, PAIRS),
    ([], {**START, "trailers": "no"}, "trailers must be bool, not str"),
    ([START], {**BODY, "body": "x"}, "body must be bytes, not str"),
    ([START], {**BODY, "body": None}, "body must be bytes, not NoneType"),
    ([START], {**BODY, "body": 7}, "body must be bytes, not int"),
    ([START], {**BODY, "more_body": "no"}, "more_body must be bool, not str"),
    ([], {**EARLY, "links": ["</a>; rel=preload"]}, "links must be a list of bytes"),
    ([], {**EARLY, "links": b"</a>; rel=preload"}, "links must be a list of bytes"),
    ([], {**EARLY, "links": 7}, "links must be a list of bytes"),
    (WITH_TRAILERS, {**TRAILERS, "headers": [("a", "b")]}, PAIRS),
    (WITH_TRAILERS, {**TRAILERS, "more_trailers": "no"}, "more_trailers must be bool, not str"),
    ([START], PATH, "path must be str, not NoneType"),
    ([START], {**PATH, "path": 7}, "path must be str, not int"),
    ([START], {**FILE, "file": "x"}, "file must be a file or its descriptor, not str"),
    ([START], {**FILE, "offset": "0"}, "offset must be int, not str"),
    ([START], {**FILE, "count": 1.0}, "count must be int, not float"),
    ([START], {**FILE, "more_body": "no"}, "more_body must be bool, not str"),
]

ACCEPT: Message = {"type": "websocket.accept"}
SEND = {"type": "websocket.send"}
CLOSE = {"type": "websocket.close"}
DENY = {"type": "websocket.http.response.start", "status": 401, "headers": []}
DENIAL = {"type": "websocket.http.response.body", "body": b"x"}

WEBSOCKET: list[tuple[list[Message], Message, str]] = [
    ([], {**ACCEPT, "subprotocol": b"chat"}, "subprotocol must be str, not bytes"),
    ([], {**ACCEPT, "headers": [("a", "b")]}, PAIRS),
    ([ACCEPT], {**SEND, "text": b"x"}, "text must be str, not bytes"),
    ([ACCEPT], {**SEND, "bytes": "x"}, "bytes must be bytes, not str"),
    ([ACCEPT], {**CLOSE, "code": "1000"}, "code must be int, not str"),
    ([ACCEPT], {**CLOSE, "reason": b"x"}, "reason must be str, not bytes"),
    ([], {**DENY, "status": "401"}, "status must be int, not str"),
    ([DENY], {**DENIAL, "body": "x"}, "body must be bytes, not str"),
    ([DENY], {**DENIAL, "more_body": "no"}, "more_body must be bool, not str"),
]


@pytest.fixture
def server(start: Start) -> Server:
    server = start(
        *("tests.apps.wrong_messages:app", "--workers", "1"),
        *("--set", "server.protocol=asgi", "--set", "server.lifespan=off"),
    ).wait_ready(1)
    server.expected_errors.add("application failed")
    return server


def query(messages: list[Message]) -> str:
    return repr(messages).encode().hex()


def said(server: Server) -> list[str]:
    status, body = server.get("/said")
    assert status == 200
    found: list[str] = literal_eval(body.decode())
    return found


def test_of_a_response(server: Server) -> None:
    for before, message, wanted in HTTP:
        head = f"GET /?{query([*before, message])} HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n"
        server.raw(head.encode() + b"Connection: close, TE\r\n\r\n")
        assert said(server) == [f"{message['type']}: {wanted}"]


def test_of_a_websocket(server: Server) -> None:
    for before, message, wanted in WEBSOCKET:
        path = f"/?{query([*before, message])}"
        with suppress(InvalidStatus, ConnectionClosed), websocket(server, path) as client:
            client.recv()
        assert said(server) == [f"{message['type']}: {wanted}"]
