"""The head of a request: its bytes to an environ (PEP 3333, RFC 3875), and where its body ends.

The grammar is RFC 9112 sections 2, 3 and 6, and RFC 9110.  `read_head` reads a head that is whole.
`HeadScan` looks at one that is not, so that what can't become a request is refused at once.  Which
problem of a head is reported depends on its bytes alone, not on the pieces in which they came.
"""

import re
from sys import maxsize
from typing import Final, NamedTuple

from prefork.http.field_lines import FieldLines, has_control
from prefork.http.head_rules import Reject, check_authority, known_authorities, split_target
from prefork.http.limits import RequestLimits
from prefork.http.long_lines import LONG, split_lines
from prefork.http.request import Environ
from prefork.http.untrusted_proxy import untrusted_proxies
from prefork.quantity import quantity

CHUNKED: Final = -1
"""In place of a body's length: it comes in chunks."""

_PROTOCOLS: Final = frozenset({"HTTP/1.1", "HTTP/1.0"})

# RFC 9110 section 6.2: a message of a later minor version is read as one of the highest that is
# known.
_LATER: Final = re.compile(rb"HTTP/1\.[2-9]").fullmatch

# RFC 9110 section 9.1: methods are case-sensitive tokens, and any token may be one.  These are the
# ones that are not checked each time; CONNECT is refused, and is not among them.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++").fullmatch

# RFC 9112 section 3 allows to split at any run of spaces.  Other white space is refused.
_REQUEST_LINE: Final = re.compile(rb"([^ ]++) ++([^ ]++) ++([^ ]++)").fullmatch
_SIMPLE_REQUEST: Final = re.compile(rb"[^ ]++ ++/[^ ]*+").fullmatch  # HTTP/0.9
_OTHER_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]|(?:RTSP|ICE)/.*+").fullmatch
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]").search

# Lists that a client sends on several lines are joined by a comma (RFC 9110 section 5.3); these
# are no lists.
_SINGULAR: Final = frozenset({"CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_HOST"})

_PERSISTENCE: Final = {"keep-alive": True, "Keep-Alive": True, "close": False}

# RFC 9110 section 8.6: a length may have any number of digits.  One of 2^64 or more is refused,
# since others would take it for a smaller one.
_LENGTH_MAX: Final = (1 << 64) - 1
_DIGITS: Final = len(str(_LENGTH_MAX))


Head = tuple[Environ, bytes, bool, bool, int, bool, list[tuple[str, str]]]
"""What a head says: the environ, without `wsgi.input`; the line, which is method and target with a
space between them; whether it is HTTP/1.1; whether the connection is kept; the length of the body
in bytes, or CHUNKED; whether the client waits for 100 before it sends that (RFC 9110 section
10.1.1); its field lines, as a Request has them.  A plain tuple: one with names takes 0.25 us to
make."""


class RequestLine(NamedTuple):
    """A request line that is valid."""

    method: str
    protocol: str
    path: str
    """PATH_INFO."""
    query: str
    target: str
    host: str | None
    """Of an absolute target."""
    line: bytes
    """Method and target, with one space between them."""


def read_request_line(line: bytes) -> RequestLine:
    """Raises Reject(400), Reject(501) for CONNECT, and Reject(505) for another version."""
    if _CONTROL(line):
        raise Reject(400, "the request line holds a byte that is not allowed in it")
    words = _REQUEST_LINE(line)
    if words is None:
        if _SIMPLE_REQUEST(line):
            raise Reject(505, "this server speaks HTTP/1.0 and HTTP/1.1")
        raise Reject(400, "the request line is not a method, a target and a version")
    method, target, version = words.groups()
    if _METHOD(method) is None:
        raise Reject(400, "the method is not a token")
    protocol = version.decode("latin-1")
    if _LATER(version):
        protocol = "HTTP/1.1"
    elif protocol not in _PROTOCOLS:
        if _OTHER_VERSION(version):  # RFC 9110 section 2.5
            raise Reject(505, "this server speaks HTTP/1.0 and HTTP/1.1")
        raise Reject(400, "the request line does not end in an HTTP version")
    if method == b"CONNECT":  # its target has a form of its own (RFC 9112 section 3.2.3)
        raise Reject(501, "CONNECT is for proxies")
    path, query, host = split_target(target, method)
    return RequestLine(
        *(method.decode(), protocol, path, query, target.decode("latin-1"), host),
        method + b" " + target,
    )


def read_head(
    data: bytes,
    base: Environ,
    peer: tuple[str, str],
    lines: FieldLines,
    limits: RequestLimits,
    gateway: bool = False,
) -> Head:
    """Reads a head that is whole, without the empty line at its end, or before its beginning.

    base: what the environ begins with.  peer: REMOTE_ADDR and REMOTE_PORT.  gateway: the peer is a
    trusted proxy, which has seen to the security of an https resource.

    Raises Reject with status 400, 413, 414, 417, 421, 431, 501 or 505.  Where a head has several
    problems, `HeadScan` knows which comes first.
    """
    if len(data) < LONG:
        fields, long = data.split(b"\r\n"), 0
    else:
        fields, long = split_lines(data)
    first = fields.pop(0)
    count = len(fields)
    line_limit, count_limit, size_limit, body_limit = limits[:4]
    size = len(first)
    if (
        (line_limit and size > line_limit)
        or (count_limit and count > count_limit)
        or (size_limit and len(data) - size > size_limit)
    ):
        raise Reject(431, "the head is larger than a limit")
    environ = base.copy()
    before = len(environ)
    # Without a step of Python's for each line that is kept.
    if not long:
        pairs = list(map(lines.read, fields))
    else:
        pairs = list(map(lines.read, fields[: long - 1]))
        pairs.append(lines.read_long(fields[long - 1]))
        pairs += map(lines.read, fields[long:])
    environ.update(pairs)
    if len(environ) - before != count:
        environ = _with_repeated(base, pairs)
    if "" in environ:
        del environ[""]
        if gateway:
            untrusted_proxies.inspect_trusted(peer[0], data)
        else:
            untrusted_proxies.inspect(peer[0], data)

    # The request line. What is usual is read here, and all else by `read_request_line`.
    text = first.decode("latin-1")
    words = text.split(" ")
    host = None
    if (
        len(words) == 3
        and words[0] in _METHODS
        and words[2] in _PROTOCOLS
        and (target := words[1])[:1] == "/"
        and target.isascii()
        and target.isprintable()
        and "%" not in target
        and "#" not in target
    ):
        method, _, protocol = words
        path, _, query = target.partition("?")
        line = first[:-9]
    else:
        method, protocol, path, query, target, host, line = read_request_line(first)
    environ["REQUEST_METHOD"] = method
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = query
    environ["RAW_URI"] = target
    environ["SERVER_PROTOCOL"] = protocol
    environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = peer
    http11 = protocol == "HTTP/1.1"

    # RFC 9112 section 3.2: exactly one Host in HTTP/1.1, and a valid one in any version.
    authority = environ.get("HTTP_HOST")
    if authority is None:
        if http11:
            raise Reject(400, "Host is missing")
    elif authority not in known_authorities:
        check_authority(authority)
    if host is not None:
        environ["HTTP_HOST"] = host  # section 3.2.2
        # RFC 9110 section 7.4: an https resource is not served over a connection in the clear.
        if not gateway and target[:6].lower() == "https:" and base.get("wsgi.url_scheme") == "http":
            raise Reject(421, "an https URL was asked for over a connection without TLS")

    connection = environ.get("HTTP_CONNECTION")
    keep_alive = http11
    if connection is not None:
        known = _PERSISTENCE.get(connection)
        keep_alive = _persists(connection, http11=http11) if known is None else known

    length = 0
    if "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ:
        length = _body_length(environ, body_limit, http11=http11)
    expects = False
    if "HTTP_EXPECT" in environ:
        expects = _expects_continue(environ["HTTP_EXPECT"]) and http11 and length != 0
    return environ, line, http11, keep_alive, length, expects, pairs


def _with_repeated(base: Environ, pairs: list[tuple[str, str]]) -> Environ:
    """Some fields are on several lines."""
    environ = base.copy()
    together: dict[str, list[str]] = {}
    for key, value in pairs:
        if key not in environ:
            environ[key] = value
        elif key in _SINGULAR:
            # RFC 9112 sections 3.2 and 6.3.
            raise Reject(400, f"{key.removeprefix('HTTP_')} is given more than once")
        elif key in together:
            together[key].append(value)
        else:
            together[key] = [environ[key], value]
    for key, values in together.items():
        # RFC 9113 section 8.2.3 has the same case for cookies.
        environ[key] = ("; " if key == "HTTP_COOKIE" else ", ").join(values)
    return environ


def _elements(value: str) -> list[str]:
    """The elements of a list in lower case (RFC 9110 section 5.6.1)."""
    return [each for part in value.lower().split(",") if (each := part.strip(" \t"))]


def _persists(connection: str, *, http11: bool) -> bool:
    """RFC 9112 section 9.3."""
    options = _elements(connection)
    return "close" not in options and (http11 or "keep-alive" in options)


def _expects_continue(expect: str) -> bool:
    """Raises Reject(417) for what is no expectation of ours (RFC 9110 section 10.1.1)."""
    expectations = _elements(expect)
    if any(each != "100-continue" for each in expectations):
        raise Reject(417, "unknown expectation")
    return bool(expectations)


def _body_length(environ: Environ, limit: int, *, http11: bool) -> int:
    """Bytes of body, or CHUNKED (RFC 9112 section 6.3).  limit: bytes, 0 for none.

    Raises Reject with status 400, 413 or 501.
    """
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    length = environ.get("CONTENT_LENGTH")
    if coding is None:
        # A sign, a list and white space between digits are ways to be read differently.
        # Of the characters of latin-1, 0 to 9 are decimal.
        if length is None or not length.isdecimal():
            raise Reject(400, "Content-Length is not a number of bytes")
        if len(length) > _DIGITS:
            length = length.lstrip("0")[: _DIGITS + 1] or "0"
        size = int(length)
        if size > _LENGTH_MAX:
            raise Reject(400, "Content-Length is larger than 2^64 - 1")
        if limit and size > limit:
            raise Reject(413, f"body is larger than {quantity(limit, 'byte')}")
        return size
    if length is not None:  # section 6.3, item 3: likely an attempt at smuggling
        raise Reject(400, "Content-Length together with Transfer-Encoding")
    if not http11:  # section 6.1: the framing is faulty
        raise Reject(400, "Transfer-Encoding in HTTP/1.0")
    # Section 6.1: a coding that is not understood. An empty element of the list is not generated
    # by senders (RFC 9110 section 5.6.1.1), and is seen in attempts at smuggling.
    if coding.lower() != "chunked":
        raise Reject(501, "unknown transfer coding")
    return CHUNKED


class HeadScan:
    """Looks at a head while it comes, from its first byte on, line by line."""

    __slots__ = ("_at", "_count", "_limits", "_lines", "_scanned", "_section")

    def __init__(self, lines: FieldLines, limits: RequestLimits) -> None:
        self._lines = lines
        self._limits = limits
        self._at = 0  # where the line begins that has no end yet
        self._scanned = 0  # up to here it holds nothing that is refused
        self._section = -1  # where the field lines begin
        self._count = 0  # of whole field lines

    def look(self, data: bytes | bytearray) -> int:
        """Returns where the empty line begins that ends the head, with the CRLF before it, or -1.

        data: all that has come of the head, and nothing before it.  Raises Reject for what no
        further bytes can make a request.  The time taken is linear in the bytes that are new.
        """
        while (end := data.find(b"\r\n", max(self._at, self._scanned - 1))) >= 0:
            if end == self._at:
                return end - 2
            self._check_line(data, end)
            self._at = self._scanned = end + 2
            if self._section < 0:
                self._section = end + 2
            else:
                self._count += 1
        # A CR at the end is half of a line's end, so far.
        end = len(data) - data.endswith(b"\r")
        if end > self._at:
            self._check_part(data, end)
            self._scanned = end
        return -1

    def _check_line(self, data: bytes | bytearray, end: int) -> None:
        self._check_part(data, end)
        line = bytes(data[self._at : end])
        if self._section < 0:
            read_request_line(line)
        else:
            self._lines.read(line)

    def _check_part(self, data: bytes | bytearray, end: int) -> None:
        """Checks the bytes of a line up to `end` against the limits, and for what is in no line."""
        limits = self._limits
        at = self._at
        if self._section < 0:
            room = limits.request_line or maxsize
            if _CONTROL(data, self._scanned, min(end, at + room)):
                raise Reject(400, "the request line holds a byte that is not allowed in it")
            if end - at > room:
                raise Reject(414, f"request line is longer than {quantity(room, 'byte')}")
            return
        if limits.header_count and self._count >= limits.header_count:
            raise Reject(431, f"more than {quantity(limits.header_count, 'header')}")
        # The limit holds for all field lines with their ends.
        room = (limits.header_size or maxsize) - (at - self._section) - 2
        if has_control(data, self._scanned, min(end, at + room)):
            raise Reject(400, "a field line holds a control character, a bare CR or a bare LF")
        if end - at > room:
            raise Reject(431, f"headers are larger than {quantity(limits.header_size, 'byte')}")
