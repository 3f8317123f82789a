"""Bytes to requests, without a socket: each test is named by what a client sends."""

import gc
import os
import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest

from prefork.http.disk_budget import DiskBudget
from prefork.http.limits import RequestLimits
from prefork.http.reader import RequestReader
from prefork.http.request import Request
from prefork.http.whole_heads import WholeHeads
from tests.unit.reading import taken

HOST = b"Host: test\r\n"
LIMITS = RequestLimits(
    request_line=1000, header_count=20, header_size=4000, body=1000, body_memory=100
)
UNLIMITED = RequestLimits(0, 0, 0, 0, 0)


BASE = {"wsgi.base": "here", "REMOTE_ADDR": "", "REMOTE_PORT": ""}


@pytest.fixture(params=[0, 2], ids=["new heads", "known heads"], autouse=True)
def known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test with bytes that come for the first time, and with such as came before."""
    monkeypatch.setattr(sys.modules[__name__], "times_before", request.param)


times_before = 0


class Connection:
    """A reader, and all the requests that were taken from it."""

    def __init__(self, limits: RequestLimits, heads: WholeHeads | None) -> None:
        self.reader = RequestReader(BASE, limits)
        self.reader.heads = heads
        self.requests: list[Request] = []

    def feed(self, data: bytes) -> None:
        self.requests += taken(self.reader, data)


def fed(*pieces: bytes, limits: RequestLimits = LIMITS) -> Connection:
    heads = WholeHeads() if times_before else None
    for _ in range(times_before + 1):
        connection = Connection(limits, heads)
        for piece in pieces:
            connection.feed(piece)
    return connection


def get(*headers: bytes, target: bytes = b"/", version: bytes = b"HTTP/1.1") -> bytes:
    lines = [b"GET " + target + b" " + version, b"Host: test", *headers]
    return b"\r\n".join([*lines, b"", b""])


def post(body: bytes, *headers: bytes) -> bytes:
    head = get(b"Content-Length: %d" % len(body), *headers)
    return head.replace(b"GET", b"POST", 1) + body


def chunked(body: bytes, *headers: bytes) -> bytes:
    return (
        get(b"Transfer-Encoding: chunked", *headers).replace(b"GET", b"POST", 1)
        + body
        + b"0\r\n\r\n"
    )


def only(connection: Connection) -> Request:
    assert connection.reader.error is None
    (request,) = connection.requests
    return request


def seen(connection: Connection) -> list[tuple[dict[str, Any], bytes, bool]]:
    """What an application would see of each request."""
    return [
        (
            {key: value for key, value in request.environ.items() if key != "wsgi.input"},
            request.environ["wsgi.input"].read(),
            request.keep_alive,
        )
        for request in connection.requests
    ]


STREAMS = {
    "get": get(b"X-A: 1", target=b"/a%20b?c=d"),
    "length": post(b"a body of some length"),
    "chunked": chunked(b"5;ext=1\r\nhello\r\n1\r\n!\r\n"),
    "trailers": chunked(b"3\r\nabc\r\n").removesuffix(b"\r\n") + b"X-Late: 1\r\n\r\n" + get(),
    "pipeline": get() + post(b"two") + chunked(b"1\r\n3\r\n") + get(target=b"/4"),
    "upgrade": get(b"Connection: Upgrade", b"Upgrade: h2c") + get(target=b"/next"),
    "empty lines": b"\r\n\r\n" + get() + b"\r\n" + get(),
    "closing": get(b"Connection: close"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_requests_cut_at_any_byte_are_the_same_requests(name: str) -> None:
    stream = STREAMS[name]
    whole = seen(fed(stream))
    assert whole
    for position in range(1, len(stream)):
        connection = fed(stream[:position], stream[position:])
        assert seen(connection) == whole, position
        assert connection.reader.error is None
    drip: Iterator[bytes] = (stream[at : at + 1] for at in range(len(stream)))
    assert seen(fed(*drip)) == whole


def test_what_the_application_sees_of_a_request() -> None:
    request = only(fed(post(b"abc", b"Content-Type: text/x", b"X-Some-Name: v")))
    assert request.environ.pop("wsgi.input").read() == b"abc"
    assert request.environ == {
        **BASE,
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "RAW_URI": "/",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "test",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "3",
        "HTTP_X_SOME_NAME": "v",
    }
    assert request.line == b"POST /"


def test_one_request_never_sees_the_headers_of_another() -> None:
    first, second = fed(get(b"X-A: 1") + get(b"X-B: 2")).requests
    assert "HTTP_X_B" not in first.environ
    assert "HTTP_X_A" not in second.environ


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        ((b"X-A: 1", b"x-a: 2", b"X-A: 3"), "HTTP_X_A", "1, 2, 3"),
        ((b"Cookie: a=1", b"Cookie: b=2"), "HTTP_COOKIE", "a=1; b=2"),
        ((b"X-A:   padded \t",), "HTTP_X_A", "padded"),
        ((b"X-A:",), "HTTP_X_A", ""),
        ((b"X-A: caf\xe9",), "HTTP_X_A", "caf\xe9"),
    ],
)
def test_header_values(lines: tuple[bytes, ...], key: str, value: str) -> None:
    assert only(fed(get(*lines))).environ[key] == value


def test_a_name_with_an_underscore_neither_replaces_nor_joins_the_one_with_a_hyphen() -> None:
    for lines in ((b"X_A: spoof", b"X-A: 1"), (b"X-A: 1", b"X_A: spoof"), (b"X-A: 1", b"X_a: s")):
        environ = only(fed(get(*lines))).environ
        assert environ["HTTP_X_A"] == "1"
        assert "spoof" not in environ.values()
        assert "" not in environ
    assert "CONTENT_LENGTH" not in only(fed(get(b"Content_Length: 5"))).environ


def test_trailers_are_dropped() -> None:
    request = only(
        fed(chunked(b"3\r\nabc\r\n").removesuffix(b"\r\n") + b"X-T: 1\r\nContent-Type: x\r\n\r\n")
    )
    assert "HTTP_X_T" not in request.environ
    assert "CONTENT_TYPE" not in request.environ


def test_a_chunked_body_is_given_as_one_of_known_length() -> None:
    environ = only(fed(chunked(b"3\r\nabc\r\n4\r\ndefg\r\n"))).environ
    assert environ["CONTENT_LENGTH"] == "7"
    assert "HTTP_TRANSFER_ENCODING" not in environ
    assert environ["wsgi.input"].read() == b"abcdefg"


@pytest.mark.parametrize(
    ("version", "header", "kept"),
    [
        (b"HTTP/1.1", b"X: y", True),
        (b"HTTP/1.1", b"Connection: close", False),
        (b"HTTP/1.1", b"Connection: keep-alive, Close", False),
        (b"HTTP/1.0", b"X: y", False),
        (b"HTTP/1.0", b"Connection: keep-alive", True),
    ],
)
def test_whether_the_connection_is_kept(version: bytes, header: bytes, kept: bool) -> None:
    connection = fed(get(header, version=version))
    assert only(connection).keep_alive is kept
    assert connection.reader.last is not kept


def test_the_method_of_what_is_being_read() -> None:
    connection = fed(get().replace(b"GET", b"HEAD"))
    assert connection.reader.method == "GET"
    connection.feed(b"HEAD / HTTP/1.1\r\n")
    assert connection.reader.method == "HEAD"


def test_what_follows_a_last_request_is_not_read() -> None:
    connection = fed(get(b"Connection: close") + get(target=b"/smuggled"))
    assert only(connection).line == b"GET /"
    assert connection.reader.surplus
    connection = fed(get(b"Connection: close"), get(target=b"/smuggled"))
    assert only(connection).line == b"GET /"
    assert connection.reader.surplus


# Rejections. What stood before a bad request is served first.

MANY = [b"X-%d: 1" % number for number in range(30)]
REJECTED = {
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, get(b"Host: other")),
    "a space in a header name": (400, get(b"A b: 1")),
    "a space before the colon": (400, get(b"Accept : 1")),
    "a folded header": (400, get(b" folded")),
    "a control character": (400, get(b"X: a\x01b")),
    "bare line feeds": (400, b"GET / HTTP/1.1\nHost: test\n\n"),
    "a path of garbage": (400, get(target=b"nowhere")),
    "an asterisk with GET": (400, get(target=b"*")),
    "an absolute form without a host": (400, get(target=b"http:///path")),
    "a scheme of another kind": (400, get(target=b"ftp://test/path")),
    "bytes that are no HTTP": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "a length that is none": (400, post(b"abc").replace(b": 3", b": 3x")),
    "a signed length": (400, post(b"abc").replace(b": 3", b": +3")),
    "an empty length": (400, post(b"abc").replace(b": 3", b":")),
    "two lengths": (400, post(b"abc", b"Content-Length: 3")),
    "a list of lengths": (400, post(b"abc").replace(b": 3", b": 3, 3")),
    "a length beyond all numbers": (400, post(b"").replace(b": 0", b": " + b"9" * 30)),
    "length and coding": (400, chunked(b"", b"Content-Length: 3")),
    "coding and length": (400, post(b"abc", b"Transfer-Encoding: chunked")),
    "a coding in HTTP/1.0": (400, chunked(b"").replace(b"/1.1", b"/1.0")),
    "a chunk size that is none": (400, chunked(b"zz\r\n")),
    "a chunk that is too long": (400, chunked(b"1\r\nabc\r\n")),
    "a length over the limit": (413, post(b"x" * 1001)),
    "chunks over the limit": (413, chunked(b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\ny\r\n")),
    "a long request line": (414, get(target=b"/" + b"a" * 990)),
    "a request line without an end": (414, b"GET /" + b"a" * 20_000),
    "an unknown expectation": (417, post(b"abc", b"Expect: magic")),
    "an unknown expectation of nobody": (417, get(b"Expect: magic")),
    "many headers": (431, get(*MANY)),
    "many headers of one name": (431, get(*[b"X: 1"] * 30)),
    "many headers that are dropped": (431, get(*[b"X_Y: 1"] * 30)),
    "large headers": (431, get(b"X: " + b"a" * 4100)),
    "headers without an end": (431, get(b"X: " + b"a" * 20_000)[:-4]),
    "CONNECT": (501, b"CONNECT test:443 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "a coding that nobody knows": (501, chunked(b"").replace(b"chunked", b"gzip")),
    "two codings": (501, chunked(b"").replace(b"chunked", b"gzip, chunked")),
    "HTTP/2.0": (505, get(version=b"HTTP/2.0")),
    "the preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/0.9": (505, b"GET /\r\n\r\n"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_a_request_that_is_rejected(name: str) -> None:
    status, data = REJECTED[name]
    connection = fed(get(target=b"/before"), data)
    assert connection.reader.error is not None
    assert connection.reader.error.status == status, connection.reader.error.reason
    assert connection.reader.error.reason
    assert [request.line for request in connection.requests] == [b"GET /before"]
    connection.feed(get(target=b"/after"))
    assert len(connection.requests) == 1
    assert connection.reader.surplus


@pytest.mark.parametrize("name", REJECTED)
def test_a_rejection_does_not_depend_on_how_the_bytes_came(name: str) -> None:
    status, data = REJECTED[name]
    connection = fed(*(data[at : at + 1] for at in range(len(data))))
    assert not connection.requests
    assert connection.reader.error is not None
    assert connection.reader.error.status == status, connection.reader.error.reason


@pytest.mark.parametrize("method", [b"BREW", b"GETS", b"PRIX", b"VERSION-CONTROL", b"get"])
def test_any_method_is_served_also_behind_another_request(method: bytes) -> None:
    connection = fed(get() + get().replace(b"GET", method) + get())
    assert connection.reader.error is None
    assert [each.method for each in connection.requests] == ["GET", method.decode(), "GET"]


def test_nonsense_behind_another_request_is_400() -> None:
    error = fed(get() + b"\x16\x03\x01").reader.error
    assert error is not None
    assert error.status == 400


def test_a_request_at_each_limit_is_served_and_one_over_it_is_not() -> None:
    line = get(target=b"/" + b"a" * (1000 - len(b"GET / HTTP/1.1")))
    assert only(fed(line)).environ["PATH_INFO"].startswith("/aaa")
    assert fed(line.replace(b"/a", b"/aa", 1)).reader.error is not None

    # Host is one of them.
    assert only(fed(get(*MANY[:19])))
    assert fed(get(*MANY[:20])).reader.error is not None

    assert only(fed(post(b"x" * 1000))).environ["wsgi.input"].read() == b"x" * 1000
    assert (
        only(fed(chunked(b"3e8\r\n" + b"x" * 1000 + b"\r\n"))).environ["CONTENT_LENGTH"] == "1000"
    )

    room = 4000 - len(b"Host: test\r\nX: \r\n")
    assert only(fed(get(b"X: " + b"a" * room)))
    assert fed(get(b"X: " + b"a" * (room + 1))).reader.error is not None


def test_without_limits_everything_is_taken() -> None:
    long = b"a" * 100_000
    head = get(*[b"X-%d: %b" % (n, long) for n in range(30)], *MANY, target=b"/" + long)
    assert only(fed(head, limits=UNLIMITED))
    assert only(fed(post(long), limits=UNLIMITED)).environ["wsgi.input"].read() == long


def test_a_body_is_on_disk_beyond_what_memory_it_may_take() -> None:
    small = only(fed(post(b"x" * 100))).environ["wsgi.input"]
    large = only(fed(post(b"x" * 101))).environ["wsgi.input"]
    assert isinstance(small, BytesIO)
    assert os.fstat(large.fileno()).st_nlink == 0
    assert large.read() == b"x" * 101


def test_a_full_disk_refuses_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "prefork.http.disk_budget.unnamed_file", lambda: os.open("/dev/full", os.O_RDWR)
    )
    connection = fed(post(b"x" * 101), limits=LIMITS._replace(disk=DiskBudget()))
    error = connection.reader.error
    assert error is not None
    assert error.status == 507
    assert "No space left" in error.reason


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("size", [101, 100_000])
def test_a_body_that_a_full_disk_refused_ends_silently(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """From CPython 3.13 on, a file that the garbage collector cannot close prints a traceback."""
    monkeypatch.setattr(
        "prefork.http.disk_budget.unnamed_file", lambda: os.open("/dev/full", os.O_RDWR)
    )
    connection = fed(post(b"x" * size), limits=LIMITS._replace(disk=DiskBudget()))
    assert connection.reader.error is not None
    del connection
    gc.collect()


# Expect: 100-continue (RFC 9110 section 10.1.1).


def test_a_client_that_waits_for_100_is_known_until_its_body_comes() -> None:
    data = post(b"abc", b"Expect: 100-Continue")
    connection = fed(data[:-3])
    assert connection.reader.wants_continue
    connection.feed(b"a")
    assert not connection.reader.wants_continue
    connection.feed(b"bc")
    assert only(connection).environ["wsgi.input"].read() == b"abc"


@pytest.mark.parametrize(
    "data",
    [
        post(b"abc", b"Expect: 100-continue"),  # the body is here already
        post(b"x" * 1001, b"Expect: 100-continue")[:-1001],  # and will not be read
        post(b"abc", b"Expect: 100-continue").replace(b"/1.1", b"/1.0")[:-3],
        get(b"Expect: 100-continue"),
    ],
)
def test_no_100_if_the_client_does_not_wait_for_it(data: bytes) -> None:
    assert not fed(data).reader.wants_continue


# Between requests.


def test_a_connection_is_idle_only_between_requests() -> None:
    connection = fed()
    assert connection.reader.idle
    for piece in (b"G", b"ET / HTTP/1.1\r\n", HOST):
        connection.feed(piece)
        assert not connection.reader.idle
    connection.feed(b"\r\n")
    assert connection.reader.idle
    # A next one that has begun in the packet that ends the last one.
    for begun in (b"G", b"GET", b"GET /", b"GET / HTTP/1.1\r\nHo"):
        assert not fed(get() + begun).reader.idle
        assert not fed(post(b"abc") + begun).reader.idle
    assert fed(get() + b"\r\n").reader.idle
    assert not fed(post(b"abc")[:-1]).reader.idle
