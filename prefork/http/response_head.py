"""A response's head: status and headers of an application to bytes, and how its body is framed."""

import re
from collections.abc import Sequence
from enum import Enum
from http import HTTPStatus
from time import gmtime, monotonic, time
from typing import Final

from msgspec import Struct

from prefork.http.composed_head import ResponseFraming, ResponseHead
from prefork.http.head_rules import TOKEN
from prefork.http.request import Request
from prefork.http.streamed_body import StreamedBody
from prefork.quantity import quantity

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
_BODILESS: Final = frozenset({204, 205, 304})
_STATUS: Final = re.compile(r"[2-9][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 section 5.5
_LENGTH_DIGITS: Final = 18
_H: Final = ord("H")
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
_KEPT: Final = 1024
_VALUE_KEPT: Final = 256
"""Characters of a value up to which its line is kept."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

JOINED: Final = 16 * 1024
"""Bytes up to which a body is copied behind its head: one send(2) costs more than the copy."""


class HeaderKind(Enum):
    """What a header is to the server."""

    PLAIN = "plain"
    SECRET = "secret"
    """Plain, and its value is not kept."""
    LENGTH = "length"
    DATE = "date"
    SERVER = "server"
    CONNECTION = "connection"
    CLOSE = "close"
    DROPPED = "dropped"


# Bound once: an enum's member is looked up by a descriptor, at 80 ns each time in CPython 3.11.
_PLAIN: Final = HeaderKind.PLAIN
_SECRET: Final = HeaderKind.SECRET
_IS_LENGTH: Final = HeaderKind.LENGTH
_IS_CLOSE: Final = HeaderKind.CLOSE
_IS_DROPPED: Final = HeaderKind.DROPPED
_NONE: Final = ResponseFraming.NONE
_LENGTH_FRAMED: Final = ResponseFraming.LENGTH
_CHUNKED: Final = ResponseFraming.CHUNKED
_CLOSE_FRAMED: Final = ResponseFraming.CLOSE

_KINDS: Final = {
    "content-length": HeaderKind.LENGTH,
    "date": HeaderKind.DATE,
    "server": HeaderKind.SERVER,
    "connection": HeaderKind.CONNECTION,
    "set-cookie": _SECRET,
    **dict.fromkeys(_HOP_BY_HOP, _IS_DROPPED),
}


class _Special(Struct, frozen=True):
    """A header that the server has to understand, other than a length."""

    kind: HeaderKind
    line: bytes


_Entry = bytes | int | _Special
"""A header: its line, or the number of a Content-Length, or what is neither."""

# Applications send the same few statuses, names and pairs again and again.  A name or a pair that
# is in here was checked; what is not is checked each time.
_statuses: dict[str, tuple[bytes, int]] = {}
_names: dict[str, tuple[bytes, HeaderKind]] = {}
_lines: dict[tuple[str, str], _Entry] = {}


def _status(status: str) -> tuple[bytes, int]:
    if not isinstance(status, str):
        raise TypeError(f"status must be a str, not {type(status).__name__}")
    if not _STATUS.fullmatch(status):
        raise ValueError(f"status must be three digits from 200 and a reason, not {status!r}")
    reason = status if len(status) > 3 else status + " "
    found = (b"HTTP/1.1 " + reason.encode("latin-1") + b"\r\n", int(status[:3]))
    if len(_statuses) >= _KEPT:
        _statuses.clear()
    _statuses[status] = found
    return found


def _name(name: str) -> tuple[bytes, HeaderKind]:
    """How the line of a header begins, and its kind."""
    try:
        plain = name.encode("ascii")
    except UnicodeEncodeError:
        plain = b""
    if not TOKEN.fullmatch(plain):
        raise ValueError(f"header name is not a token: {name!r}")
    found = plain + b": ", _KINDS.get(name.lower(), _PLAIN)
    if len(_names) >= _KEPT:
        _names.clear()
    _names[name] = found
    return found


def _line(pair: tuple[str, str]) -> _Entry:
    name, value = pair
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"header name and value must be str, not {pair!r}")
    start, kind = _names.get(name) or _name(name)
    # What is printable ASCII needs no regular expression, and most is.
    if not (value.isascii() and value.isprintable()) and not _VALUE.fullmatch(value):
        raise ValueError(f"header {name} has a control or non-latin-1 character: {value!r}")
    found: _Entry
    if kind is _PLAIN or kind is _SECRET:
        found = start + value.encode("latin-1") + b"\r\n"
    elif kind is _IS_LENGTH:
        found = _length(value)
    else:
        found = _special(kind, start, value)
    if kind is not _SECRET and len(value) <= _VALUE_KEPT:
        if len(_lines) >= _KEPT:
            _lines.clear()
        _lines[pair] = found
    return found


def _length(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) <= _LENGTH_DIGITS):
        raise ValueError(f"Content-Length is not a number: {value!r}")
    return int(value)


def _special(kind: HeaderKind, start: bytes, value: str) -> _Special:
    if kind is HeaderKind.CONNECTION:
        # An application may want the connection closed; the rest of the header is ours.
        tokens = {token.strip() for token in value.lower().split(",")}
        return _Special(_IS_CLOSE if "close" in tokens else _IS_DROPPED, b"")
    if kind is _IS_DROPPED:
        return _Special(kind, b"")
    return _Special(kind, start + value.encode("latin-1") + b"\r\n")


_server = b"Server: prefork\r\n"
_until = 0.0
"""Monotonic seconds at which the second of `_date` is over."""
_date = b""
_stock = b""
"""Date and server together."""

_Given = tuple[str, Headers, bool, bool]
_recent: dict[int, tuple[_Given, ResponseHead]] = {}
"""The last response of this second with a body of that size, but for HEAD: what it was made of, and
its head.  The next one is most often the same."""
_RECENT: Final = 256


def name_server(named: bool) -> None:
    """Whether this process's responses have a `Server` of ours (RFC 9110 section 10.2.4)."""
    global _server, _until
    _server = b"Server: prefork\r\n" if named else b""
    _until = 0.0


def second_ends() -> float:
    """Monotonic seconds until which a head that was just composed has the right `Date`."""
    return _until


def _begin_second() -> None:
    """Makes its `Date` (RFC 9110 section 6.6.1), and drops the heads that have another.

    Should the clock be set meanwhile, that shows when this second is over.
    """
    global _until, _date, _stock, _recent
    began, now = monotonic(), time()
    t = gmtime(now)
    # Not strftime: its names follow the locale.
    _date = (
        f"Date: {_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} GMT\r\n"
    ).encode()
    _stock = _date + _server
    # A new dict, not the old one emptied: another thread may yet put a head into the old one.
    _recent = {}
    _until = began + 1.0 - now % 1.0


def compose(
    status: str, headers: Headers, request: Request, closing: bool = False, known: int = -1
) -> ResponseHead:
    """The head of a response.

    `closing`: the connection ends with it, whatever its client has asked for.  `known` is the size
    of the body in bytes if it is complete, else -1.  Without a Content-Length of the
    application's, the body is framed by `known`, else chunked, else (for HTTP/1.0) by the end of
    the connection.  Raises TypeError or ValueError for a status or a header that an application may
    not send; none of it then reached the client.
    """
    keep_alive = request.keep_alive and not closing
    body = request.body
    if body is not None and type(body) is StreamedBody and not body.drainable:
        keep_alive = False
    if monotonic() >= _until:
        _begin_second()
    recent, id_line = _recent, request.id_line
    given = (status, headers, request.http11, keep_alive)
    last = recent.get(known)
    plain = request.line[0] != _H and not id_line  # not a slice of it, which takes 700 instructions
    if plain and last is not None and last[0] == given:
        return last[1]
    headless = request.line.startswith(b"HEAD ")
    head = _composed(*given[:3], headless, keep_alive, known, id_line)
    if plain and len(recent) < _RECENT and type(headers) is list:
        recent[known] = (status, headers.copy(), *given[2:]), head
    return head


def _composed(
    status: str,
    headers: Headers,
    http11: bool,
    headless: bool,
    keep_alive: bool,
    known: int,
    id_line: bytes = b"",
) -> ResponseHead:
    """`headless`: the request is HEAD."""
    line, code = _statuses.get(status) or _status(status)
    lines = [line, id_line]
    length = -1
    dated = named = False
    for pair in headers:
        entry = _lines.get(pair)
        if entry is None:
            entry = _line(pair)
        if type(entry) is bytes:
            lines.append(entry)
        elif type(entry) is int:
            if length >= 0 and length != entry:
                raise ValueError("two different Content-Length headers")
            length = entry
        elif type(entry) is _Special:
            kind = entry.kind
            if kind is _IS_CLOSE:
                keep_alive = False
            elif kind is not _IS_DROPPED:
                lines.append(entry.line)
                dated = dated or kind is HeaderKind.DATE
                named = named or kind is HeaderKind.SERVER
    if not (dated or named):
        lines.append(_stock)
    elif not dated:
        lines.append(_date)
    elif not named:
        lines.append(_server)
    if headless or code in _BODILESS:
        framing = _NONE
        if code == 205:
            # RFC 9110 section 15.3.6: no content, which the length has to show.
            length = 0
        elif code == 204:
            length = -1
        elif length < 0 and known > 0 and headless:
            # Section 8.6: with HEAD and 304 the length that a GET would have had, if it is known;
            # an empty body here tells nothing.
            length = known
        if length >= 0:
            lines.append(b"Content-Length: %d\r\n" % length)
        length = -1
    else:
        if length < 0:
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
        lines.append(b"Connection: close\r\n\r\n")
    elif http11:
        lines.append(b"\r\n")
    else:
        lines.append(b"Connection: keep-alive\r\n\r\n")
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
    return found if isinstance(found, bytes) else b""


def error(status: int, reason: str, *, method: str = "GET", headers: Headers = ()) -> bytes:
    """A whole plain response that ends the connection."""
    body = f"{status} {HTTPStatus(status).phrase}: {reason}\n".encode()
    line = f"{status} {HTTPStatus(status).phrase}"
    headers = [("Content-Type", "text/plain; charset=utf-8"), *headers]
    if monotonic() >= _until:
        _begin_second()
    head = _composed(line, headers, True, method == "HEAD", False, len(body))
    return head.data if method == "HEAD" else head.data + body


def body_size(response: bytes) -> int:
    """The bytes behind the head of a whole response."""
    return len(response) - response.index(b"\r\n\r\n") - 4


def too_long(length: int) -> str:
    """The error of an application whose body has more bytes than its Content-Length."""
    return f"the body is longer than its Content-Length of {length}"


def too_short(missing: int, length: int) -> str:
    """The error of an application whose body ended `missing` bytes before its Content-Length."""
    return f"the body ended {quantity(missing, 'byte')} short of its Content-Length of {length}"
