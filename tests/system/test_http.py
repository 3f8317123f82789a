"""HTTP/1.1 as it is spoken on the wire, to a real server by hand.

Where a test holds for one thread and for several, it is run with both: a request is then answered
by the main thread itself, or handed to another and its connection taken back.
"""

import hashlib
import json
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.support.processes import LISTEN, tcp_states
from tests.support.raw_http import Answer, Raw, chunked, request, talk
from tests.support.server import BRIDGED, Server, Start, servers
from tests.support.waiting import until

APP = "tests.apps.basic:app"
LIMITS = {
    "max_body": 200_000,
    "body_memory": 10_000,
    "max_request_line": 1000,
    "max_header_count": 50,
    "max_header_size": 8000,
}


def settings(section: str, **values: object) -> list[str]:
    """Arguments that set keys of a section."""
    return [arg for key, value in values.items() for arg in ("--set", f"{section}.{key}={value}")]


@pytest.fixture(
    scope="module", params=["1", "4", "asgi"], ids=["1 thread", "4 threads", "event loop"]
)
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    """One worker with small limits."""
    tmp = tmp_path_factory.mktemp("http")
    kind = BRIDGED if request.param == "asgi" else (APP, "--threads", request.param)
    for start in servers(tmp):
        yield start(
            *(*kind, "--workers", "1"),
            *settings("http", **LIMITS, keepalive=60, header_timeout=60),
            env={"TMPDIR": str(tmp)},
        ).wait_ready(1)


@contextmanager
def both(*managers: Any) -> Iterator[list[Any]]:
    with ExitStack() as stack:
        yield [stack.enter_context(manager) for manager in managers]


def environ_of(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    environ: dict[str, Any] = json.loads(answer.body)
    return environ


# The connection.


def test_a_connection_serves_many_requests_until_one_says_close(server: Server) -> None:
    with talk(server) as client:
        for number in range(5):
            answer = client.ask(request("/echo", method="POST", body=b"%d" % number))
            assert (answer.status, answer.body, answer.closes) == (200, b"%d" % number, False)
        assert client.ask(request("/pid", "Connection: close")).closes
        assert client.at_end()


def test_http_1_0_closes_unless_asked_to_stay(server: Server) -> None:
    with talk(server) as client:
        for _ in range(3):
            answer = client.ask(request("/pid", "Connection: keep-alive", version="HTTP/1.0"))
            assert answer["Connection"] == "keep-alive"
        answer = client.ask(request("/pid", version="HTTP/1.0"))
        assert answer.status == 200
        assert answer.closes
        assert client.at_end()


def test_a_length_that_nobody_knows_is_chunked_for_1_1_and_ends_with_the_connection_for_1_0(
    server: Server,
) -> None:
    body = b"".join(b"piece %d\n" % number for number in range(50))
    with talk(server) as client:
        for _ in range(2):
            answer = client.ask(request("/stream?n=50"))
            assert answer["Transfer-Encoding"] == "chunked"
            assert answer["Content-Length"] is None
            assert answer.body == body
        answer = client.ask(request("/stream?n=50", "Connection: keep-alive", version="HTTP/1.0"))
        assert answer["Transfer-Encoding"] is None
        assert answer.closes
        assert answer.body == body


def test_requests_in_one_packet_are_answered_in_their_order(server: Server) -> None:
    bodies = [b"body %d " % number * (number % 40) for number in range(300)]
    pipeline = b"".join(request("/echo", method="POST", body=body) for body in bodies)
    with talk(server) as client:
        client.send(pipeline)
        assert [client.answer().body for _ in bodies] == bodies
        assert client.ask(request("/nolength")).body == b"no length given"


def test_a_pipeline_of_all_kinds_of_answers_never_loses_step(server: Server) -> None:
    paths = ["/stream?n=3", "/big?n=100000", "/empty?status=204", "/nolength", "/missing", "/gen"]
    expected = []
    for path in paths:
        with talk(server) as client:
            answer = client.ask(request(path))
            expected.append((answer.status, answer.body))
    with talk(server) as client:
        client.send(b"".join(request(path) for path in paths * 5))
        for number in range(5 * len(paths)):
            answer = client.answer()
            assert (answer.status, answer.body) == expected[number % len(paths)]
        assert client.ask(request("/pid", "Connection: close")).status == 200
        assert client.at_end()


@pytest.mark.parametrize("before", [0, 1, 2])
def test_what_is_wrong_behind_a_request_is_answered_after_it(server: Server, before: int) -> None:
    with talk(server) as client:
        for _ in range(before):
            assert client.ask(request("/pid")).status == 200
        client.send(request("/pid") + b"\x00 what is this\r\n\r\n")
        assert client.answer().status == 200
        refusal = client.answer()
        assert (refusal.status, refusal.closes) == (400, True)
        assert client.at_end()


def test_what_follows_a_request_that_says_close_is_not_answered(server: Server) -> None:
    with talk(server) as client:
        client.send(request("/pid", "Connection: close") + request("/nolength") * 500)
        assert client.answer().closes
        assert client.at_end()


def test_a_request_may_be_cut_at_any_byte(server: Server) -> None:
    data = (
        request("/echo", "Transfer-Encoding: chunked", method="POST")
        + chunked(b"abc", b"defgh", trailer=b"X-Late: 1\r\n")
        + request("/echo", method="POST", body=b"second")
    )
    with both(*(talk(server) for _ in range(1, len(data)))) as clients, talk(server) as other:
        for cut, client in enumerate(clients, 1):
            client.send(data[:cut])
        # The worker takes what is ready in its order: when this is answered, it has read the
        # first parts, and holds them while it serves others.
        assert other.ask(request("/nolength")).status == 200
        for cut, client in enumerate(clients, 1):
            client.send(data[cut:])
        for client in clients:
            assert client.answer().body == b"abcdefgh"
            assert client.answer().body == b"second"


def test_a_client_that_shuts_its_sending_side_still_gets_its_answers(server: Server) -> None:
    with talk(server) as client:
        client.send(request("/big?n=3000000") + request("/nolength"))
        client.sock.shutdown(1)
        assert len(client.answer().body) == 3_000_000
        assert client.answer().body == b"no length given"
        assert client.at_end()


def test_an_upgrade_is_ignored(server: Server) -> None:
    if server.is_asgi:
        pytest.skip("does not apply: an ASGI application may take it")
    with talk(server) as client:
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        client.send(request("/nolength", *upgrade) + request("/nolength"))
        for _ in range(2):
            assert client.answer().body == b"no length given"
        assert client.ask(request("/pid")).status == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/stream", "/big?n=100000", "/nolength", "/file", "/file?memory=1", "/headers", "/empty"],
)
def test_head_is_get_without_the_body(server: Server, path: str) -> None:
    with talk(server) as client:
        got = client.ask(request(path))
        head = client.ask(request(path, method="HEAD"), "HEAD")
        assert (head.status, head.reason) == (got.status, got.reason)
        framing = ("content-length", "transfer-encoding", "date")
        assert [pair for pair in head.headers if pair[0].lower() not in framing] == [
            pair for pair in got.headers if pair[0].lower() not in framing
        ]
        assert head["Content-Length"] in (None, got["Content-Length"])
        assert client.ask(request("/nolength")).body == b"no length given"


# The request.


def test_the_environ_of_a_request(server: Server) -> None:
    with talk(server) as client:
        host, port = client.sock.getsockname()
        environ = environ_of(client.ask(request("/environ?a=%20b&c", "X-Mine: yes")))
    assert environ["REQUEST_METHOD"] == "GET"
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/environ")
    assert environ["QUERY_STRING"] == "a=%20b&c"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("127.0.0.1", str(server.port))
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == (host, str(port))
    assert (environ["HTTP_HOST"], environ["HTTP_X_MINE"]) == ("test", "yes")
    assert environ["wsgi.url_scheme"] == "http"
    assert "CONTENT_LENGTH" not in environ


def test_headers_as_the_application_sees_them(server: Server) -> None:
    with talk(server) as client:
        environ = environ_of(
            client.ask(
                request(
                    "/environ",
                    *("X-List: 1", "x-list: 2", "Cookie: a=1", "Cookie: b=2", "X-Latin: caf\xe9"),
                    *("X_Own_Name: spoofed", "X-Own-Name: true", "X-Padded: \t v \t"),
                )
            )
        )
    assert environ["HTTP_X_LIST"] == "1, 2"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_X_LATIN"] == "caf\xe9"
    assert environ["HTTP_X_OWN_NAME"] == "true"
    assert environ["HTTP_X_PADDED"] == "v"


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("/%65nviron?%20", "/environ", "%20", "test"),
        ("http://other:81/environ?q", "/environ", "q", "other:81"),
        ("HTTP://other/environ", "/environ", "", "other"),
        ("/environ?caf\xe9", "/environ", "caf\xe9", "test"),
    ],
)
def test_targets(server: Server, target: str, path: str, query: str, host: str) -> None:
    with talk(server) as client:
        environ = environ_of(client.ask(request(target)))
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)
    assert environ["HTTP_HOST"] == host
    if not server.is_asgi:
        assert environ["RAW_URI"] == target


def test_options_of_the_whole_server_reach_the_application(server: Server) -> None:
    with talk(server) as client:
        answer = client.ask(request("*", method="OPTIONS"))
        assert (answer.status, answer.body) == (200, client.ask(request("/")).body)


@pytest.mark.parametrize("method", ["VERSION-CONTROL", "LABEL", "BAN", "QUERY", "get", "X_Y~1"])
def test_a_method_of_any_name_reaches_the_application(server: Server, method: str) -> None:
    with talk(server) as client:
        body = b"for a method that nobody knows"
        environ = environ_of(client.ask(request("/environ", method=method, body=body)))
        assert environ["REQUEST_METHOD"] == method
        assert client.ask(request("/echo", method=method, body=body)).body == body


UPGRADES = {
    "HTTP/2": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    "WebSocket": ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: AAAA"),
    "an upgrade without a Connection": ("Upgrade: h2c",),
}


@pytest.mark.parametrize("name", UPGRADES)
def test_an_upgrade_is_ignored_and_the_next_request_is_read_right(
    server: Server, name: str
) -> None:
    """RFC 9110 section 7.8."""
    if server.is_asgi and name == "WebSocket":
        pytest.skip("does not apply: an ASGI application may take it")
    lines = UPGRADES[name]
    coding = "Transfer-Encoding: chunked"
    inner = request("/smuggled")
    with talk(server) as client:
        for sent, body in (
            (request("/echo", *lines), b""),
            (request("/echo", *lines, method="POST", body=inner), inner),
            (request("/echo", *lines, coding, method="POST") + chunked(inner, b"x"), inner + b"x"),
        ):
            client.send(sent + request("/nolength"))
            answer = client.answer()
            assert (answer.status, answer.body, answer.closes) == (200, body, False)
            assert client.answer().body == b"no length given"


def test_a_chunked_body_is_a_plain_one_for_the_application(server: Server) -> None:
    if server.is_asgi:
        pytest.skip("does not apply: its length is not known when an ASGI application is called")
    head = request("/environ", "Transfer-Encoding: chunked", method="POST")
    with talk(server) as client:
        body = chunked(b"a" * 10, b"b" * 5, trailer=b"X-Late: 1\r\nContent-Type: evil\r\n")
        environ = environ_of(client.ask(head + body))
        assert environ["CONTENT_LENGTH"] == "15"
        assert "HTTP_TRANSFER_ENCODING" not in environ
        assert "HTTP_X_LATE" not in environ
        assert "CONTENT_TYPE" not in environ
        assert client.ask(head.replace(b"environ", b"echo", 1) + chunked()).body == b""
        # An extension, a size with zeros and letters of both cases.
        body = b"00a;x=y\r\n0123456789\r\n0B\r\nabcdefghijk\r\n0\r\n\r\n"
        answer = client.ask(head.replace(b"environ", b"echo", 1) + body)
        assert answer.body == b"0123456789abcdefghijk"


def test_100_is_sent_to_a_client_that_waits_for_it(server: Server) -> None:
    with talk(server) as client:
        for _ in range(2):
            head = request("/echo", "Expect: 100-continue", "Content-Length: 5", method="POST")
            assert client.ask(head).status == 100
            assert client.ask(b"hello").body == b"hello"
        head = request("/echo", "Expect: 100-continue", "Transfer-Encoding: chunked", method="POST")
        assert client.ask(head).status == 100
        assert client.ask(chunked(b"hello")).body == b"hello"


@pytest.mark.parametrize(
    ("status", "head"),
    [
        (413, request("/echo", "Expect: 100-continue", "Content-Length: 200001", method="POST")),
        (417, request("/echo", "Expect: the-unexpected", "Content-Length: 5", method="POST")),
        (417, request("/pid", "Expect: the-unexpected")),
    ],
)
def test_the_final_answer_comes_at_once_where_the_body_will_not_be_read(
    server: Server, status: int, head: bytes
) -> None:
    with talk(server) as client:
        answer = client.ask(head)
        assert (answer.status, answer.closes) == (status, True)
        assert client.at_end()


def test_no_100_to_a_client_of_1_0_or_one_that_did_not_wait(server: Server) -> None:
    with talk(server) as client:
        data = request("/echo", "Expect: 100-continue", method="POST", body=b"hello")
        assert client.ask(data).body == b"hello"
        head = data.removesuffix(b"hello").replace(b"HTTP/1.1", b"HTTP/1.0")
        client.send(head)
        with talk(server) as other:
            assert other.ask(request("/pid")).status == 200  # the head was read before this
        assert client.ask(b"hello").body == b"hello"


# What is refused.

REFUSED = {
    "no host": (400, b"GET /pid HTTP/1.1\r\n\r\n"),
    "two hosts": (400, request("/pid", "Host: other")),
    "length and coding": (
        400,
        request("/echo", "Transfer-Encoding: chunked", method="POST", body=b"abc"),
    ),
    "a coding in 1.0": (
        400,
        request("/echo", "Transfer-Encoding: chunked", method="POST", version="HTTP/1.0"),
    ),
    "no HTTP": (400, b"\x16\x03\x01 hello \r\n\r\n"),
    "a bad chunk": (400, request("/echo", "Transfer-Encoding: chunked", method="POST") + b"no\r\n"),
    "a long body": (413, request("/echo", method="POST", body=b"x" * 200_001)),
    "a long chunked body": (
        413,
        request("/echo", "Transfer-Encoding: chunked", method="POST")
        + chunked(b"x" * 200_000, b"y"),
    ),
    "a long target": (414, request("/" + "a" * 1000)),
    "many headers": (431, request("/pid", *(f"X-{number}: 1" for number in range(50)))),
    "long headers": (431, request("/pid", "X: " + "a" * 8000)),
    "a method that is no token": (400, request("/pid", method="BR@W")),
    "CONNECT": (501, request("test:443", method="CONNECT")),
    "an unknown coding": (501, request("/echo", "Transfer-Encoding: gzip", method="POST")),
    "HTTP/2.0": (505, request("/pid", version="HTTP/2.0")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_why_and_ends_the_connection(server: Server, name: str) -> None:
    status, data = REFUSED[name]
    with talk(server) as client:
        assert client.ask(request("/nolength")).body == b"no length given"
        client.send(data + request("/nolength"))
        refusal = client.answer()
        assert (refusal.status, refusal.closes) == (status, True)
        assert refusal["Content-Type"] == "text/plain; charset=utf-8"
        assert refusal.body.startswith(b"%d " % status)
        assert client.at_end()


def test_a_refusal_comes_after_the_answers_to_what_stood_before_it(server: Server) -> None:
    with talk(server) as client:
        client.send(request("/nolength") * 3 + b"nonsense\r\n\r\n" + request("/nolength"))
        for _ in range(3):
            assert client.answer().body == b"no length given"
        assert client.answer().status == 400
        assert client.at_end()


def test_a_refusal_of_head_has_no_body(server: Server) -> None:
    with talk(server) as client:
        client.send(request("/pid", "Expect: the-unexpected", method="HEAD"))
        assert client.answer("HEAD").status == 417
        assert client.at_end()


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_a_refusal_can_be_read_by_a_client_that_sends_ten_megabytes_first(
    server: Server, coding: str
) -> None:
    piece = b"x" * 1_000_000
    with talk(server) as client:
        if coding == "length":
            client.send(request("/echo", "Content-Length: 10000000", method="POST"))
            for _ in range(10):
                client.send(piece)  # a reset would show here or below
        else:
            client.send(request("/echo", "Transfer-Encoding: chunked", method="POST"))
            for _ in range(10):
                client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            client.send(b"0\r\n\r\n")
        assert client.answer().status == 413
        assert client.at_end()


def test_a_refused_client_that_sends_for_ever_or_never_closes_is_cut_off(start: Start) -> None:
    server = start(APP, "--workers", "1", *settings("http", **LIMITS)).wait_ready(1)
    (worker,) = server.workers()
    refused = request("/echo", "Content-Length: 1000000000000", method="POST")
    with talk(server) as endless, talk(server) as silent:
        assert silent.ask(refused).status == 413
        piece = b"x" * 1_000_000
        endless.send(refused)

        def go_on() -> None:
            for _ in range(1000):
                endless.send(piece)

        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            go_on()
        until(
            lambda: tcp_states(worker.pid, server.port) == [LISTEN],
            "the worker holds no connection any more",
        )


# Bodies.


@pytest.mark.parametrize("size", [0, 1, 9_999, 10_000, 10_001, 199_999, 200_000])
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_bodies_up_to_the_limit_arrive_as_they_were_sent(
    server: Server, size: int, coding: str
) -> None:
    body = random.Random(size).randbytes(size)
    if coding == "length":
        data = request("/digest", method="POST", body=body)
    else:
        pieces = [body[at : at + 7_000] for at in range(0, size, 7_000)]
        data = request("/digest", "Transfer-Encoding: chunked", method="POST") + chunked(*pieces)
    with talk(server) as client:
        told = json.loads(client.ask(data).body)
        assert told == {"size": size, "sha256": hashlib.sha256(body).hexdigest()}
        assert client.ask(request("/nolength")).status == 200


def temporary_files(server: Server, place: Path) -> list[str]:
    """The deleted files in a directory that the worker holds open."""
    (worker,) = server.workers()
    held = []
    for fd in Path(f"/proc/{worker.pid}/fd").iterdir():
        try:
            target = os.readlink(fd)
        except FileNotFoundError:
            continue
        if target.startswith(str(place)) and target.endswith(" (deleted)"):
            held.append(target)
    return held


def test_a_body_is_on_disk_only_beyond_body_memory_and_the_next_ones_have_its_file(
    start: Start, tmp_path: Path
) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    server = start(
        *(APP, "--workers", "1", *settings("http", body_memory=10_000)),
        env={"TMPDIR": str(place)},
    ).wait_ready(1)
    with talk(server) as small, talk(server) as large:
        small.send(request("/digest", method="POST", body=b"x" * 10_000)[:-1])
        large.send(request("/digest", method="POST", body=b"x" * 20_000)[:-1])
        (file,) = until(lambda: temporary_files(server, place), "a file for the large body")
        for client in (small, large):
            assert client.ask(b"x").status == 200
        for size in (20_000, 10_001, 3_000_000):
            body = random.Random(size).randbytes(size)
            told = json.loads(large.ask(request("/digest", method="POST", body=body)).body)
            assert told == {"size": size, "sha256": hashlib.sha256(body).hexdigest()}
            assert temporary_files(server, place) == [file]
    assert not list(place.iterdir())


def test_what_the_server_imports_late_is_never_the_applications(
    start: Start, tmp_path: Path
) -> None:
    for name in ("difflib", "tempfile"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('of the application')\n")
    (tmp_path / "mine.py").write_text("from tests.apps.basic import app\n")
    args = ("--workers", "1", *settings("server", chdir=tmp_path))
    small = settings("http", body_memory=1000)
    with talk(start("mine:app", *args, *small).wait_ready(1)) as client:
        answer = client.ask(request("/digest", method="POST", body=b"x" * 2000))
        assert json.loads(answer.body)["size"] == 2000
    wrong = start("mine:ap", *args)
    wrong.expected_errors.add("first boot failed")
    assert wrong.wait("first boot failed")["traceback"].endswith("did you mean 'app'?")
    assert wrong.wait_exit() == 3


def test_no_more_of_the_disk_is_taken_than_allowed(start: Start) -> None:
    """A body is refused, a response waits for its client, and both may have it later."""
    server = start(
        *(APP, "--workers", "1"),
        *settings("http", body_memory=1000, response_memory=1000, buffer_disk=100_000),
    ).wait_ready(1)

    def upload(size: int) -> bytes:
        return request("/digest", method="POST", body=b"x" * size)

    with talk(server) as first, talk(server) as second:
        first.send(upload(80_000)[:-1])
        refusal = second.ask(upload(50_000))
        assert (refusal.status, refusal.closes) == (507, True)
        assert b"the body can't be kept" in refusal.body
        assert second.at_end()
        server.wait("body refused", reason="the body can't be kept: no more room for it")
        assert first.ask(b"x").status == 200
    with talk(server, receive_buffer=SMALL) as slow, talk(server) as third:
        assert third.ask(upload(100_000)).status == 200
        slow.send(request(STREAM))
        assert slow.answer().body == STREAMED
        assert third.ask(upload(100_000)).status == 200


# Slow readers.

SMALL_BUFFERS = settings("http", response_memory=65_536)
SMALL = 65_536


STREAM = "/stream?n=8000&size=1000"
STREAMED = b"".join((b"piece %d\n" % number).rjust(1000) for number in range(8000))
"""More than the kernel takes for a client that does not read."""


@pytest.mark.parametrize("threads", ["1", "4"])
def test_slow_readers_keep_no_client_waiting_and_get_every_byte_in_order(
    start: Start, threads: str, tmp_path: Path
) -> None:
    """Their answers are finished from the epoll: from memory, from disk, and from a file."""
    stored = tmp_path / "stored"
    stored.write_bytes(random.Random(1).randbytes(9_000_000))
    server = start(
        APP, "--workers", "1", "--threads", threads, *SMALL_BUFFERS, *settings("http", max_body=0)
    ).wait_ready(1)
    sent = random.Random(2).randbytes(8_000_000)
    slow = [
        (request("/echo", method="POST", body=sent), sent),
        (request(STREAM), STREAMED),
        (request(f"/file?path={stored}"), stored.read_bytes()),
        (request("/big?n=8000000"), b"x" * 8_000_000),
    ] * 3
    with both(*(talk(server, receive_buffer=SMALL) for _ in slow)) as clients:
        for client, (data, _) in zip(clients, slow, strict=True):
            client.send(data)
            assert client.head().status == 200
        with talk(server) as good:
            for _ in range(50):
                assert good.ask(request("/nolength")).status == 200
        for client, (data, body) in zip(clients, slow, strict=True):
            # From the beginning: a second answer on the same connection, read as it comes.
            client.send(request("/nolength"))
            rest = body_after_head(client, data)
            assert rest == body
            assert client.answer().body == b"no length given"


def body_after_head(client: Raw, data: bytes) -> bytes:
    if b"/stream" in data:
        return b"".join(client.chunks())
    size = 9_000_000 if b"/file" in data else 8_000_000
    return client.exactly(size)


def test_a_worker_waits_for_a_reader_of_what_it_cannot_keep(start: Start) -> None:
    server = start(
        *(APP, "--workers", "1", *SMALL_BUFFERS, *settings("http", response_spill=100_000)),
    ).wait_ready(1)
    with talk(server, receive_buffer=SMALL) as client:
        assert len(client.ask(request("/big?n=12000000")).body) == 12_000_000
        answer = client.ask(request(STREAM))
        assert answer.body == STREAMED
        assert client.ask(request("/nolength")).status == 200


@pytest.mark.parametrize("spill", [100_000, 64_000_000], ids=["the worker waits", "from the epoll"])
def test_who_takes_nothing_is_cut_off_at_the_write_timeout(start: Start, spill: int) -> None:
    server = start(
        *(APP, "--workers", "1", *SMALL_BUFFERS),
        *settings("http", response_spill=spill, write_timeout=0.3, keepalive=60),
    ).wait_ready(1)
    with talk(server, receive_buffer=SMALL) as client, talk(server) as good:
        assert good.ask(request("/nolength")).status == 200
        client.send(request("/big?n=20000000"))
        assert client.head().status == 200
        (worker,) = server.workers()
        until(lambda: len(tcp_states(worker.pid, server.port)) == 2, "connection and listener")
        assert good.ask(request("/nolength")).status == 200
        with pytest.raises((AssertionError, ConnectionResetError)):
            client.exactly(20_000_000)


# Time.


def test_an_idle_connection_is_closed_after_keepalive(start: Start) -> None:
    server = start(
        APP, "--workers", "1", *settings("http", keepalive=0.3, header_timeout=60)
    ).wait_ready(1)
    with talk(server) as client:
        assert client.ask(request("/pid")).status == 200
        assert client.at_end()


def test_408_for_a_head_or_a_body_that_does_not_come_and_nothing_for_no_request_at_all(
    start: Start,
) -> None:
    server = start(
        *(APP, "--workers", "1"),
        *settings("http", keepalive=60, header_timeout=0.3, body_timeout=0.3),
    ).wait_ready(1)
    begun = [
        b"GET /pid HTTP/1.1\r\nHost:",
        request("/echo", "Content-Length: 5", method="POST") + b"abc",
        request("/echo", "Transfer-Encoding: chunked", method="POST") + b"5\r\nab",
    ]
    with both(*(talk(server) for _ in begun)) as clients:
        for client, data in zip(clients, begun, strict=True):
            client.send(data)
        for client in clients:
            answer = client.answer()
            assert (answer.status, answer.closes) == (408, True)
            assert client.at_end()
    with talk(server) as client:
        # The answer to a first request is not needed for the time limit on a second.
        assert client.ask(request("/pid")).status == 200
        assert client.ask(request("/pid")[:-2]).status == 408
        assert client.at_end()
    with talk(server) as silent:
        assert silent.at_end()


def passed(time: float) -> bool:
    return monotonic() > time


def test_a_request_that_came_in_time_is_served_however_late_its_worker_has_time(
    start: Start, tmp_path: Path
) -> None:
    """A deadline passes while the only thread is in the application: the bytes count, not it."""
    server = start(APP, "--workers", "1", *settings("http", keepalive=1)).wait_ready(1)
    held = tmp_path / "held"
    for _ in range(20):
        with talk(server) as client, talk(server) as busy:
            assert client.ask(request("/nolength")).status == 200
            limit = monotonic() + 1
            busy.send(request(f"/hold?path={held}"))
            until(held.exists, "the worker is in the application")
            client.send(request("/nolength"))
            in_time = monotonic() < limit - 0.1
            if in_time:
                until(partial(passed, limit + 0.5), "the deadline is over")
            held.unlink()
            assert busy.answer().status == 200
            if in_time:
                assert client.answer().body == b"no length given"
                return
    raise AssertionError("this machine never sends within a second")


# All together.


def test_ten_thousand_requests_over_fifty_connections_are_all_right(start: Start) -> None:
    server = start(APP, "--workers", "2").wait_ready(2)
    pids = set()
    with both(*(talk(server) for _ in range(50))) as clients:
        for round_ in range(100):
            for number, client in enumerate(clients):
                body = b"%d of %d " % (round_, number) * (round_ % 30)
                client.send(request("/echo", method="POST", body=body) + request("/pid"))
            for number, client in enumerate(clients):
                body = b"%d of %d " % (round_, number) * (round_ % 30)
                answer = client.answer()
                assert (answer.status, answer.body) == (200, body)
                answer = client.answer()
                assert answer.status == 200
                pids.add(answer.body)
    # Who got how many is not asked: on a busy machine one may be kept from its place.
    assert pids <= {str(worker.pid).encode() for worker in server.workers()}
