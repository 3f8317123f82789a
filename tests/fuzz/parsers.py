"""The first request in some bytes, as each of several parsers reads it.

Each is fed the bytes whole.  What they find is brought into one form: names in lower case, values
without white space around them, in the order in which they came.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import h11
import httptools

from prefork.http.limits import RequestLimits
from prefork.http.reader import RequestReader

try:
    import gunicorn_h1c
except ImportError:  # it has no wheel, and there may be no compiler
    gunicorn_h1c = None

BASE = {"wsgi.url_scheme": "http", "REMOTE_ADDR": "", "REMOTE_PORT": ""}
LIMITS = RequestLimits(1 << 20, 1000, 1 << 20, 1 << 30, 1 << 30)

_SINGULAR = ("content-length", "content-type", "host")


class Read(NamedTuple):
    """A request."""

    method: bytes
    target: bytes
    version: str
    fields: dict[str, str]
    """As the environ has them, without what says where the body ends."""
    body: bytes
    end: int
    """Where the next request begins."""


class Refused(NamedTuple):
    """No request, and none whatever comes."""

    why: str


class Unfinished(NamedTuple):
    """The beginning of one, or of the bytes before it."""


Outcome = Read | Refused | Unfinished


def environ_of(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """What CGI (RFC 3875 section 4.1.18) makes of fields; written anew, to be compared with."""
    environ: dict[str, str] = {}
    for name, value in fields:
        lower = name.decode("latin-1").lower()
        if "_" in lower or lower == "forwarded" or lower.startswith("x-forwarded-"):
            continue
        if lower in ("content-length", "transfer-encoding"):
            continue
        key = lower.upper().replace("-", "_")
        key = key if lower == "content-type" else "HTTP_" + key
        text = value.decode("latin-1").strip(" \t")
        if key in environ:
            separator = "; " if lower == "cookie" else ", "
            environ[key] += separator + text
        else:
            environ[key] = text
    return environ


def ours(data: bytes, size: int = 0) -> Outcome:
    """size: of the pieces in which it is fed; 0 for the whole."""
    reader = RequestReader(BASE, LIMITS)
    request = None
    at = 0
    while request is None and reader.error is None and at < len(data):
        piece = data[at : at + (size or len(data))]
        at += len(piece)
        request = reader.feed(piece)
    if request is None:
        if reader.error is not None:
            return Refused(f"{reader.error.status} {reader.error.reason}")
        return Unfinished()
    environ = dict(request.environ)
    body = environ.pop("wsgi.input").read()
    method, _, target = request.line.partition(b" ")
    fields = {k: v for k, v in environ.items() if k.startswith("HTTP_") or k == "CONTENT_TYPE"}
    end = at - len(reader.unread) + reader._at
    if reader.last:
        # What follows the last request of a connection is dropped: it ends there all the same.
        end = _first(1, len(data), lambda size: _completes(data[:size]))
    assert environ["REQUEST_METHOD"].encode() == method
    return Read(method, target, environ["SERVER_PROTOCOL"], fields, body, end)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first number for which something holds that holds for each after it."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _completes(data: bytes) -> bool:
    return RequestReader(BASE, LIMITS).feed(data) is not None


class _Llhttp:
    """What llhttp calls back with, for the first request."""

    def __init__(self) -> None:
        self.target = self.body = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.method = b""
        self.version = ""
        self.began = self.in_body = self.complete = False
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        if not self.complete:
            self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete and not self.in_body:
            self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        if not self.complete:
            self.in_body = True
            self.method = self.parser.get_method()
            self.version = "HTTP/" + self.parser.get_http_version()

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.body += data

    def on_message_complete(self) -> None:
        self.complete = True

    def feed(self, data: bytes) -> str:
        """Returns why it is refused, or nothing."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            return "" if self.complete else str(error) or "refused"
        return ""


def _llhttp_completes(data: bytes) -> bool:
    parser = _Llhttp()
    parser.feed(data)
    return parser.complete


def llhttp(data: bytes, guess: int = 0) -> Outcome:
    """guess: where the request may end; llhttp does not tell, so that it has to be found out."""
    whole = _Llhttp()
    why = whole.feed(data)
    if why:
        return Refused(why)
    if not whole.complete:
        return Unfinished()
    if guess and _llhttp_completes(data[:guess]) and not _llhttp_completes(data[: guess - 1]):
        end = guess
    else:
        end = _first(1, len(data), lambda size: _llhttp_completes(data[:size]))
    fields = environ_of(whole.fields)
    return Read(whole.method, whole.target, whole.version, fields, whole.body, end)


def h11_(data: bytes, guess: int = 0) -> Outcome:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 30)
    request: Any = None
    body = b""
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return Unfinished()
            if event is h11.PAUSED:
                return Refused("paused")
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
    except h11.RemoteProtocolError as error:
        return Refused(str(error))
    end = len(data) - len(connection.trailing_data[0])
    version = "HTTP/" + request.http_version.decode()
    fields = environ_of([(bytes(name), bytes(value)) for name, value in request.headers])
    return Read(bytes(request.method), bytes(request.target), version, fields, body, end)


def h1c(data: bytes, guess: int = 0) -> Outcome:
    body: list[bytes] = []
    parser = gunicorn_h1c.H1CProtocol(
        on_body=lambda piece: body.append(bytes(piece)),
        limit_request_line=1 << 20,
        limit_request_fields=1000,
        limit_request_field_size=1 << 20,
        permit_unconventional_http_method=True,
        limit_remaining=1 << 30,
    )
    try:
        parser.feed(data)
    except (gunicorn_h1c.ParseError, ValueError) as error:
        if not parser.is_complete:
            return Refused(str(error))
    if not parser.is_complete:
        return Unfinished()
    major, minor = parser.http_version
    end = len(data) - len(parser.remaining())
    fields = environ_of(parser.headers)
    return Read(
        *(bytes(parser.method), bytes(parser.path), f"HTTP/{major}.{minor}", fields),
        *(b"".join(body), end),
    )


PEERS: dict[str, Callable[[bytes, int], Outcome]] = {"llhttp": llhttp, "h11": h11_}
if gunicorn_h1c is not None:
    PEERS["h1c"] = h1c


class Difference(NamedTuple):
    """Between a request as we read it, and as a peer does."""

    peer: str
    what: str
    """A field of `Read`, or "unfinished"."""
    ours: Read
    theirs: Outcome
    data: bytes
    """The request and what follows it."""


def differences(data: bytes) -> tuple[list[Difference], int]:
    """For each request that we take, and how many these are.

    A peer that refuses what we take reads nothing differently.
    """
    found = []
    count = 0
    while data:
        read = ours(data)
        if not isinstance(read, Read):
            break
        count += 1
        for name, peer in PEERS.items():
            other = peer(data, read.end)
            if isinstance(other, Unfinished):
                found.append(Difference(name, "unfinished", read, other, data))
            elif isinstance(other, Read) and other != read:
                for what in Read._fields:
                    if getattr(other, what) != getattr(read, what):
                        found.append(Difference(name, what, read, other, data))
        data = data[read.end :]
    return found, count


def only_we_refuse(data: bytes) -> str:
    """Why we refuse the first request, if all others take it; else nothing."""
    read = ours(data)
    if not isinstance(read, Refused):
        return ""
    taken = all(isinstance(peer(data, 0), Read) for peer in PEERS.values())
    return read.why if taken else ""
