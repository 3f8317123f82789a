"""The client against servers that do wrong: each test is named by what one does."""

import contextlib
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from prefork.client import ClientError, ClientRequest, HttpClient, RequestContent, parse_url
from tests.support.hostile_servers import OK, Server, answer, answers, expect_end, reset, serving
from tests.support.sockets import read_head
from tests.support.waiting import PATIENCE

MIB = 1 << 20

# On a busy machine the time may be over before the step that the test is about.
TIMED_OUT = re.compile(r"(connect: .*|send: |receive: )timed out( after 0\.3 s)?")


def get(client: HttpClient, url: str, path: str = "") -> bytes:
    return b"".join(client.request(ClientRequest(parse_url(url + path))))


def failure(server: Server, **options: Any) -> str:
    """What a client says of this server."""
    with HttpClient(**options) as client, pytest.raises(ClientError) as caught:
        get(client, server.url)
    return str(caught.value)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", "receive: closed early, before the first byte of a response"),
        (b"HTTP/1.1 20", "receive: closed early, in the head of the response"),
        (OK + b"Content-Length: 10\r\n\r\nabc", "receive: closed early, after 3 of 10 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", "receive: closed early, after 2"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "receive: not HTTP: Expected HTTP/"),
        (b"\0\xff" * 500, "receive: not HTTP: Expected HTTP/"),
        (OK + b"X: " + b"a" * 300_000, "receive: not HTTP: more than 262144 bytes of head"),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
            "receive: not HTTP: a chunk has no valid size",
        ),
    ],
)
def test_an_answer_that_is_not_http(sent: bytes, message: str) -> None:
    def handle(sock: socket.socket) -> None:
        read_head(sock)
        with contextlib.suppress(ConnectionError):
            sock.sendall(sent)

    with serving(handle) as server:
        assert failure(server).startswith(message)


def test_a_reset_after_the_request() -> None:
    def handle(sock: socket.socket) -> None:
        read_head(sock)
        reset(sock)

    with serving(handle) as server:
        assert failure(server) == "receive: Connection reset by peer"


def test_a_reset_in_a_body_that_ends_with_the_connection_is_no_end() -> None:
    received = threading.Event()

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(OK + b"\r\nabc")
        assert received.wait(PATIENCE)
        reset(sock)

    with serving(handle) as server, HttpClient() as client:
        response = client.request(ClientRequest(parse_url(server.url)))
        pieces = iter(response)
        assert next(pieces) == b"abc"
        received.set()
        with pytest.raises(ClientError, match="receive: Connection reset"):
            next(pieces)


def test_an_answer_that_drips() -> None:
    data = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100 + b"0\r\n\r\n"
    drops = [data[index : index + 1] for index in range(len(data))]

    def handle(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers(*drops)(sock)

    with serving(handle) as server, HttpClient() as client:
        assert get(client, server.url) == b"x" * 100


def test_an_answer_in_pieces_is_handed_on_as_it_comes() -> None:
    went_on = threading.Event()

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(OK + b"Content-Length: 2\r\n\r\na")
        assert went_on.wait(PATIENCE)
        sock.sendall(b"b")
        expect_end(sock)

    with serving(handle) as server, HttpClient() as client:
        pieces = iter(client.request(ClientRequest(parse_url(server.url))))
        assert next(pieces) == b"a"
        went_on.set()
        assert next(pieces) == b"b"


def test_bytes_after_the_answer_are_not_taken_for_the_next_one() -> None:
    twice = answers(answer(b"ok") + answer(b"poison"))
    with serving(twice, answers(answer(b"second"))) as server, HttpClient() as client:
        assert get(client, server.url) == b"ok"
        assert get(client, server.url) == b"second"
    assert server.accepted == 2


def test_an_answer_without_end_is_endured_in_pieces_and_left() -> None:
    def endless(sock: socket.socket) -> None:
        read_head(sock)
        with contextlib.suppress(ConnectionError):
            sock.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
            while True:
                sock.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")

    with serving(endless) as server, HttpClient() as client:
        taken = 0
        for piece in client.request(ClientRequest(parse_url(server.url))):
            taken += len(piece)
            if taken > 10 * MIB:
                break


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200", OK + b"Content-Length: 5\r\n\r\nabc"], ids=["0", "head", "body"]
)
def test_a_server_that_falls_silent(sent: bytes) -> None:
    with serving(answers(sent)) as server:
        assert TIMED_OUT.fullmatch(failure(server, timeout=0.3))


def test_an_answer_without_end_is_timed_out() -> None:
    def endless(sock: socket.socket) -> None:
        read_head(sock)
        with contextlib.suppress(ConnectionError):
            sock.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
            while True:
                sock.sendall(b"1\r\na\r\n")

    with serving(endless) as server:
        assert TIMED_OUT.fullmatch(failure(server, timeout=0.3))


def test_a_server_that_does_not_read_the_body_is_timed_out() -> None:
    left = threading.Event()

    def deaf(sock: socket.socket) -> None:
        read_head(sock)
        assert left.wait(PATIENCE)

    with serving(deaf) as server, HttpClient(timeout=0.3) as client:
        request = ClientRequest(parse_url(server.url), "POST", body=RequestContent(bytes(64 * MIB)))
        with pytest.raises(ClientError, match=TIMED_OUT):
            client.request(request)
        left.set()


def test_a_server_that_does_not_accept() -> None:
    """Linux lets one more than the backlog in and answers no other SYN: listen(2)."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        with HttpClient(connect_timeout=0.1) as client, pytest.raises(ClientError) as caught:
            get(client, f"http://127.0.0.1:{port}/")
    assert str(caught.value) == f"connect: 127.0.0.1:{port}: timed out"


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    with HttpClient() as client, pytest.raises(ClientError) as caught:
        client.request(ClientRequest(parse_url("http://x/", str(path))))
    assert str(caught.value) == f"connect: {path}: No such file or directory"


def test_a_socket_path_that_is_too_long() -> None:
    with HttpClient() as client, pytest.raises(ClientError, match="AF_UNIX path too long"):
        client.request(ClientRequest(parse_url("http://x/", "/" + "a" * 200)))


def test_a_name_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with HttpClient() as client, pytest.raises(ClientError) as caught:
        get(client, "http://nowhere.invalid/")
    assert str(caught.value) == "look up: nowhere.invalid: name not found"
