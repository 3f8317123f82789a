"""A response's head: status and headers of an application to bytes, and how its body is framed."""

import re
from collections.abc import Sequence
from enum import Enum
from http import HTTPStatus
from time import gmtime, monotonic, time
from typing import Final

from prefork.http.composed_head import RepeatedResponse, ResponseFraming, ResponseHead
from prefork.http.head_rules import TOKEN
from prefork.http.request import Request
from prefork.http.streamed_body import StreamedBody

Headers = Sequence[tuple[str, str]]

# Only the server may send headers of the connection (PEP 3333, RFC 9110 section 7.6.1).
_HOP_BY_HOP: Final = frozenset(
    {
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_STATUS = re.compile(r"[2-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 section 5.5
_LENGTH = re.compile(r"[0-9]{1,18}")
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
_KEPT = 1024

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

JOINED: Final = 16 * 1024
"""Bytes up to which a body is copied behind its head: one send(2) costs more than the copy."""


class HeaderKind(Enum):
    """Headers that the server has to understand."""

    LENGTH = "length"
    DATE = "date"
    SERVER = "server"
    CLOSE = "close"
    DROPPED = "dropped"


class _Special:
    __slots__ = ("kind", "line", "number")

    def __init__(self, kind: HeaderKind, line: bytes, number: int = 0) -> None:
        self.kind = kind
        self.line = line
        self.number = number


# Applications send the same few pairs again and again; to check and encode one takes over a
# microsecond, to find it a tenth.
_statuses: dict[str, tuple[bytes, int]] = {}
_lines: dict[tuple[str, str], bytes | _Special] = {}


def _status(status: str) -> tuple[bytes, int]:
    if not isinstance(status, str):
        raise TypeError(f"status must be a str, not {type(status).__name__}")
    if not _STATUS.fullmatch(status):
        raise ValueError(f"status must be three digits from 200 and a reason, not {status!r}")
    reason = status if len(status) > 3 else status + " "
    found = (b"HTTP/1.1 " + reason.encode("latin-1") + b"\r\n", int(status[:3]))
    if len(_statuses) < _KEPT:
        _statuses[status] = found
    return found


def _line(pair: tuple[str, str]) -> bytes | _Special:
    name, value = pair
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"header name and value must be str, not {pair!r}")
    try:
        plain = name.encode("ascii")
    except UnicodeEncodeError:
        plain = b""
    if not TOKEN.fullmatch(plain):
        raise ValueError(f"header name is not a token: {name!r}")
    if not _VALUE.fullmatch(value):
        raise ValueError(f"header {name} has a control or non-latin-1 character: {value!r}")
    found = _classify(name.lower(), value, plain + b": " + value.encode("latin-1") + b"\r\n")
    if len(_lines) < _KEPT and len(value) <= 256:
        _lines[pair] = found
    return found


def _classify(name: str, value: str, line: bytes) -> bytes | _Special:
    if name == "content-length":
        if not _LENGTH.fullmatch(value):
            raise ValueError(f"Content-Length is not a number: {value!r}")
        return _Special(HeaderKind.LENGTH, line, int(value))
    if name == "date":
        return _Special(HeaderKind.DATE, line)
    if name == "server":
        return _Special(HeaderKind.SERVER, line)
    if name == "connection":
        # An application may want the connection closed; the rest of the header is ours.
        tokens = {token.strip() for token in value.lower().split(",")}
        return _Special(HeaderKind.CLOSE if "close" in tokens else HeaderKind.DROPPED, b"")
    if name in _HOP_BY_HOP:
        return _Special(HeaderKind.DROPPED, b"")
    return line


_server = b"Server: prefork\r\n"
_until = 0.0
"""Monotonic seconds at which the second of `_date` is over."""
_date = b""


def name_server(named: bool) -> None:
    """Whether this process's responses have a `Server` of ours (RFC 9110 section 10.2.4)."""
    global _server, _heads
    _server = b"Server: prefork\r\n" if named else b""
    _heads = {}


def _begin_second() -> None:
    """Makes its `Date` (RFC 9110 section 6.6.1), and drops the heads that have another.

    Should the clock be set meanwhile, that shows when this second is over.
    """
    global _until, _date, _heads
    began, now = monotonic(), time()
    t = gmtime(now)
    # Not strftime: its names follow the locale.
    _date = (
        f"Date: {_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT\r\n"
    ).encode()
    # A new dict, not the old one emptied: another thread may yet put a head into the old one.
    _heads = {}
    _until = began + 1.0 - now % 1.0


# Bound once: an enum's member is looked up by a descriptor, at 80 ns each time in CPython 3.11.
_NONE, _LENGTH_FRAMED = ResponseFraming.NONE, ResponseFraming.LENGTH
_CHUNKED, _CLOSE_FRAMED = ResponseFraming.CHUNKED, ResponseFraming.CLOSE
_IS_LENGTH, _IS_CLOSE, _IS_DROPPED = HeaderKind.LENGTH, HeaderKind.CLOSE, HeaderKind.DROPPED


_heads: dict[tuple[object, ...], ResponseHead] = {}
"""Those composed in this second, by all that went into them."""
_HEADS_KEPT = 256


def compose(
    status: str, headers: Headers, request: Request, closing: bool = False, known: int = -1
) -> ResponseHead:
    """The head of a response, which others may share.

    `closing`: the connection ends with it, whatever its client has asked for.  `known` is the size
    of the body in bytes if it is complete, else -1.  Without a Content-Length of the
    application's, the body is framed by `known`, else chunked, else (for HTTP/1.0) by the end of
    the connection.  Raises TypeError or ValueError for a status or a header that an application may
    not send; none of it then reached the client.
    """
    repeated = request.repeated
    answered = None if repeated is None else repeated.answered
    if (
        answered is not None
        and answered.given == (status, headers, closing, known)
        and monotonic() < answered.until
    ):
        head = answered.head
    else:
        head = _looked_up(status, headers, request, closing, known)
    if request.id_line:
        # Not one of the headers: each is another one, and they are kept for the next response.
        return head.replaced(request.marked(head.data))
    return head


def _looked_up(
    status: str, headers: Headers, request: Request, closing: bool, known: int
) -> ResponseHead:
    keep_alive = request.keep_alive and not closing
    body = request.body
    if body is not None and type(body) is StreamedBody and not body.drainable:
        keep_alive = False
    method, http11 = request.method, request.http11
    if monotonic() >= _until:
        _begin_second()
    # Both of one second: _begin_second has them in reverse.
    until, heads = _until, _heads
    pairs = tuple(headers)
    key = (status, pairs, method == "HEAD", http11, keep_alive, known)
    head = heads.get(key)
    if head is None:
        head = _composed(status, pairs, method, http11, keep_alive, known)
        if len(heads) < _HEADS_KEPT:
            heads[key] = head
    elif request.repeated is not None:
        given = (status, list(pairs), closing, known)
        request.repeated.answered = RepeatedResponse(given, head, until)
    return head


def _composed(
    status: str, headers: Headers, method: str, http11: bool, keep_alive: bool, known: int
) -> ResponseHead:
    found = _statuses.get(status)
    line, code = found if found is not None else _status(status)
    lines = [line]
    length = -1
    dated = named = False
    for pair in headers:
        entry = _lines.get(pair)
        if entry is None:
            entry = _line(pair)
        if isinstance(entry, bytes):
            lines.append(entry)
            continue
        kind = entry.kind
        if kind is _IS_LENGTH:
            if length >= 0 and length != entry.number:
                raise ValueError("two different Content-Length headers")
            length = entry.number
        elif kind is _IS_CLOSE:
            keep_alive = False
        elif kind is not _IS_DROPPED:
            lines.append(entry.line)
            dated = dated or kind is HeaderKind.DATE
            named = named or kind is HeaderKind.SERVER
    if not dated:
        lines.append(_date)
    if not named:
        lines.append(_server)
    if code == 204 or code == 304 or method == "HEAD":
        # RFC 9110 section 8.6: no Content-Length with 204, and with the two others only the one
        # that a GET would have had, so that an empty body here tells nothing.
        framing = _NONE
        if length < 0 and known > 0 and method == "HEAD":
            length = known
        if code != 204 and length >= 0:
            lines.append(b"Content-Length: %d\r\n" % length)
        length = -1
    elif code == 205:
        # Section 15.3.6: no content, which the length has to show.
        lines.append(b"Content-Length: 0\r\n")
        framing = _NONE
        length = -1
    else:
        if length < 0 and known >= 0:
            length = known
        if length >= 0:
            lines.append(b"Content-Length: %d\r\n" % length)
            framing = _LENGTH_FRAMED
        elif http11:
            lines.append(b"Transfer-Encoding: chunked\r\n")
            framing = _CHUNKED
        else:
            framing = _CLOSE_FRAMED
            keep_alive = False
    if not keep_alive:
        lines.append(b"Connection: close\r\n")
    elif not http11:
        lines.append(b"Connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return ResponseHead(b"".join(lines), code, framing, length, keep_alive)


def early_hints(headers: Headers) -> bytes:
    """An interim response 103 (RFC 8297).  Raises TypeError or ValueError as `compose` does.

    Headers of final responses only, such as a length, are left out.
    """
    return b"HTTP/1.1 103 Early Hints\r\n" + interim_lines(headers) + b"\r\n"


def interim_lines(headers: Headers) -> bytes:
    """The lines of headers in an interim response (RFC 9110 section 15.2).

    Raises and leaves out as `early_hints` does.
    """
    found = (_lines.get(pair) or _line(pair) for pair in headers)
    return b"".join(line for line in found if isinstance(line, bytes))


def field_line(pair: tuple[str, str]) -> bytes:
    """A field line of a trailer section.  Raises TypeError or ValueError as `compose` does."""
    found = _lines.get(pair) or _line(pair)
    return found if isinstance(found, bytes) else found.line


def error(status: int, reason: str, *, method: str = "GET", headers: Headers = ()) -> bytes:
    """A whole plain response that ends the connection."""
    body = f"{status} {HTTPStatus(status).phrase}: {reason}\n".encode()
    line = f"{status} {HTTPStatus(status).phrase}"
    headers = [("Content-Type", "text/plain; charset=utf-8"), *headers]
    if monotonic() >= _until:
        _begin_second()
    head = _composed(line, headers, method, True, False, len(body))
    return head.data if method == "HEAD" else head.data + body
