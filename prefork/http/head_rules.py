"""Rules for parts of a request's head: names for CGI (RFC 3875, PEP 3333), targets, authorities."""

import re
from typing import Final

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 section 5.6.2."""

_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)

# uri-host [ ":" port ] of RFC 3986 section 3.2, without user information; empty where the target
# URI has no authority (RFC 9112 section 3.2).
_AUTHORITY: Final = re.compile(
    r"(?:\[(?:[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[0-9A-Za-z\-._~!$&'()*+,;=:]+)\]"
    r"|(?:[0-9A-Za-z\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::([0-9]*))?"
)
_PORT_MAX: Final = 65535

_FORWARDING: Final = re.compile(rb"forwarded|x-forwarded-.*", re.IGNORECASE)

_NAMES_KEPT: Final = 1024
_names: dict[bytes, str] = {b"Content-Type": "CONTENT_TYPE", b"Content-Length": "CONTENT_LENGTH"}


class Reject(Exception):
    """A request that is not served: the status to answer with, and what was wrong with it."""

    def __init__(self, status: int, reason: str, *headers: tuple[str, str]) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers
        """Of the answer, beside those of each."""


def cgi_name(name: bytes) -> str:
    """The environ key of a header, or "" for one that must not reach the application.

    `X_Forwarded_For` and `X-Forwarded-For` would share a key, so that a client could spoof the
    header that a proxy sets: names with an underscore are dropped.  What a proxy may say of its
    client is dropped too: prefork.http.proxied_reader takes it from a peer that is trusted.
    """
    key = _names.get(name)
    if key is None:
        if b"_" in name or _FORWARDING.fullmatch(name):
            key = ""
        else:
            key = name.decode("latin-1").upper().replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = "HTTP_" + key
        # Clients choose names: without a bound the cache would be theirs to fill.
        if len(_names) < _NAMES_KEPT and len(name) <= 64:
            _names[name] = key
    return key


def split_target(target: bytes, method: bytes) -> tuple[str, str, str | None]:
    """Request target to (PATH_INFO, QUERY_STRING, host of an absolute form or None).

    Raises Reject(400) for a form that the method does not allow (RFC 9112 section 3.2), for a
    fragment, which is no part of any form, and for user information (RFC 9110 section 4.2.4).
    """
    host = None
    if b"#" in target:
        raise Reject(400, "a request target has no fragment")
    if not target.startswith(b"/"):
        if target == b"*" and method == b"OPTIONS":
            return "/", "", None  # RFC 3875 section 4.1.5: a path begins with a slash
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or absolute[1].partition(b":")[0] == b"":
            raise Reject(400, "request target is neither a path nor an http URL")
        host = absolute[1].decode("latin-1")
        check_authority(host)
        target = absolute[2]
        if not target.startswith(b"/"):
            target = b"/" + target
    path, _, query = target.partition(b"?")
    if b"%" in path:
        path = unquote(path)
    return path.decode("latin-1"), query.decode("latin-1"), host


_ENCODED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_HEX: Final = b"0123456789ABCDEFabcdef"
_OF_HEX: Final = {bytes((a, b)): bytes((int(bytes((a, b)), 16),)) for a in _HEX for b in _HEX}


def unquote(path: bytes) -> bytes:
    """Decodes percent-encodings (RFC 3986 section 2.1); what is none stays as it is.

    As urllib.parse.unquote_to_bytes(), where each "%" that begins none costs an exception.
    """
    parts = _ENCODED.split(path)
    parts[1::2] = map(_OF_HEX.__getitem__, parts[1::2])
    return b"".join(parts)


_AUTHORITIES_KEPT: Final = 1024
known_authorities: set[str] = set()
"""Values of Host that were found right: to look one up takes a tenth of what checking it takes."""


def check_authority(value: str) -> None:
    """Raises Reject(400) for a host and port that RFC 3986 does not allow, or user information."""
    match = _AUTHORITY.fullmatch(value)
    port = match and match[1]
    # Python refuses to read thousands of digits, and zeros in front are allowed.
    if match is None or (port and (len(port) > 100 or int(port) > _PORT_MAX)):
        raise Reject(400, "Host is not a host and port")
    if len(known_authorities) < _AUTHORITIES_KEPT and len(value) <= 64:
        known_authorities.add(value)
