"""The reading of answers: each test is named by what a server sent."""

import pytest

from prefork.client.response_parser import LIMIT, Incomplete, NotHTTP, ResponseParser

OK = b"HTTP/1.1 200 OK\r\n"


def fed(*pieces: bytes, method: str = "GET") -> ResponseParser:
    parser = ResponseParser(method)
    for piece in pieces:
        parser.feed(piece)
    return parser


def body(parser: ResponseParser) -> bytes:
    return b"".join(parser.take())


def single_bytes(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def test_an_answer_with_a_length() -> None:
    parser = fed(OK + b"Content-Length: 3\r\nX-a: B\r\n\r\nabc")
    assert (parser.status, parser.reason, parser.version) == (200, "OK", "1.1")
    assert parser.headers == [("Content-Length", "3"), ("X-a", "B")]
    assert body(parser) == b"abc"
    assert body(parser) == b""
    assert parser.complete
    assert parser.keep_alive
    assert parser.length == 3


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 3\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n2\r\nbc\r\n0\r\nT: v\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\nabc",
    ],
)
def test_the_same_byte_by_byte(data: bytes) -> None:
    whole, dripped = fed(data), fed(*single_bytes(data))
    assert whole.headers == dripped.headers
    assert whole.reason == dripped.reason == "OK"
    assert body(whole) == body(dripped) == b"abc"
    assert whole.complete
    assert dripped.complete
    assert not whole.excess
    assert not dripped.excess


def test_a_folded_header_is_one_line() -> None:
    """RFC 9112 section 5.2."""
    parser = fed(OK + b"X: a\r\n  b\r\n\t \r\nContent-Length: 0\r\n\r\n")
    assert parser.headers == [("X", "a b"), ("Content-Length", "0")]
    assert parser.complete


def test_equal_lengths_in_a_list_are_one() -> None:
    """RFC 9110 section 8.6."""
    for lines in (b"Content-Length: 3, 3\r\n", b"Content-Length: 3\r\nContent-Length: 3\r\n"):
        parser = fed(OK + lines + b"\r\nabc")
        assert (parser.length, body(parser), parser.excess) == (3, b"abc", False)


def test_no_reason() -> None:
    assert fed(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n").reason == ""


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_interim_answers_are_passed_over(status: bytes) -> None:
    interim = b"HTTP/1.1 " + status + b"\r\nX: interim\r\n\r\n"
    parser = fed(interim)
    assert not parser.head_complete
    assert not parser.complete
    parser.feed(interim + OK + b"Content-Length: 1\r\n\r\na")
    assert parser.headers == [("Content-Length", "1")]
    assert parser.reason == "OK"
    assert parser.complete


@pytest.mark.parametrize(
    "head", [b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n", b""]
)
def test_an_answer_to_head_has_no_body(head: bytes) -> None:
    parser = fed(OK + head + b"\r\n", method="HEAD")
    assert parser.complete
    assert parser.length is None
    assert not parser.excess


def test_an_answer_to_head_with_a_body_all_the_same() -> None:
    parser = fed(OK + b"Content-Length: 3\r\n\r\nabc", method="HEAD")
    assert parser.complete
    assert parser.excess
    assert body(parser) == b""


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_without_a_body_by_its_status(status: bytes) -> None:
    parser = fed(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n")
    assert parser.complete
    assert parser.keep_alive


def test_a_body_until_the_connection_closes() -> None:
    parser = fed(OK + b"\r\nabc", b"def")
    assert not parser.complete
    parser.eof()
    assert parser.complete
    assert body(parser) == b"abcdef"
    assert not parser.keep_alive


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_whether_the_connection_stays(head: bytes, keep_alive: bool) -> None:
    assert fed(head + b"Content-Length: 0\r\n\r\n").keep_alive is keep_alive


@pytest.mark.parametrize("connection", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("more", [b"XYZ", OK + b"Content-Length: 1\r\n\r\nz"])
def test_more_than_the_answer(connection: bytes, more: bytes) -> None:
    head = OK + connection + b"Content-Length: 3\r\n\r\nabc"
    for parser in (fed(head + more), fed(head, more)):
        assert parser.excess
        assert body(parser) == b"abc"
        assert parser.reason == "OK"
        assert parser.length == 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "Expected HTTP/"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "Expected HTTP/"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "HTTP/2.0"),
        (b"HTTP/1.1 99 Low\r\n\r\n", "status"),
        (OK + b"Content-Length: -1\r\n\r\n", "Content-Length"),
        (OK + b"Content-Length:\r\n\r\n", "Content-Length"),
        (OK + b"Content-Length: \xb2\r\n\r\n", "Content-Length"),
        (OK + b"Content-Length: 3, 4\r\n\r\n", "Content-Length"),
        (OK + b"X: a\x01\r\n\r\n", "header"),
        (OK + b"X: a\rb\r\n\r\n", "header"),
        (OK + b"X: a\nb\r\n\r\n", "header"),
        (OK + b"X\r\n\r\n", "header"),
        (b"HTTP/1.1 200 OK\nX: 1\n\n", "line feed"),
        (b"HTTP/1.1 200 O\nK\r\n\r\n", "status line"),
        (b"HTTP/1.1  200 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "status line"),
        (OK + b"Content-Length: 99999999999999999999999\r\n\r\n", "overflow"),
        (OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n", "Content-Length"),
        (OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk has no valid size"),
        (OK + b"A B: c\r\n\r\n", "header"),
        (b"HTTP/1.1 101 Switch\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "another protocol"),
    ],
)
def test_what_is_not_http(data: bytes, reason: str) -> None:
    with pytest.raises(NotHTTP, match=reason):
        fed(data)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"", "before the first byte"),
        (b"HTTP/1.1 2", "in the head"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "in the head"),
        (OK + b"Content-Length: 10\r\n\r\nabc", "after 3 of 10 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc", "after 3 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "after 3 bytes"),
    ],
)
def test_an_end_too_early(data: bytes, where: str) -> None:
    parser = fed(data) if data else ResponseParser()
    with pytest.raises(Incomplete, match=where):
        parser.eof()


def flood(parser: ResponseParser, piece: bytes) -> None:
    for _ in range(2 * LIMIT // len(piece) + 1):
        parser.feed(piece)


def test_a_head_without_end() -> None:
    with pytest.raises(NotHTTP, match="bytes of head"):
        flood(fed(OK), b"X-Header: " + b"a" * 1000 + b"\r\n")


def test_one_header_without_end() -> None:
    with pytest.raises(NotHTTP, match="bytes of head"):
        flood(fed(OK + b"X: "), b"a" * 1000)


def test_interim_answers_without_end() -> None:
    with pytest.raises(NotHTTP, match="bytes of head"):
        flood(ResponseParser(), b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def test_trailers_without_end() -> None:
    with pytest.raises(NotHTTP, match="between pieces of body"):
        flood(fed(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"), b"X: " + b"a" * 99 + b"\r\n")


def test_a_chunk_extension_without_end() -> None:
    with pytest.raises(NotHTTP, match="between pieces of body"):
        flood(fed(OK + b"Transfer-Encoding: chunked\r\n\r\n1;"), b"a" * 1000)


def test_a_large_head_within_the_limit() -> None:
    line = b"X-Header: " + b"a" * 1000 + b"\r\n"
    count = (LIMIT - 1000) // len(line)
    parser = fed(OK, line * count, b"Content-Length: 0\r\n\r\n")
    assert len(parser.headers) == count + 1
    assert parser.complete


def test_small_chunks_without_number_are_no_flood() -> None:
    parser = fed(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    flood(parser, b"1\r\na\r\n" * 100)
    assert not parser.complete
    assert parser.received > LIMIT // 6
