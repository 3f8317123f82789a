"""Rules for a request's head.

There is one reading of HTTP here, the parser's (llhttp, by httptools). What stands in this module
only names things for CGI (RFC 3875, PEP 3333) or rejects a head; it never reinterprets one.
"""

import re
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_to_bytes

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 section 5.6.2."""

_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)

# uri-host [ ":" port ] of RFC 3986 section 3.2, without user information; empty where the target
# URI has no authority (RFC 9112 section 3.2).
_AUTHORITY = re.compile(
    r"(?:\[(?:[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[0-9A-Za-z\-._~!$&'()*+,;=:]+)\]"
    r"|(?:[0-9A-Za-z\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::([0-9]*))?"
)
_PORT_MAX = 65535

_FORWARDING = re.compile(rb"forwarded|x-forwarded-.*", re.IGNORECASE)

_NAMES_KEPT = 1024
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
    client is dropped too: from who is trusted, prefork.http.proxied_request takes it.
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


_TARGETS_KEPT = 1024
_targets: dict[bytes, tuple[str, str, str]] = {}


def path_of(target: bytes) -> tuple[str, str, str] | None:
    """(PATH_INFO, QUERY_STRING, RAW_URI) of a target that is a path, else None.

    Clients ask for the same few paths again and again; the cache is bounded, since they choose.
    """
    found = _targets.get(target)
    if found is None and target.startswith(b"/"):
        path, query, _ = split_target(target, b"GET")
        found = (path, query, target.decode("latin-1"))
        if len(_targets) < _TARGETS_KEPT and len(target) <= 64:
            _targets[target] = found
    return found


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
            return "*", "", None
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
        path = unquote_to_bytes(path)
    return path.decode("latin-1"), query.decode("latin-1"), host


_AUTHORITIES_KEPT = 1024
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


def check_size(environ: dict[str, Any], base: dict[str, Any], limit: int) -> None:
    """Raises Reject(431) where the headers in an environ, beside its base, are more than `limit`
    bytes."""
    new = [name for name in environ if name not in base]
    size = sum(len(name.removeprefix("HTTP_")) + len(environ[name]) + 4 for name in new)
    if size > limit:
        raise Reject(431, f"headers are larger than {limit} bytes")


def foreign_targets(received: bytes) -> frozenset[bytes]:
    """The targets in all that looks like a request line of RTSP or ICE.

    `received`: what came from a request's beginning on, or from further before, or, where that was
    in the packet that ended another request, from the end of the method on.
    """
    found = set()
    if b"RTSP/" in received or b"ICE/" in received:
        for line in received.split(b"\n"):
            words = line.split(None, 3)
            for target, protocol in pairwise(words[:3]):
                if protocol.startswith((b"RTSP/", b"ICE/")):
                    found.add(target)
    return frozenset(found)


def rejection(error: Exception, received: bytes) -> Reject:
    """The answer to a parser's error; `received` is what it was reading, if that is known."""
    text = str(error)
    if "HTTP version" in text or " PRI" in text:  # PRI begins HTTP/2 (RFC 9113 section 3.4)
        return Reject(505, "this server speaks HTTP/1.0 and HTTP/1.1")
    # A well-formed method that nobody here knows is 501 (RFC 9110 section 9.1).  The parser gives
    # up at its first wrong letter, so the rest of it may not have come yet.
    if "method" in text and TOKEN.fullmatch(received.lstrip(b"\r\n").partition(b" ")[0]):
        return Reject(501, "unknown method")
    if "Transfer-Encoding" in text and "Content-Length" not in text:
        return Reject(501, "unknown transfer coding")
    return Reject(400, text or "malformed request")
