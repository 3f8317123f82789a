"""Field lines of a head or a trailer section: the key in the environ, and the value.

The grammar is RFC 9112 section 5 and RFC 9110 section 5.  A line has no CRLF at its end here.
"""

import re
from typing import Final

from prefork.http.head_rules import Reject, cgi_name
from prefork.http.long_lines import plain_text

_NAME: Final = re.compile(
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
).fullmatch  # token, RFC 9110 section 5.6.2

# What a value may consist of (RFC 9110 section 5.5): VCHAR, obs-text, SP and HTAB.
# Each of those is left as it is here, and each other byte is not.
_VALUE: Final = bytes(
    each if each == 9 or (each >= 32 and each != 127) else 32 for each in range(256)
)

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search

_SEARCH_LIMIT: Final = 64
"""Bytes up to which a search is faster than `bytes.translate`."""

_LINES_KEPT: Final = 512
_LINE_SIZE: Final = 256
"""Bytes of a line that is kept, at most."""
_NAMES_KEPT: Final = 512
_NAME_SIZE: Final = 64

# The fields whose lines are kept: clients send them unchanged with request after request, and they
# hold nothing secret or personal.  Cookie, Authorization, and each name that is unknown here are
# not among them, and neither are those that differ each time (Referer, If-None-Match, ids).
_KEPT: Final = frozenset(
    b"accept accept-charset accept-encoding accept-language access-control-request-headers "
    b"access-control-request-method cache-control connection content-encoding content-length "
    b"content-type dnt expect host http2-settings keep-alive origin pragma priority range "
    b"save-data sec-ch-ua sec-ch-ua-arch sec-ch-ua-bitness sec-ch-ua-full-version-list "
    b"sec-ch-ua-mobile sec-ch-ua-model sec-ch-ua-platform sec-ch-ua-platform-version "
    b"sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user sec-gpc te trailer "
    b"transfer-encoding upgrade upgrade-insecure-requests user-agent via x-forwarded-host "
    b"x-forwarded-port x-forwarded-proto x-requested-with".split()
)


def has_control(data: bytes | bytearray, start: int, end: int) -> bool:
    """Whether there is what is in no field line: a control character, a bare CR or a bare LF."""
    if end - start < _SEARCH_LIMIT:
        return _CONTROL(data, start, end) is not None
    part = data[start:end]
    return part.translate(_VALUE) != part


class _Names(dict[bytes, tuple[str, bool]]):
    """Field names, as a client has spelt them, to their key and whether their lines are kept."""

    def __init__(self, believed: dict[bytes, str]) -> None:
        super().__init__()
        self._believed = believed

    def __missing__(self, name: bytes) -> tuple[str, bool]:
        # RFC 9112 section 5.1: no white space between the name and the colon.  One that begins a
        # line would be obs-fold (section 5.2), which is refused as well.
        if _NAME(name) is None:
            raise Reject(400, "a field name is not a token")
        lower = name.lower()
        found = self._believed.get(lower) or cgi_name(name), lower in _KEPT
        if len(name) <= _NAME_SIZE:
            if len(self) >= _NAMES_KEPT:  # clients choose names
                self.clear()
            self[name] = found
        return found


class FieldLines(dict[bytes, tuple[str, str]]):
    """Field lines to (key, value): `lines.read(line)` reads one that is not kept.

    The key is "" for a field that must not reach the application.  Raises Reject(400) for what is
    no field line.  Only lines of some well-known fields are kept, up to a size and a number, so
    that neither a secret nor a flood of different lines stays in memory.
    """

    __slots__ = ("_names", "believed", "read")

    def __init__(self, believed: dict[bytes, str] | None = None) -> None:
        """believed: the keys of fields in which a trusted proxy speaks for its client, by their
        names in lower case; see `prefork.http.proxied_reader.keys`."""
        super().__init__()
        self._names = _Names(believed or {})
        self.believed = tuple((believed or {}).values())
        self.read = self.__getitem__  # bound once: that takes as long as to look up a line

    def __missing__(self, line: bytes) -> tuple[str, str]:
        name, colon, rest = line.partition(b":")
        key, keep = self._names[name]
        if not colon:
            raise Reject(400, "a field line has no colon")
        if rest.translate(_VALUE) != rest:
            raise Reject(400, "a field value holds a control character")
        # OWS around the value is no part of it (RFC 9112 section 5.1).
        value = rest.strip(b" \t").decode("latin-1")
        if keep:
            self._keep(line, key, value)
        return key, value

    def read_long(self, line: bytes) -> tuple[str, str]:
        """Reads a line that is too long to be kept, and so to be hashed to look it up."""
        name, _, rest = line.partition(b":")
        value = plain_text(rest)
        return (self._names[name][0], value.strip(" ")) if value else self.__missing__(line)

    def _keep(self, line: bytes, key: str, value: str) -> None:
        if len(line) <= _LINE_SIZE:
            if len(self) >= _LINES_KEPT:  # clients choose lines
                self.clear()
            self[line] = key, value
