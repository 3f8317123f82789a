"""`stream_body`: the application has a request before its body is there. And early hints."""

import hashlib
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.raw_http import chunked, request, talk
from tests.support.server import Server, Start, servers
from tests.system.test_http import settings

APP = "tests.apps.streaming:app"


@pytest.fixture(scope="module", params=["1", "4"], ids=["1 thread", "4 threads"])
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    for start in servers(tmp_path_factory.mktemp("stream")):
        yield start(
            *(APP, "--workers", "1", "--threads", request.param),
            *settings("http", stream_body="true", max_body=30_000_000, keepalive=60),
        ).wait_ready(1)


def post(path: str, *headers: str, body: bytes | None = None) -> bytes:
    return request(path, *headers, method="POST", body=body)


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_the_application_answers_what_has_come_before_the_rest_is_sent(
    server: Server, coding: str
) -> None:
    with talk(server) as client:
        for _ in range(2):
            if coding == "length":
                client.send(post("/lines", "Content-Length: 12"))
            else:
                client.send(post("/lines", CHUNKED))
            assert client.head()["Transfer-Encoding"] == "chunked"
            chunks = client.chunks()
            assert next(chunks) == b"ready\n"
            for line in (b"first\n", b"third\n"):
                client.send(line if coding == "length" else b"6\r\n%b\r\n" % line)
                assert next(chunks) == line
            if coding == "chunked":
                client.send(b"0\r\nX-Late: 1\r\n\r\n")
            assert list(chunks) == []


@pytest.mark.parametrize("size", [0, 1, 9_999, 64 * 1024, 3_000_000])
def test_a_body_arrives_as_it_was_sent(server: Server, size: int) -> None:
    body = random.Random(size).randbytes(size)
    digest = hashlib.sha256(body).hexdigest()
    pieces = [body[at : at + 50_000] for at in range(0, size, 50_000)]
    with talk(server) as client:
        answer = client.ask(post("/everything", body=body))
        assert answer.body.decode() == f"['{size}', None, {size}] {digest}"
        answer = client.ask(post("/everything", CHUNKED) + chunked(*pieces))
        assert answer.body.decode() == f"[None, 'chunked', {size}] {digest}"
        assert not answer.closes


def test_100_is_sent_when_the_application_reads_and_not_before(server: Server) -> None:
    expect = ("Expect: 100-continue", "Content-Length: 5")
    with talk(server) as client:
        assert client.ask(post("/first", *expect)).status == 100
        assert client.ask(b"hello").body == b"hello"
        # Without it nobody knows whether the body still comes: the connection ends.
        answer = client.ask(post("/ignore", *expect))
        assert (answer.status, answer.closes) == (200, True)
        assert client.at_end()


@pytest.mark.parametrize("path", ["/ignore", "/first"])
def test_a_little_that_is_left_unread_is_not_the_next_request(server: Server, path: str) -> None:
    inner = request("/smuggled")
    body = b"x" * 100_000 + inner
    for data in (
        post(path, body=body),
        post(path, CHUNKED) + chunked(b"first", body[:50_000], body[50_000:]),
    ):
        with talk(server) as client:
            for cut in (len(data), len(data) - 60_000):
                client.send(data[:cut])
                answer = client.answer()
                assert (answer.status, answer.closes) == (200, False)
                client.send(data[cut:] + post("/first", body=b"after it"))
                assert client.answer().body == b"after"


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_much_that_is_left_unread_ends_the_connection_and_no_reset_eats_the_answer(
    server: Server, coding: str
) -> None:
    piece = b"x" * 1_000_000
    with talk(server) as client:
        if coding == "length":
            client.send(post("/first", "Content-Length: 10000000") + piece)
        else:
            client.send(post("/first", CHUNKED) + chunked(piece).removesuffix(b"0\r\n\r\n"))
        for _ in range(9):
            client.send(piece if coding == "length" else b"f4240\r\n%b\r\n" % piece)
        answer = client.answer()
        assert answer.body == b"xxxxx"
        assert answer.closes is (coding == "length")
        assert client.at_end()


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, post("/everything", CHUNKED) + b"5\r\nhello\r\nnonsense\r\n"),
        (413, post("/everything", CHUNKED) + b"1c9c381\r\n" + b"x" * 30_000_001),
        (431, post("/everything", CHUNKED) + b"1\r\na\r\n0\r\n" + b"X: 1\r\n" * 200 + b"\r\n"),
    ],
    ids=["a bad chunk", "too large", "too many trailers"],
)
def test_a_body_that_is_refused_on_the_way_is_no_fault_of_the_application(
    server: Server, status: int, data: bytes
) -> None:
    with talk(server) as client:
        client.send(data)
        answer = client.answer()
        assert (answer.status, answer.closes) == (status, True)
        assert client.at_end()
    with talk(server) as client:
        client.send(data.replace(b"/everything", b"/caught", 1))
        answer = client.answer()
        assert (answer.status, answer.body[:11]) == (422, b"BodyError: ")
        assert client.at_end()
    assert not server.find("application failed")


def test_a_client_that_goes_away_is_no_fault_of_the_application(server: Server) -> None:
    with talk(server) as client:
        client.send(post("/lines", "Content-Length: 100") + b"line\n")
        assert client.head().status == 200
        client.sock.shutdown(socket.SHUT_RDWR)
    with talk(server) as client:
        assert client.ask(post("/ignore", body=b"")).status == 200
    assert not server.find("application failed")


def test_a_client_that_sends_nothing_more_gets_408(start: Start) -> None:
    server = start(
        *(APP, "--workers", "1"), *settings("http", stream_body="true", body_timeout=0.3)
    ).wait_ready(1)
    with talk(server) as client:
        client.send(post("/everything", "Content-Length: 100") + b"some")
        answer = client.answer()
        assert (answer.status, answer.closes) == (408, True)
        assert client.at_end()
    with talk(server) as client:
        # It has its answer; the rest does not come, and it is told nothing more.
        client.send(post("/ignore", "Content-Length: 100") + b"some")
        assert client.answer().status == 200
        assert client.at_end()


def test_early_hints_come_before_the_response_and_not_to_1_0(server: Server) -> None:
    with talk(server) as client:
        for _ in range(2):
            client.send(request("/hints"))
            hint = client.head()
            assert (hint.status, hint.headers) == (103, [("Link", "</style.css>; rel=preload")])
            assert client.head()["Link"] == "</script.js>; rel=preload"
            answer = client.answer()
            assert answer.status == 200
            assert answer["Link"] is None
            assert answer.body.startswith(b"refused: header Link has a control")
        answer = client.ask(request("/hints", version="HTTP/1.0"))
        assert answer.status == 200
        assert client.at_end()
