"""Any bytes, cut anywhere: never an exception, and one reading, whole and in pieces."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prefork.http.head_cache import HeadCache
from prefork.http.request_parser import RequestLimits, RequestParser
from prefork.http.streamed_body import BodyError
from tests.unit.http_pieces import PIECES, WHOLE

# Far from anything that is made here: which piece finds a limit passed depends on the pieces.
LIMITS = RequestLimits(8192, 1000, 65536, 1 << 20, 65536)

BASE = {"wsgi.url_scheme": "http", "REMOTE_ADDR": "", "REMOTE_PORT": ""}

streams = st.lists(
    st.one_of(st.sampled_from(WHOLE), st.sampled_from(PIECES), st.binary(max_size=5)),
    max_size=14,
).map(b"".join)


def reading(pieces: list[bytes], recall: HeadCache | None = None) -> tuple[list[Any], int, bool]:
    """(requests as an application sees them, status of the refusal, whether it is the end)."""
    connection = RequestParser(BASE, LIMITS)
    connection.recall = recall
    for piece in pieces:
        if piece:
            connection.feed(piece)
    seen = []
    for request in connection.requests:
        body = request.environ.pop("wsgi.input").read()
        seen.append((request.environ, body, request.line, request.http11, request.keep_alive))
    error = connection.error
    return seen, error.status if error is not None else 0, connection.last or error is not None


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(at)]


@given(streams, st.lists(st.integers(0, 10_000), max_size=8))
@example(WHOLE[0] + b"OPTIONS / RTSP/1.1\r\nHost: test\r\n\r\n", [34, 36])
@example(WHOLE[0] + b"GET /a RTSP/1.1\r\nHost: test\r\n\r\n", [33, 40])
@example(WHOLE[0] + b"GET /a HTTP/1.0\r\n\r\n", [41])
@example(WHOLE[0] + b"GET /a RTSP/1.1\r\nHost: test\r\n\r\n", [41])
@example(WHOLE[4] + b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [])
@settings(max_examples=400, deadline=None)
def test_bytes_cut_anywhere_are_read_as_they_are_whole(data: bytes, places: list[int]) -> None:
    whole = reading([data])
    for pieces in (cut(data, places), [data[at : at + 1] for at in range(len(data))]):
        assert_same(reading(pieces), whole)


@given(streams, st.lists(st.integers(0, 10_000), max_size=8))
@settings(max_examples=200, deadline=None)
def test_a_body_is_the_same_where_it_is_read_while_it_comes(data: bytes, places: list[int]) -> None:
    whole, status, _ = reading([data])
    connection = RequestParser(BASE, LIMITS._replace(stream=True))
    for piece in cut(data, places):
        connection.feed(piece)
    requests = list(connection.requests)
    # One whose body is not complete, or is refused, was given out all the same.
    assert len(requests) - len(whole) in ((0, 1) if status or connection.in_body else (0,))
    for request, (environ, body, line, _, keep_alive) in zip(requests, whole, strict=False):
        assert request.environ["wsgi.input"].read() == body
        assert (request.line, request.keep_alive) == (line, keep_alive)
        own = {"wsgi.input", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"}
        assert {k: v for k, v in request.environ.items() if k not in own} == {
            k: v for k, v in environ.items() if k not in own
        }
    for request in requests[len(whole) :]:
        with pytest.raises(BodyError):
            request.environ["wsgi.input"].read()


def assert_same(one: tuple[list[Any], int, bool], other: tuple[list[Any], int, bool]) -> None:
    # A method that nobody knows is 501 where it is known to be one, else 400.
    assert one[0] == other[0]
    assert one[1] == other[1] or {one[1], other[1]} == {400, 501}
    assert one[2] == other[2]


shared = HeadCache()
"""Of all examples: what one has left there, the next may meet."""


@given(streams, st.lists(st.integers(0, 10_000), max_size=8))
@example(WHOLE[6], [])
@example(WHOLE[6].replace(b"http://test/", b"/"), [])
@settings(max_examples=400, deadline=None)
def test_what_is_kept_of_heads_changes_nothing(data: bytes, places: list[int]) -> None:
    pieces = cut(data, places)
    for sent in ([data], pieces):
        expected = reading(sent)
        for recall in (shared, HeadCache()):
            for _ in range(5):  # unknown, seen once, its parts kept, and then the whole
                assert reading(sent, recall) == expected


LINES = (
    *(b"GET / HTTP/1.1", b"GET /a?b HTTP/1.1", b"HEAD /%2e HTTP/1.1", b"POST / HTTP/1.1"),
    *(b"GET / HTTP/1.0", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET / RTSP/1.1", b"BREW / X"),
    *(b"CONNECT a:1 HTTP/1.1", b"CONNECT / HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET /# HTTP/1.1"),
    *(b"GET http://a/ HTTP/1.1", b"GET https://a/ HTTP/1.1", b"PRI * HTTP/2.0", b"M-SEARCH / X"),
    *(b"SOURCE / ICE/1.0", b"GET / HTTP/1.1\r\nX: 1", b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1"),
    *(b"\r\nGET / HTTP/1.1", b"", b"GET /" + b"a" * 9000 + b" HTTP/1.1", b"GET /\xff HTTP/1.1"),
    *(b"GET / HTTP/1.1\nX: 1", b"GET / HTTP/1.1\r", b"get / HTTP/1.1", b"GET / http/1.1"),
)
SECTIONS = (
    *(b"", b"Host: a\r\n", b"Host: a\r\nHost: a\r\n", b"Host: b\r\nX: 1\r\nX: 2\r\nX_Y: 3\r\n"),
    *(b"Host: a\r\nConnection: close\r\n", b"Host: a\r\nConnection: keep-alive\r\n"),
    *(b"Host: a\r\nContent-Length: 0\r\n", b"Host: a\r\nContent-Length: 3\r\n", b"Host: a b\r\n"),
    *(b"Host: a\r\nConnection: upgrade\r\nUpgrade: x\r\n", b"Host: a\r\nExpect: 100-continue\r\n"),
    *(b"Host: a\r\nTransfer-Encoding: chunked\r\n", b"Host: a\r\nUpgrade: x\r\n", b"Host: a\n"),
    *(b"Host: a\r\nX: " + b"a" * 3000 + b"\r\n", b"Host: a\r\n\r\n", b" X: 1\r\nHost: a\r\n"),
    *(b"Host: a\r\nX: " + b"a" * 70000 + b"\r\n", b"Host: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n"),
)


def test_each_line_reads_the_same_before_each_section_that_is_kept() -> None:
    warm = HeadCache()
    heads = [b"%b\r\n%b\r\n" % (line, section) for line in LINES for section in SECTIONS]
    for _ in range(5):
        for head in heads:
            assert reading([head], warm) == reading([head])
            assert reading([head, head], warm) == reading([head, head])
    kept = {section.data for section in warm.sections.values()}
    assert {b"\r\nHost: a\r\n\r\n", b"\r\nHost: a\r\nConnection: close\r\n\r\n"} < kept
    assert not any(b"Content-Length" in data or b"Upgrade" in data for data in kept)


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_bytes_at_all(data: bytes, places: list[int]) -> None:
    assert_same(reading(cut(data, places)), reading([data]))


heads = st.lists(
    st.tuples(
        st.from_regex(rb"\A[!#$%&'*+.^`|~0-9A-Za-z-]{1,10}\Z"),
        st.from_regex(rb"\A[\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]{0,10}[\x21-\x7e])?\Z"),
    ).filter(
        lambda pair: (
            pair[0].lower()
            not in (b"host", b"expect", b"connection", b"upgrade", b"content-length", b"te")
            and pair[0].lower()
            not in (b"transfer-encoding", b"content-type", b"proxy-connection", b"cookie")
        )
    ),
    max_size=8,
    unique_by=lambda pair: pair[0].lower(),
)


@given(heads, st.lists(st.binary(min_size=1, max_size=50), max_size=5), st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_is_valid_is_served_as_it_was_sent(
    fields: list[tuple[bytes, bytes]], body: list[bytes], chunked: bool
) -> None:
    lines = [b"POST /x HTTP/1.1", b"Host: test", *(b"%b: %b" % pair for pair in fields)]
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
        sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in body) + b"0\r\n\r\n"
    else:
        sent = b"".join(body)
        lines.append(b"Content-Length: %d" % len(sent))
    data = b"\r\n".join([*lines, b"", b""]) + sent
    for pieces in ([data * 2], [data, data]):
        requests, status, _ = reading(pieces)
        assert status == 0
        assert len(requests) == 2
        for environ, content, *_ in requests:
            assert content == b"".join(body)
            for name, value in fields:
                key = "HTTP_" + name.decode().upper().replace("-", "_")
                assert environ[key] == value.decode("latin-1")
