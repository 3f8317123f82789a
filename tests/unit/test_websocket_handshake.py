"""The opening handshake, RFC 6455 section 4, and the closing handshake, section 7."""

import pytest

from prefork.http.head_rules import Reject
from prefork.websocket.frame_reader import CloseFrame
from prefork.websocket.opening_handshake import (
    accepting_response,
    asks_for_websocket,
    read_handshake,
    refusing_response,
)
from prefork.websocket.websocket_session import SessionState, WebSocketSession
from tests.support.websocket_frames import client_frame

SAMPLE: dict[str, object] = {  # section 1.3
    "REQUEST_METHOD": "GET",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_PROTOCOL": "chat, superchat",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"HTTP_UPGRADE": "WebSocket", "HTTP_CONNECTION": "keep-alive, UPGRADE"},
        {"HTTP_UPGRADE": "h2c, websocket"},
        {"HTTP_SEC_WEBSOCKET_VERSION": "8"},
    ],
)
def test_a_request_asks_for_a_websocket(changed: dict[str, object]) -> None:
    assert asks_for_websocket(SAMPLE | changed, http11=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"REQUEST_METHOD": "POST"},
        {"HTTP_UPGRADE": "h2c"},
        {"HTTP_UPGRADE": "xwebsocket"},
        {"HTTP_CONNECTION": "close"},
        {"HTTP_CONNECTION": "keep-alive, Upgraded"},
    ],
)
def test_others_are_plain_requests(changed: dict[str, object]) -> None:
    assert not asks_for_websocket(SAMPLE | changed, http11=True)


def test_an_upgrade_of_http_1_0_is_ignored() -> None:
    assert not asks_for_websocket(SAMPLE, http11=False)


def test_the_sample_of_section_1_3() -> None:
    handshake = read_handshake(SAMPLE)
    assert handshake.subprotocols == ("chat", "superchat")
    assert accepting_response(handshake, "chat") == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n\r\n"
    )
    response = accepting_response(handshake, headers=[("Set-Cookie", "a=b"), ("Upgrade", "x")])
    assert response.endswith(b"xOo=\r\nSet-Cookie: a=b\r\n\r\n")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426),
        ({"HTTP_SEC_WEBSOCKET_VERSION": ""}, 426),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "13, 13"}, 426),
        ({"HTTP_SEC_WEBSOCKET_KEY": ""}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ"}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==, a"}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZWE="}, 400),
        ({"HTTP_SEC_WEBSOCKET_KEY": "\xe9GhlIHNhbXBsZSBub25jZQ=="}, 400),
        ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "a b"}, 400),
        ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "a, a"}, 400),
        ({"HTTP_SEC_WEBSOCKET_EXTENSIONS": "a;"}, 400),
        ({"CONTENT_LENGTH": "5"}, 400),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 400),
    ],
)
def test_a_request_is_refused(changed: dict[str, object], status: int) -> None:
    with pytest.raises(Reject) as refused:
        read_handshake(SAMPLE | changed)
    assert refused.value.status == status


def test_another_version_is_answered_with_ours() -> None:
    with pytest.raises(Reject) as refused:
        read_handshake(SAMPLE | {"HTTP_SEC_WEBSOCKET_VERSION": "8"})
    head = refusing_response(refused.value).partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"HTTP/1.1 426 Upgrade Required"
    assert {b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13"} <= set(
        head
    )


def test_an_application_may_not_choose_everything() -> None:
    handshake = read_handshake(SAMPLE)
    with pytest.raises(ValueError, match="chat, superchat"):
        accepting_response(handshake, "mqtt")
    with pytest.raises(ValueError, match="Sec-WebSocket-Accept"):
        accepting_response(handshake, headers=[("Sec-WebSocket-Accept", "x")])
    with pytest.raises(ValueError, match="control"):
        accepting_response(handshake, headers=[("X-A", "x\r\nSet-Cookie: a")])


def test_messages_pings_and_the_clients_close() -> None:
    session = WebSocketSession(100)
    assert (
        session.next(client_frame(1, b"a") + client_frame(9, b"p") + client_frame(10, b"q")) == "a"
    )
    assert session.next() is None
    assert session.take_replies() == b"\x8a\x01p"
    assert session.pong == b"q"
    assert session.next(client_frame(8, b"\x0f\xa0why") + client_frame(1, b"b")) is None
    assert session.take_replies() == b"\x88\x02\x0f\xa0"
    assert session.close == CloseFrame(4000, "why")
    assert session.state is SessionState.CLOSED
    assert session.begin_close(1000) == b""


def test_the_server_closes() -> None:
    session = WebSocketSession(100)
    assert session.begin_close(1001, "bye") == b"\x88\x05\x03\xe9bye"
    assert session.begin_close(1001) == b""
    assert (
        session.next(
            client_frame(1, b"late") + client_frame(9, b"p") + client_frame(8, b"\x03\xe9")
        )
        is None
    )
    assert session.take_replies() == b""
    assert session.state is SessionState.CLOSED
    assert session.close == CloseFrame(1001, "")


def test_a_violation_is_told_to_the_client() -> None:
    session = WebSocketSession(100)
    assert session.next(client_frame(1, b"a") + client_frame(1, b"x" * 101)) == "a"
    assert session.next() is None
    assert session.take_replies() == b"\x88\x23\x03\xf1a message has more than 100 bytes"
    assert session.violation is not None
    assert session.close == CloseFrame(1009, "a message has more than 100 bytes")
