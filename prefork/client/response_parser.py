"""The parser of a response: from bytes to status, headers and pieces of the body.

One parser reads one response (RFC 9112 sections 4 to 7).  It needs the method of the request, since
a response to HEAD has the headers of a body, but no body.
"""

import re

from prefork.http.chunked import ChunkedDecoder
from prefork.http.field_lines import FieldLines
from prefork.http.limits import RequestLimits

LIMIT = 256 * 1024
"""The most bytes in a row that are not part of a body: heads, trailers, chunk extensions."""

_NO_LIMITS = RequestLimits(0, 0, 0, 0, 0)
_LINES = FieldLines()

_BEGIN = b"HTTP/"
_STATUS_LINE = re.compile(r"HTTP/([0-9]\.[0-9]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*+))?")
_HEADER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)")

# RFC 9112 section 5.2: a user agent replaces a line's end before white space by a space.
_FOLD = re.compile(rb"(?:\r\n[ \t]++)+")


class NotHTTP(Exception):
    """The bytes are not a response; the text is the reason."""


class Incomplete(Exception):
    """The connection ended before the response did; the text says where."""


class ResponseParser:
    """`feed` takes bytes, `eof` the end of the connection; `take` returns pieces of the body."""

    def __init__(self, method: str = "GET") -> None:
        self.status = 0
        self.reason = ""
        self.version = ""
        self.headers: list[tuple[str, str]] = []
        self.started = False
        self.head_complete = False
        self.complete = False
        self.keep_alive = False
        self.excess = False
        """Bytes came behind the response."""
        self.received = 0
        """Bytes of the body."""
        self._method = method
        self._head = bytearray()
        self._scanned = 0  # bytes of that, in which the head does not end
        self._idle = 0  # bytes in a row that are not part of a body
        self._length: int | None = None
        self._left = 0  # bytes of a body of known length that have not come
        self._decoder: ChunkedDecoder | None = None
        self._until_close = False
        self._body: list[bytes] = []

    @property
    def length(self) -> int | None:
        """Bytes of the body by the head; None if it does not say."""
        return self._length if self._method != "HEAD" else None

    def header(self, name: str) -> str | None:
        """The first header of this name."""
        return next(iter(self._values(name)), None)

    def feed(self, data: bytes) -> None:
        """Parses received bytes; raises NotHTTP."""
        if self.complete:
            self.excess = True
            return
        self.started = True
        before = self.received
        size = len(data)
        while not self.head_complete:
            rest = self._read_head(data)
            if rest is None:
                break
            data = rest
        else:
            self._read_body(data)
        self._idle = 0 if self.received > before else self._idle + size
        if self._idle > LIMIT and not self.complete:
            where = "between pieces of body" if self.head_complete else "of head"
            raise NotHTTP(f"more than {LIMIT} bytes {where}")

    def eof(self) -> None:
        """The server has closed, which is the end of some bodies; else raises Incomplete."""
        if not self.started:
            raise Incomplete("before the first byte of a response")
        if not self.head_complete:
            raise Incomplete("in the head of the response")
        if not self.complete and not self._until_close:
            of = "" if self.length is None else f" of {self.length}"
            raise Incomplete(f"after {self.received}{of} bytes of the body")
        self.complete = True

    def take(self) -> list[bytes]:
        """The pieces of the body since the last call."""
        pieces, self._body = self._body, []
        return pieces

    # The head.

    def _read_head(self, data: bytes) -> bytes | None:
        """Reads a head, possibly of an interim response; returns what follows, None for no end."""
        head = self._head
        head += data
        if head[:5] != _BEGIN[: len(head)]:
            raise NotHTTP("Expected HTTP/ at the beginning of a response")
        end = head.find(b"\r\n\r\n", max(self._scanned - 3, 0))
        if end < 0:
            if head.find(b"\n\n", max(self._scanned - 1, 0)) >= 0:
                raise NotHTTP("a line of the head ends in a bare line feed")
            self._scanned = len(head)
            return None
        text, rest = bytes(head[:end]), bytes(head[end + 4 :])
        self._head = bytearray()
        self._scanned = 0
        first, *lines = _FOLD.sub(b" ", text).decode("latin-1").split("\r\n")
        self._read_status_line(first)
        self.headers = [_header(line) for line in lines]
        if self.status == 101:
            raise NotHTTP("the server switched to another protocol without a request for it")
        if self.status < 200:  # the final response follows (RFC 9110 section 15.2)
            self.headers = []
        else:
            self.head_complete = True
            self._find_framing()
        return rest

    def _read_status_line(self, line: str) -> None:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise NotHTTP(f"malformed status line {line[:80]!r}")
        self.version, status, reason = match.groups()
        if not self.version.startswith("1."):
            raise NotHTTP(f"the response has version HTTP/{self.version}")
        self.status = int(status)
        self.reason = reason or ""

    def _find_framing(self) -> None:
        """Where the body ends (RFC 9112 section 6.3), and whether the connection stays (9.3)."""
        options = _elements(self._values("Connection"))
        self.keep_alive = "close" not in options and (
            self.version != "1.0" or "keep-alive" in options
        )
        lengths = self._values("Content-Length")
        codings = _elements(self._values("Transfer-Encoding"))
        if lengths:
            self._length = _length(lengths)
        if self._method == "HEAD" or self.status in (204, 304):
            self.complete = True
        elif codings:
            if lengths:
                raise NotHTTP("Content-Length together with Transfer-Encoding")
            if codings[-1] == "chunked":
                self._decoder = ChunkedDecoder(_LINES, _NO_LIMITS)
            else:
                self._until_close = True
        elif self._length is None:
            self._until_close = True
        else:
            self._left = self._length
            self.complete = not self._left
        self.keep_alive = self.keep_alive and not self._until_close

    def _values(self, name: str) -> list[str]:
        wanted = name.lower()
        return [value for key, value in self.headers if key.lower() == wanted]

    # The body.

    def _read_body(self, data: bytes) -> None:
        """Reads what has come behind the head, or of the body."""
        if not data:
            return
        if self.complete:
            self.excess = True
        elif self._until_close:
            self._add(data)
        elif self._decoder is None:
            self._add(data[: self._left])
            self.excess = len(data) > self._left
            self._left = max(self._left - len(data), 0)
            self.complete = not self._left
        else:
            for piece in self._decoder.feed(data):
                self._add(piece)
            if self._decoder.problem is not None:
                raise NotHTTP(self._decoder.problem.reason)
            end = self._decoder.end
            self.complete = end >= 0
            self.excess = self.complete and end < len(data)

    def _add(self, piece: bytes) -> None:
        self.received += len(piece)
        self._body.append(piece)


def _header(line: str) -> tuple[str, str]:
    match = _HEADER.fullmatch(line)
    if match is None:
        raise NotHTTP(f"malformed header {line[:80]!r}")
    return match[1], match[2].rstrip(" \t")


def _elements(values: list[str]) -> list[str]:
    """The elements of a list on several lines, in lower case (RFC 9110 section 5.6.1)."""
    parts = ",".join(values).lower().split(",")
    return [element for part in parts if (element := part.strip(" \t"))]


def _length(lines: list[str]) -> int:
    """Bytes of body (RFC 9110 section 8.6): equal values in a list count as one."""
    values = [part.strip(" \t") for part in ",".join(lines).split(",")]
    value = values[0]
    if len(set(values)) > 1 or not (value.isascii() and value.isdigit()):
        raise NotHTTP(f"Content-Length is not a number of bytes: {', '.join(values)[:80]!r}")
    if len(value) > 19:
        raise NotHTTP("Content-Length overflows")
    return int(value)
