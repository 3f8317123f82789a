"""A wrong field of a message of ASGI: the error names both, and the client sees a failure."""

from ast import literal_eval
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
    ([], {**START, "headers": [(b"a", b"b", b"c")]}, PAIRS),
    ([], {**START, "headers": [(b"a", None)]}, PAIRS),
    ([], {**START, "trailers": "no"}, "trailers must be bool, not str"),
    ([START], {**BODY, "body": "x"}, "body must be bytes, not str"),
    ([START], {**BODY, "body": None}, "body must be bytes, not NoneType"),
    ([START], {**BODY, "body": 7}, "body must be bytes, not int"),
    ([START], {**BODY, "more_body": "no"}, "more_body must be bool, not str"),
    ([], EARLY, "links must be a list of bytes"),
    ([], {**EARLY, "links": None}, "links must be a list of bytes"),
    ([], {**EARLY, "links": ["</a>; rel=preload"]}, "links must be a list of bytes"),
    ([], {**EARLY, "links": b"</a>; rel=preload"}, "links must be a list of bytes"),
    ([], {**EARLY, "links": 7}, "links must be a list of bytes"),
    (
        *([], {**EARLY, "links": [b"a\nb"]}),
        "header Link has a control or non-latin-1 character: 'a\\nb'",
    ),
    (WITH_TRAILERS, {**TRAILERS, "headers": [("a", "b")]}, PAIRS),
    (WITH_TRAILERS, {**TRAILERS, "headers": [(b"a b", b"")]}, "header name is not a token: 'a b'"),
    (WITH_TRAILERS, {**TRAILERS, "headers": [(b"Host", b"x")]}, "Host can not be a trailer"),
    (WITH_TRAILERS, {**TRAILERS, "more_trailers": "no"}, "more_trailers must be bool, not str"),
    ([START], PATH, "path must be str, not NoneType"),
    ([START], {**PATH, "path": 7}, "path must be str, not int"),
    ([START], {**PATH, "path": "\0"}, "path: embedded null byte"),
    ([START], {**FILE, "file": "x"}, "file must be a file or its descriptor, not str"),
    ([START], {**FILE, "offset": "0"}, "offset must be int, not str"),
    ([START], {**FILE, "count": 1.0}, "count must be int, not float"),
    ([START], {**FILE, "offset": -1}, "offset and count must not be negative"),
    ([START], {**FILE, "count": -1}, "offset and count must not be negative"),
    ([START], {**FILE, "more_body": "no"}, "more_body must be bool, not str"),
]

UNTYPED = "a message must be a dict with a type, not "

# What is known to be wrong only when the head is composed, with the next message.
STARTS: list[tuple[Message, str]] = [
    ({**START, "status": 99}, "status must be three digits from 200 and a reason, not '99 '"),
    ({**START, "headers": [(b"a b", b"")]}, "header name is not a token: 'a b'"),
    (
        {**START, "headers": [(b"a", b"\0")]},
        "header a has a control or non-latin-1 character: '\\x00'",
    ),
    ({**START, "headers": [(b"content-length", b"x")]}, "Content-Length is not a number: 'x'"),
]

ACCEPT: Message = {"type": "websocket.accept"}
SEND = {"type": "websocket.send"}
CLOSE = {"type": "websocket.close"}
DENY = {"type": "websocket.http.response.start", "status": 401, "headers": []}
DENIAL = {"type": "websocket.http.response.body", "body": b"x"}

SURROGATE = "'utf-8' codec can't encode character '\\ud800' in position 0: surrogates not allowed"

WEBSOCKET: list[tuple[list[Message], Message, str]] = [
    ([], {**ACCEPT, "subprotocol": b"chat"}, "subprotocol must be str, not bytes"),
    (
        *([], {**ACCEPT, "subprotocol": "chat"}),
        "subprotocol 'chat' is not among those that the client offers: none",
    ),
    ([], {**ACCEPT, "headers": [("a", "b")]}, PAIRS),
    ([], {**ACCEPT, "headers": [(b"a b", b"")]}, "header name is not a token: 'a b'"),
    ([ACCEPT], {**SEND, "text": b"x"}, "text must be str, not bytes"),
    ([ACCEPT], {**SEND, "bytes": "x"}, "bytes must be bytes, not str"),
    ([ACCEPT], {**SEND, "text": "\ud800"}, f"text: {SURROGATE}"),
    ([ACCEPT], {**CLOSE, "code": "1000"}, "code must be int, not str"),
    ([ACCEPT], {**CLOSE, "code": 999}, "code must be 1000 to 1014 or 3000 to 4999, not 999"),
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


def answer(server: Server, messages: list[Message], *headers: str) -> bytes:
    lines = [f"GET /?{query(messages)} HTTP/1.1", "Host: x", *headers, "", ""]
    return server.raw("\r\n".join(lines).encode())


@pytest.mark.parametrize("headers", [(), ("TE: trailers", "Connection: close, TE")])
def test_of_a_response(server: Server, headers: tuple[str, ...]) -> None:
    for before, message, wanted in HTTP:
        got = answer(server, [*before, message], *headers)
        assert said(server) == [f"{message['type']}: {wanted}"]
        if BODY in before:
            assert got.endswith(b"\r\n1\r\nx\r\n0\r\n"), got  # its end is not there
        else:
            assert got.startswith(b"HTTP/1.1 500"), got


def test_of_the_head_of_a_response(server: Server) -> None:
    for start, wanted in STARTS:
        assert answer(server, [start, BODY]).startswith(b"HTTP/1.1 500")
        assert said(server) == [f"http.response.start: {wanted}"]


@pytest.mark.parametrize("message", [{}, {"status": 200}, None, ["type"]])
def test_a_message_without_a_type(server: Server, message: Any) -> None:
    assert answer(server, [message]).startswith(b"HTTP/1.1 500")
    with pytest.raises(InvalidStatus, match="500"), websocket(server, f"/?{query([message])}"):
        pass
    assert said(server) == [f"{UNTYPED}{message}"] * 2


def test_an_early_hint_is_wrong_for_each_client(server: Server) -> None:
    path = f"/?{query([{**EARLY, 'links': ['</a>']}])}"
    assert server.raw(f"GET {path} HTTP/1.0\r\n\r\n".encode()).startswith(b"HTTP/1.1 500")
    assert said(server) == ["http.response.early_hint: links must be a list of bytes"]


def test_of_a_websocket(server: Server) -> None:
    for before, message, wanted in WEBSOCKET:
        path = f"/?{query([*before, message])}"
        if ACCEPT in before:
            with websocket(server, path) as client, pytest.raises(ConnectionClosed) as closed:
                client.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1011
        else:
            with pytest.raises(InvalidStatus, match="500"), websocket(server, path):
                pass
        assert said(server) == [f"{message['type']}: {wanted}"]
