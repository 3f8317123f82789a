"""What requests cost to read, in instructions, and the inputs of a client that wants to cost most.

    valgrind --tool=callgrind --dump-before=getppid \
        --callgrind-out-file=DIRECTORY/costs python -m tests.support.request_costs

runs each input in each of two sizes between two calls of getppid(2), at which callgrind
writes down how many instructions there were.  So a count has all that C does, and no time.
"""

import os
from collections.abc import Callable
from functools import partial

from prefork.apps import conditions, ranges
from prefork.http import forwarded, proxy_protocol
from prefork.http.field_lines import FieldLines
from prefork.http.limits import RequestLimits
from prefork.http.negotiation import accepted
from prefork.http.proxied_reader import ProxiedReader, keys
from prefork.http.queue_time import waited
from prefork.http.reader import RequestReader
from prefork.logs.access import _escape
from tests.unit.reading import BASE, pieces_of, taken

SIZES = (12_000, 48_000)
"""Bytes of an input; the larger is a head that is just within the default limits."""

LIMITS = RequestLimits(8192, 100, 65536, 1 << 20, 65536)

Work = Callable[[], object]

ORDINARY = (
    b"GET /articles/2026/11?page=2 HTTP/1.1\r\n"
    b"Host: www.example.org\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Cookie: session=0123456789abcdef; theme=dark\r\n\r\n"
)


def _filled(unit: bytes, size: int) -> bytes:
    return unit * (size // len(unit))


def _feed(reader: RequestReader, pieces: list[bytes]) -> None:
    for piece in pieces:
        if not reader.last and reader.error is None:
            taken(reader, piece)


def _read(data: bytes, piece: int = 16 * 1024) -> Work:
    """What a worker does with bytes, by the default size of its reads."""
    return partial(_feed, RequestReader(BASE, LIMITS), pieces_of(data, piece))


def _head(field: bytes, unit: bytes, size: int, *, end: bytes = b"") -> bytes:
    """A request with a field that is filled up."""
    return (
        b"GET / HTTP/1.1\r\nHost: a\r\n" + field + b": " + _filled(unit, size) + end + b"\r\n\r\n"
    )


def _field(field: bytes, unit: bytes, size: int) -> Work:
    return _read(_head(field, unit, size))


def _proxied(field: bytes, unit: bytes, size: int, *, end: bytes = b"") -> Work:
    """The same from a trusted proxy that believes everything."""
    trusts = forwarded.trust(["10.0.0.0/8"])
    known = FieldLines(keys(("Forwarded", "X-Forwarded-For", "X-Forwarded-Host")))
    reader = ProxiedReader(BASE, LIMITS, ("10.0.0.1", "1"), trusts, known)
    return partial(_feed, reader, pieces_of(_head(field, unit, size, end=end), 16 * 1024))


def _many_fields(size: int) -> Work:
    """As many fields as there may be."""
    value = b"x" * (size // 100 - 10)
    fields = b"".join(b"X-%02d: %s\r\n" % (number, value) for number in range(90))
    return _read(b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")


def _one_field_again(size: int) -> Work:
    """Fields of one name, which become one."""
    line = b"Cookie: " + b"x" * (size // 100 - 10) + b"\r\n"
    return _read(b"GET / HTTP/1.1\r\nHost: a\r\n" + line * 90 + b"\r\n")


def _chunks(unit: bytes, size: int) -> Work:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return _read(head + _filled(unit, size) + b"0\r\n\r\n", 256 * 1024)


def _bytewise(data: bytes, size: int) -> Work:
    """A head that comes byte by byte."""
    return _read(data + b"x" * size, 1)


def _proxy_header(size: int) -> Work:
    """A header of the PROXY protocol."""
    length = min(size, proxy_protocol.V2_LIMIT)
    header = proxy_protocol._V2 + b"\x21\x11" + length.to_bytes(2, "big") + bytes(length)

    def read() -> None:
        for end in range(1, len(header)):
            proxy_protocol.read(header[:end])

    return read


def _text(unit: str, size: int) -> str:
    return unit * (size // len(unit))


CASES: dict[str, Callable[[int], Work]] = {
    "ordinary requests, one after the other": lambda size: _read(_filled(ORDINARY, size)),
    "X-Forwarded-For of addresses": partial(_proxied, b"X-Forwarded-For", b"203.0.113.9, "),
    "X-Forwarded-For of trusted addresses": partial(_proxied, b"X-Forwarded-For", b"10.0.0.2, "),
    "X-Forwarded-For of commas": partial(_proxied, b"X-Forwarded-For", b","),
    "X-Forwarded-For of commas behind which a client is": partial(
        _proxied, b"X-Forwarded-For", b" ,", end=b"10.0.0.2"
    ),
    "X-Forwarded-Host of commas": partial(_proxied, b"X-Forwarded-Host", b","),
    "Forwarded of addresses": partial(_proxied, b"Forwarded", b"for=10.0.0.2, "),
    "Forwarded of a long quoted text": partial(_proxied, b"Forwarded", b"\\a", end=b'"'),
    "Forwarded of blanks": partial(_proxied, b"Forwarded", b" ", end=b"x"),
    "chunks of one byte": partial(_chunks, b"1\r\nx\r\n"),
    "chunks with extensions": partial(_chunks, b"1;" + b"a" * 100 + b"\r\nx\r\n"),
    "zeros before the size of a chunk": partial(_chunks, b"0000000001\r\nx\r\n"),
    "fields": _many_fields,
    "one field again and again": _one_field_again,
    "Cookie": partial(_field, b"Cookie", b"a=b; "),
    "Connection": partial(_field, b"Connection", b"x,"),
    "Transfer-Encoding of commas": partial(_field, b"Transfer-Encoding", b","),
    "Content-Length of digits": partial(_field, b"Content-Length", b"1"),
    "Host": partial(_field, b"X", b"a.b:"),
    "blanks in a value": partial(_field, b"X", b" \t"),
    "empty lines before a request": lambda size: _read(_filled(b"\r\n", size)),
    "a query string": lambda size: _read(
        b"".join([b"GET /?" + b"a=%41&" * 1000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"] * (size // 6000))
    ),
    "percent-encodings": lambda size: _read(
        b"".join([b"GET /" + b"%41" * 2000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"] * (size // 6000))
    ),
    "bad percent-encodings": lambda size: _read(
        b"".join([b"GET /" + b"%" * 6000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"] * (size // 6000))
    ),
    "slashes": lambda size: _read(
        b"".join([b"GET " + b"/" * 6000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"] * (size // 6000))
    ),
    "Range": lambda size: partial(ranges.parse, "bytes=" + _text("0-0,", size), 1 << 40),
    "Range of blanks": lambda size: partial(ranges.parse, "bytes=0-" + " " * size, 1 << 40),
    "Range of commas": lambda size: partial(ranges.parse, "bytes=" + "," * size, 1 << 40),
    "If-None-Match": lambda size: partial(
        conditions.outcome, {"HTTP_IF_NONE_MATCH": _text('"a", ', size)}, '"b"', 1
    ),
    "If-None-Match of one tag without an end": lambda size: partial(
        conditions.outcome, {"HTTP_IF_NONE_MATCH": '"' + "a" * size}, '"b"', 1
    ),
    "If-None-Match of quotes": lambda size: partial(
        conditions.outcome, {"HTTP_IF_NONE_MATCH": _text('W/"', size)}, '"b"', 1
    ),
    "If-Match": lambda size: partial(
        conditions.outcome, {"HTTP_IF_MATCH": _text('W/"a",', size)}, '"b"', 1
    ),
    **{
        f"If-Modified-Since of {name}": lambda size, unit=unit: partial(  # type: ignore[misc]
            conditions.outcome, {"HTTP_IF_MODIFIED_SINCE": _text(unit, size)}, '"b"', 1
        )
        for name, unit in (
            ("words", "a "),
            ("colons", "1:"),
            ("commas", ", "),
            ("digits", "1"),
            ("parentheses", "("),
            ("dates", "Tue, 14 Nov 2023 22:13:20 GMT "),
        )
    },
    "Accept-Encoding": lambda size: partial(accepted, _text("a;q=0.1, ", size), ("gzip", "zstd")),
    "Accept-Encoding of commas": lambda size: partial(accepted, "," * size, ("gzip", "zstd")),
    "Accept-Encoding of semicolons": lambda size: partial(accepted, ";" * size, ("gzip", "zstd")),
    "X-Request-Start": lambda size: partial(waited, "1" * size, 1.7e9),
    "a line of the access log": lambda size: partial(_escape, '\x01"' * (size // 2)),
}


BYTEWISE: dict[str, Callable[[int], Work]] = {
    "a head byte by byte": partial(_bytewise, b"GET / HTTP/1.1\r\nHost: a\r\nX: "),
    "a request line byte by byte": partial(_bytewise, b"GET /"),
    "a chunk byte by byte": lambda size: _read(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * size, 1
    ),
    "a PROXY header byte by byte": _proxy_header,
}
"""Each byte is a packet, and a read of its own."""

BYTEWISE_SIZES = (500, 2_000)


def inputs() -> list[tuple[str, int, Work]]:
    """All of them: name, bytes, work."""
    return [
        (name, size, make(size))
        for cases, sizes in ((CASES, SIZES), (BYTEWISE, BYTEWISE_SIZES))
        for name, make in cases.items()
        for size in sizes
    ]


def main() -> None:
    found = inputs()
    for make in (*CASES.values(), *BYTEWISE.values()):
        make(100)()  # what is imported and compiled once
    for _, _, work in found:
        os.getppid()
        work()
    os.getppid()


if __name__ == "__main__":
    main()
