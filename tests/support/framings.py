"""A corpus of framings: what clients send, and what they send to be read twice in two ways.

Each is what goes over one connection, before a last request that every connection ends with.
"""

from collections.abc import Iterator
from itertools import product

from tests.unit.http_rules import REFUSED, SERVED

INNER = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"

BODIES = {
    "nothing": b"",
    "a byte": b"x",
    "a line": b"a line\r\n",
    "a request": INNER,
    "the end of a chunked body": b"0\r\n\r\n" + INNER,
    "a kilobyte": b"0123456789abcdef" * 64,
}


def head(method: str, path: str, *lines: bytes, version: str = "1.1") -> bytes:
    first = f"{method} {path} HTTP/{version}".encode()
    return b"\r\n".join([first, b"Host: test", *lines, b"", b""])


def chunked(body: bytes, size: int, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = [b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces]
    return b"".join(chunks) + b"0%b\r\n%b\r\n" % (extension, trailer)


def _bodies() -> Iterator[tuple[str, bytes]]:
    """Bodies of known length and in chunks, for methods that have one and for others."""
    for method, (name, body) in product(("POST", "PUT", "GET", "DELETE"), BODIES.items()):
        length = b"Content-Length: %d" % len(body)
        yield f"{method} with {name} by length", head(method, "/length", length) + body
        coding = b"Transfer-Encoding: chunked"
        yield f"{method} with {name} in chunks", head(method, "/chunks", coding) + chunked(body, 7)
    for (name, body), (kind, extension, trailer) in product(
        BODIES.items(),
        (
            ("an extension", b";a=b", b""),
            ("a quoted extension", b';a="b c"', b""),
            ("a trailer", b"", b"X-Late: 1\r\n"),
            ("both", b";a", b"X-Late: 1\r\nX-Later: 2\r\n"),
        ),
    ):
        data = chunked(body, 100, extension, trailer)
        yield (
            f"{name} in chunks with {kind}",
            head("POST", "/chunks", b"Transfer-Encoding: chunked") + data,
        )
    for size in (1, 2, 15, 16, 17, 255, 256):
        data = chunked(BODIES["a kilobyte"], size)
        yield (
            f"chunks of {size}",
            head("POST", "/chunks", b"Transfer-Encoding: chunked") + data,
        )


def _pipelines() -> Iterator[tuple[str, bytes]]:
    plain = head("GET", "/plain")
    post = head("POST", "/post", b"Content-Length: 3") + b"abc"
    chunks = head("POST", "/chunks", b"Transfer-Encoding: chunked") + chunked(b"abc", 2)
    kinds = {"plain": plain, "post": post, "chunks": chunks}
    for one, other in product(kinds, kinds):
        yield f"{one} and {other}", kinds[one] + kinds[other]
        for name, line in (("an empty line", b"\r\n"), ("a bare LF", b"\n"), ("a bare CR", b"\r")):
            yield f"{one}, {name} and {other}", kinds[one] + line + kinds[other]
    for count in (3, 10, 30):
        yield f"{count} of all", b"".join(kinds.values()) * count


def _odd_heads() -> Iterator[tuple[str, bytes]]:
    """One odd line beside a body that holds a request, by length and in chunks."""
    lines = {
        "a length with an underscore in its name": b"Content_Length: 0",
        "a coding with an underscore in its name": b"Transfer_Encoding: chunked",
        "a length in a list": b"Content-Length: 0, 38",
        "no length": b"Content-Length: 0",
        "a length of one": b"Content-Length: 1",
        "a signed length": b"Content-Length: +38",
        "a coding": b"Transfer-Encoding: chunked",
        "identity": b"Transfer-Encoding: identity",
        "a coding with a tab": b"Transfer-Encoding:\tchunked",
        "a coding with a tab behind it": b"Transfer-Encoding: chunked\t",
        "a coding with a space before its colon": b"Transfer-Encoding : chunked",
        "a folded coding": b"Transfer-Encoding:\r\n chunked",
        "a coding behind a bare CR": b"X: 1\rTransfer-Encoding: chunked",
        "a coding behind a bare LF": b"X: 1\nTransfer-Encoding: chunked",
        "a coding behind a NUL": b"X: 1\0Transfer-Encoding: chunked",
        "a coding with a vertical tab": b"Transfer-Encoding: \x0bchunked",
        "a coding in large letters": b"TRANSFER-ENCODING: CHUNKED",
        "a coding with an end that is none": b"Transfer-Encoding: chunked\xa0",
        "two codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "TE": b"TE: trailers, chunked",
        "an upgrade": b"Connection: Upgrade\r\nUpgrade: h2c",
        "a length that is named in Connection": b"Connection: Content-Length",
        "a coding that is named in Connection": b"Connection: Transfer-Encoding",
        "close": b"Connection: close",
        "an expectation": b"Expect: 100-continue",
        "a trailer's name": b"Trailer: Content-Length",
        "a forwarded length": b"X-Content-Length: 0",
        "an override": b"X-HTTP-Method-Override: GET",
    }
    for name, line in lines.items():
        length = b"Content-Length: %d" % len(INNER)
        yield f"{name} before a length", head("POST", "/odd", line, length) + INNER
        yield f"{name} behind a length", head("POST", "/odd", length, line) + INNER
        coding = b"Transfer-Encoding: chunked"
        body = chunked(INNER, 100)
        yield f"{name} before a coding", head("POST", "/odd", line, coding) + body
        yield f"{name} behind a coding", head("POST", "/odd", coding, line) + body
        yield f"{name} in HTTP/1.0", head("POST", "/odd", line, length, version="1.0") + INNER


def corpus() -> dict[str, bytes]:
    return {
        **{f"refused: {name}": data for name, (_, data) in REFUSED.items()},
        **{f"served: {name}": data for name, (_, data) in SERVED.items()},
        **dict(_bodies()),
        **dict(_pipelines()),
        **dict(_odd_heads()),
    }
