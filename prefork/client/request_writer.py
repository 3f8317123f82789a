"""Requests as bytes, and the request that follows a redirect."""

import re

import msgspec

from prefork import __version__
from prefork.client.content import RequestContent
from prefork.client.url import URL, resolve

REDIRECTS = frozenset({301, 302, 303, 307, 308})

# Safe to send again if it is not known whether the first one arrived (RFC 9110 section 9.2.2).
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})

# Of the headers that a user gives, those that hold no secret, whatever their value.  Any other name
# may be that of a key or a token.
_HARMLESS = frozenset(
    {
        *("accept", "accept-charset", "accept-encoding", "accept-language", "user-agent"),
        *("cache-control", "pragma", "connection", "te", "range", "transfer-encoding"),
        *("if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"),
        *("content-type", "content-encoding", "content-language", "expect", "dnt"),
    }
)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class ClientRequest(msgspec.Struct, frozen=True):
    """A request.  A header in `headers` replaces the default one; the value None removes it."""

    url: URL
    method: str = "GET"
    headers: tuple[tuple[str, str | None], ...] = ()
    body: RequestContent | None = None
    withheld: tuple[str, ...] = ()
    """Names of the user's headers that were dropped since a redirect led to another origin."""

    @property
    def chunked(self) -> bool:
        """Whether the body is sent in chunks: its length is unknown, or a header says so."""
        if self.body is None:
            return False
        return self.body.length is None or "transfer-encoding" in _names(self.headers)

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again on another connection."""
        return self.method in _IDEMPOTENT and (self.body is None or self.body.replayable)

    @property
    def closes(self) -> bool:
        """Whether it has `Connection: close`."""
        return any(
            name.lower() == "connection" and value is not None and value.lower() == "close"
            for name, value in self.headers
        )

    def head(self) -> bytes:
        """The request line and the headers, with the empty line."""
        given = _names(self.headers)
        lines = [(name, value) for name, value in self._defaults() if name.lower() not in given]
        lines += [(name, value) for name, value in self.headers if value is not None]
        text = f"{self.method} {self.url.target} HTTP/1.1\r\n"
        text += "".join(f"{name}: {value}\r\n" for name, value in lines)
        return (text + "\r\n").encode("latin-1")

    def _defaults(self) -> list[tuple[str, str]]:
        lines = [
            ("Host", self.url.authority),
            ("User-Agent", f"prefork/{__version__}"),
            ("Accept", "*/*"),
        ]
        authorization = self.url.authorization
        if authorization is not None:
            lines.append(("Authorization", authorization))
        if self.body is not None:
            lines.append(("Content-Type", self.body.content_type))
        # There is no Expect: 100-continue, which would cost a wait. The response is read while the
        # body is sent, and an early error stops the sending.
        if self.body is not None and self.chunked:
            lines.append(("Transfer-Encoding", "chunked"))
        elif self.body is not None:
            lines.append(("Content-Length", str(self.body.length)))
        elif self.method in ("POST", "PUT", "PATCH"):
            # RFC 9110 section 8.6: these have a body, be it empty.
            lines.append(("Content-Length", "0"))
        return lines


def check_method(method: str) -> str:
    """The method, or ValueError where it is not a token (RFC 9110 section 5.6.2)."""
    if not _TOKEN.fullmatch(method):
        raise ValueError(f"not a method: {method!r}; give a name such as GET")
    return method


def parse_header(text: str) -> tuple[str, str | None]:
    """Parses `Name: value`, or `Name:` to remove a default header.

    Raises ValueError if the text is not a header, and for Content-Length, which is computed, and
    any Transfer-Encoding but `chunked`.
    """
    name, colon, value = text.partition(":")
    value = value.strip(" \t")
    if not colon or not _TOKEN.fullmatch(name):
        raise ValueError(f"not a header: {text!r}; write 'Name: value'")
    if not _VALUE.fullmatch(value):
        raise ValueError(
            f"header {name}: the value has a line end, a control character or one outside latin-1"
        )
    if name.lower() == "content-length":
        raise ValueError("Content-Length is computed from the body; 'prefork talk' sends any bytes")
    if name.lower() == "transfer-encoding" and value.lower() != "chunked":
        raise ValueError("Transfer-Encoding can only be 'chunked'; 'prefork talk' sends any bytes")
    return name, value or None


def redirected(request: ClientRequest, status: int, location: str) -> ClientRequest:
    """The request that follows a response with this status and Location.

    After 303, and after 301 and 302 to a POST, it is a GET, as with browsers; otherwise method and
    body stay (RFC 9110 section 15.4).  Of the user's headers another origin (scheme, host or port)
    gets those that are known to hold no secret; the names of the others are in `withheld`.  Raises
    ValueError if the redirect cannot be followed.
    """
    url = resolve(request.url, location)
    method, body, headers = request.method, request.body, request.headers
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", None
        headers = _without(headers, "content-type", "content-encoding", "transfer-encoding")
    if body is not None and not body.replayable:
        raise ValueError("the body came from a pipe and cannot be sent again")
    withheld = request.withheld
    if url.origin != request.url.origin:
        secret = {name for name, value in headers if value is not None} - {
            name for name, _ in headers if name.lower() in _HARMLESS
        }
        withheld += tuple(sorted(name for name in secret if name.lower() != "host"))
        headers = _without(headers, *(name.lower() for name in secret))
    return ClientRequest(url, method, headers, body, withheld)


def _names(headers: tuple[tuple[str, str | None], ...]) -> set[str]:
    return {name.lower() for name, _ in headers}


def _without(
    headers: tuple[tuple[str, str | None], ...], *names: str
) -> tuple[tuple[str, str | None], ...]:
    return tuple((name, value) for name, value in headers if name.lower() not in names)
