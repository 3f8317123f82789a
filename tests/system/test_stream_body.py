"""`stream_body`: the application has a request before its body is there. And early hints."""

import hashlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from prefork import linux
from tests.support.certificates import Authority, talk_tls
from tests.support.load import Gate
from tests.support.raw_http import chunked, request, talk
from tests.support.server import Server, Start, servers
from tests.support.waiting import until
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


def test_much_that_is_left_unread_ends_the_connection_and_no_reset_eats_the_answer(
    server: Server,
) -> None:
    piece = b"x" * 1_000_000
    with talk(server) as client:
        client.send(post("/first", "Content-Length: 10000000") + piece)
        for _ in range(9):
            client.send(piece)
        answer = client.answer()
        assert (answer.body, answer.closes) == (b"xxxxx", True)
        assert client.at_end()


@pytest.mark.parametrize("early", [True, False])
def test_a_connection_that_is_said_to_be_kept_is_kept(server: Server, early: bool) -> None:
    """The response says so before the end of a chunked body is known, and all of it is drained."""
    piece = chunked(b"x" * 1_000_000).removesuffix(b"0\r\n\r\n")
    with talk(server) as client:
        for _ in range(2):
            client.send(post("/first", CHUNKED) + piece)
            if early:
                assert client.answer().body == b"xxxxx"
            for _ in range(9):
                client.send(piece)
            client.send(b"0\r\n\r\n")
            if not early:
                answer = client.answer()
                assert (answer.body, answer.closes) == (b"xxxxx", False)
        assert client.ask(post("/first", body=b"after it")).body == b"after"


def test_a_body_that_is_drained_has_the_limits_of_a_body(server: Server) -> None:
    """Nobody answers a client that has its answer: the connection ends."""
    with talk(server) as client:
        client.send(post("/first", CHUNKED) + b"5\r\nhello\r\n")
        assert client.answer().body == b"hello"
        client.send(b"1c9c381\r\n" + b"x" * 30_000_001)
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


METHODS = (
    *("read(n)", "read(more than there is)", "read1", "readline", "readline(n)", "readinto"),
    *("iteration", "read()", "readlines"),
)


def half_of(coding: str) -> tuple[bytes, bytes]:
    """Lines, and a request that ends in the middle of one, after less than it has promised."""
    sent = b"".join(b"%06d\n" % number for number in range(20_000)) + b"half a l"
    if coding == "length":
        return sent, b"Content-Length: 300000\r\n\r\n" + sent
    data = chunked(sent[:50_000], sent[50_000:]).removesuffix(b"0\r\n\r\n")
    return sent, b"Transfer-Encoding: chunked\r\n\r\n" + data


def target_of(tmp_path: Path, by: str, gate: Gate | None = None) -> tuple[Path, bytes]:
    """The file in which the application keeps what it gets, and the first lines of a request."""
    file = tmp_path / "kept"
    query = urlencode({"file": file, "by": by, "gate": gate.path if gate else ""})
    return file, f"POST /kept?{query} HTTP/1.1\r\nHost: t\r\n".encode()


@pytest.mark.parametrize("by", METHODS)
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_the_application_gets_all_that_has_come_before_it_gets_the_error(
    server: Server, tmp_path: Path, coding: str, by: str
) -> None:
    file, head = target_of(tmp_path, by)
    sent, rest = half_of(coding)
    with talk(server) as client:
        client.send(head + rest)
    until(file.exists, "the application has kept what has come")
    end, _, kept = file.read_bytes().partition(b"\n")
    assert (end, len(kept)) == (b"the client is gone", len(sent))
    assert kept == sent


@pytest.mark.parametrize("by", METHODS)
def test_a_body_that_comes_whole_is_read_to_its_end(
    server: Server, tmp_path: Path, by: str
) -> None:
    file, head = target_of(tmp_path, by)
    sent = b"".join(b"%06d\n" % number for number in range(20_000))
    for framed in (
        b"Content-Length: %d\r\n\r\n%b" % (len(sent), sent),
        b"Transfer-Encoding: chunked\r\n\r\n" + chunked(sent[:99_999], sent[99_999:]),
    ):
        with talk(server) as client:
            assert client.ask(head + framed).status == 200
        assert file.read_bytes() == b"whole\n" + sent
        file.unlink()


def test_also_after_a_reset(server: Server, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    file, head = target_of(tmp_path, "read(n)", gate)
    sent, rest = half_of("length")
    with talk(server) as client:
        client.send(head + rest[: -len(sent) + 50_000])
        gate.arrived()
        until(lambda: linux.not_acknowledged(client.sock.fileno()) == 0, "all has arrived")
        linux.reset_connection(client.sock.fileno())
    gate.open()
    until(file.exists, "the application has kept what has come")
    end, _, kept = file.read_bytes().partition(b"\n")
    assert end == b"the client is gone"
    assert kept == sent[:50_000]


@pytest.mark.parametrize(
    ("more", "end"),
    [(b"zz\r\n", b"chunk"), (b"", b"the request did not come in time")],
    ids=["a bad chunk", "silence"],
)
def test_also_if_the_client_is_wrong_or_silent(
    start: Start, tmp_path: Path, more: bytes, end: bytes
) -> None:
    server = start(
        *(APP, "--workers", "1"), *settings("http", stream_body="true", body_timeout=0.3)
    ).wait_ready(1)
    file, head = target_of(tmp_path, "read(n)")
    sent, rest = half_of("chunked")
    with talk(server) as client:
        client.send(head + rest + more)
        assert client.answer().status == 200
    told, _, kept = file.read_bytes().partition(b"\n")
    assert end in told
    assert kept == sent


def test_also_over_tls(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("server.pem", "localhost")
    server = start(
        *(APP, "--workers", "1"),
        *settings("http", stream_body="true"),
        *settings("tls", certificate=str(certificate)),
    ).wait_ready(1)
    file, head = target_of(tmp_path, "read(n)")
    sent, rest = half_of("chunked")
    with talk_tls(server, authority.client()) as client:
        client.send(head + rest)
        client.sock.shutdown(socket.SHUT_WR)
        until(file.exists, "the application has kept what has come")
    assert file.read_bytes() == b"the client is gone\n" + sent


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
