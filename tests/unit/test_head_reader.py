"""A head that comes in pieces is looked at once."""

import pytest

from prefork.http.field_lines import FieldLines
from prefork.http.head_reader import CHUNKED, HeadScan, read_head, read_request_line
from prefork.http.head_rules import Reject
from prefork.http.limits import RequestLimits

LIMITS = RequestLimits(8192, 100, 65536, 1000, 1000)
BASE = {"wsgi.url_scheme": "http", "REMOTE_ADDR": "", "REMOTE_PORT": ""}


class Watched(bytearray):
    """Notes how far back it is searched."""

    behind = 0

    def find(self, part: object, start: int = 0, *rest: object) -> int:  # type: ignore[override]
        self.behind = max(self.behind, len(self) - start)
        return super().find(part, start, *rest)  # type: ignore[arg-type]


def test_the_time_for_a_head_that_comes_byte_by_byte_is_linear() -> None:
    scan = HeadScan(FieldLines(), LIMITS)
    data = Watched()
    for byte in b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nX: " + b"b" * 3000 + b"\r\nY: 1\r\n":
        data.append(byte)
        scan.look(data)
    assert data.behind <= 3


def test_a_head_that_comes_whole_is_looked_at_to_its_end_and_no_further() -> None:
    HeadScan(FieldLines(), LIMITS).look(b"GET / HTTP/1.1\r\nX: 1\r\n\r\n\0\n\0")


@pytest.mark.parametrize(
    ("line", "path", "query", "target", "host"),
    [
        (b"GET / HTTP/1.1", "/", "", "/", None),
        (b"BREW  /a%20b?c%20d  HTTP/1.0", "/a b", "c%20d", "/a%20b?c%20d", None),
        (b"OPTIONS * HTTP/1.1", "/", "", "*", None),
        (b"GET http://a:1?b HTTP/1.1", "/", "b", "http://a:1?b", "a:1"),
    ],
)
def test_a_request_line(line: bytes, path: str, query: str, target: str, host: str | None) -> None:
    read = read_request_line(line)
    assert (read.path, read.query, read.target, read.host) == (path, query, target, host)
    assert read.line == b" ".join(line.split()[:2])


def test_the_usual_request_line_is_read_as_any_other() -> None:
    lines = FieldLines()
    for first in (
        b"GET /a?b HTTP/1.1",
        b"POST / HTTP/1.0",
        b"GET /?? HTTP/1.1",
        b"PUT //x HTTP/1.1",
    ):
        environ, line, http11, *_ = read_head(first + b"\r\nHost: a", BASE, ("", ""), lines, LIMITS)
        same, same_line, *_ = read_head(
            first.replace(b" ", b"  ", 1) + b"\r\nHost: a", BASE, ("", ""), lines, LIMITS
        )
        assert (environ, line) == (same, same_line)
        assert line == first[:-9]
        assert http11 is first.endswith(b"1")


@pytest.mark.parametrize(
    ("fields", "length", "expects"),
    [
        (b"", 0, False),
        (b"\r\nContent-Length: 0", 0, False),
        (b"\r\nContent-Length: 0010", 10, False),
        (b"\r\nTransfer-Encoding: Chunked", CHUNKED, False),
        (b"\r\nContent-Length: 10\r\nExpect: 100-continue", 10, True),
        (b"\r\nContent-Length: 0\r\nExpect: 100-continue", 0, False),
        (b"\r\nExpect:", 0, False),
    ],
)
def test_the_body_that_a_head_announces(fields: bytes, length: int, expects: bool) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a" + fields
    *_, found, waits, _ = read_head(head, BASE, ("", ""), FieldLines(), LIMITS)
    assert (found, waits) == (length, expects)


def test_the_base_is_shared_and_not_changed() -> None:
    base = dict(BASE)
    environ, *_ = read_head(
        b"GET / HTTP/1.0\r\nX: 1\r\nX: 2", base, ("a", "b"), FieldLines(), LIMITS
    )
    assert base == BASE
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("a", "b")
    assert environ["HTTP_X"] == "1, 2"


def test_a_field_line_that_is_refused_leaves_nothing_behind() -> None:
    lines = FieldLines()
    for _ in range(2):
        with pytest.raises(Reject):
            read_head(b"GET / HTTP/1.0\r\nAccept: \0", BASE, ("", ""), lines, LIMITS)
    assert not lines
