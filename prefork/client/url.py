"""The URLs of the client: http, https and http+unix, and the targets of redirects."""

import base64
import re
from urllib.parse import quote, unquote, unquote_to_bytes, urljoin, urlsplit

import msgspec

PORTS = {"http": 80, "https": 443}

# All printable characters but the space: a URL that the user has encoded stays as it is.
_KEPT = "".join(map(chr, range(0x21, 0x7F)))

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class URL(msgspec.Struct, frozen=True):
    """The URL of a request.

    target: the request target of its first line (RFC 9112 section 3.2.1).
    unix: the path or `@name` of a socket to connect to in place of host and port.
    """

    scheme: str
    host: str
    port: int
    target: str = "/"
    unix: str = ""
    credentials: str = ""

    @property
    def authority(self) -> str:
        """The value of the Host header, without the default port of the scheme."""
        # A zone index has a meaning only on this machine (RFC 6874 section 4).
        host = f"[{self.host.split('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int, str]:
        """Requests of the same origin can use the same connection."""
        return self.scheme, self.host, self.port, self.unix

    @property
    def authorization(self) -> str | None:
        """The Authorization header for the user and password of the URL (RFC 7617)."""
        if not self.credentials:
            return None
        user, _, password = self.credentials.partition(":")
        plain = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        return "Basic " + base64.b64encode(plain).decode("ascii")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_url(text: str, unix: str = "") -> URL:
    """Parses a URL; `http://` may be missing.

    unix: the path of a Unix socket, or `@name` for an abstract one.  It is also possible to write
        `http+unix://%2Fpath%2Fof%2Fsocket/target`.

    Raises ValueError with the reason.
    """
    if any(char <= " " or char == "\x7f" for char in text):
        raise ValueError("a URL contains no spaces or control characters; write %20 for a space")
    if not _SCHEME.match(text):
        text = f"http://{text}"
    parts = urlsplit(text)
    target = _target(parts.path, parts.query)
    if parts.scheme == "http+unix":
        if unix:
            raise ValueError("the socket is given twice: in the URL and with --unix")
        path = unquote(parts.netloc)
        if not path.strip("@") or "\0" in path:
            raise ValueError("no socket path: write http+unix://%2Fpath%2Fof%2Fsocket/")
        return URL("http", "localhost", 80, target, path)
    if parts.scheme not in PORTS:
        raise ValueError(f"unknown scheme {parts.scheme!r}; use http, https or http+unix")
    # urlsplit has checked the range, but it accepts 0.
    if parts.port == 0:
        raise ValueError("port 0 cannot be connected to")
    return URL(
        scheme=parts.scheme,
        host=_host(parts.hostname or ""),
        port=parts.port or PORTS[parts.scheme],
        target=target,
        unix=unix,
        credentials=parts.netloc.rpartition("@")[0],
    )


def resolve(url: URL, location: str) -> URL:
    """The URL of a Location header in a response for `url` (RFC 9110 section 10.2.2).

    A Unix socket is used for the host of its URL only; another host is reached over the network.
    Raises ValueError if it is not a URL for this client.
    """
    # Header text is latin-1; some servers send spaces and UTF-8 that should be encoded.
    joined = urljoin(str(url), quote(location.encode("latin-1"), safe=_KEPT))
    if not joined.startswith(("http://", "https://")):
        raise ValueError("not an http or https URL")
    found = parse_url(joined)
    same = (found.scheme, found.host, found.port) == (url.scheme, url.host, url.port)
    if not same:
        return found
    return msgspec.structs.replace(
        found, unix=url.unix, credentials=found.credentials or url.credentials
    )


def _target(path: str, query: str) -> str:
    target = quote(path, safe=_KEPT) or "/"
    return f"{target}?{quote(query, safe=_KEPT)}" if query else target


def _host(host: str) -> str:
    if not host:
        raise ValueError("no host; write http://HOST/PATH")
    if ":" in host:
        return unquote(host)
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"not a host name: {host!r}") from error
