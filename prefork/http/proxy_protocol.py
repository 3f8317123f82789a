"""The PROXY protocol: the address of a proxy's client, once before the connection's own bytes.

Versions 1 and 2 of https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, receiving.  No
socket is touched here: `read` is given the bytes that have come.
"""

import re
import socket
import struct
from typing import NamedTuple

V1_LIMIT = 107
"""Bytes of the longest line of version 1, its CRLF included (section 2.1)."""

V2_LIMIT = 4096
"""Bytes of addresses and TLVs that are taken after the fixed 16 of version 2: a certificate's names
and a cloud's own fields fit; the format would allow 64 KiB."""

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = 16

_LINE = re.compile(
    rb"PROXY (TCP[46]) ([0-9A-Fa-f.:]{2,39}) ([0-9A-Fa-f.:]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\r\n"
)
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [\x20-\x7e]*)?\r\n")

_FAMILIES = {
    # family and protocol of a stream: address family, layout
    0x11: (socket.AF_INET, struct.Struct("!4s4sHH")),
    0x21: (socket.AF_INET6, struct.Struct("!16s16sHH")),
    0x31: (socket.AF_UNIX, struct.Struct("!108s108s")),
}
_LOCAL, _PROXY = 0x20, 0x21


class ProxyError(ValueError):
    """The bytes are no header of the PROXY protocol; one line."""


class ProxyHeader(NamedTuple):
    """A whole header."""

    size: int
    """Its bytes; all that follows is the connection's own."""
    source: tuple[str, str] | None
    """The client's address and port, both empty for a Unix socket; None if the proxy speaks for
    itself (LOCAL) or does not know (UNKNOWN)."""


def read(data: bytes) -> ProxyHeader | None:
    """The header that `data` begins with, or None while more of it has to come.

    Raises ProxyError as soon as it can't become one.
    """
    if data.startswith(_V2):
        return _read_v2(data)
    if data.startswith(_V1):
        return _read_v1(data)
    if _V2.startswith(data) or _V1.startswith(data):
        return None
    raise ProxyError("no PROXY header")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\n", 0, V1_LIMIT)
    if end < 0:
        if len(data) >= V1_LIMIT:
            raise ProxyError(f"the PROXY line is longer than {V1_LIMIT} bytes")
        return None
    line = data[: end + 1]
    if _UNKNOWN.fullmatch(line):
        return ProxyHeader(len(line), None)
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProxyError("malformed PROXY line")
    family = socket.AF_INET if match[1] == b"TCP4" else socket.AF_INET6
    source, _ = (_canonical(family, match[number].decode()) for number in (2, 3))
    port, _ = (_port(match[number]) for number in (4, 5))
    return ProxyHeader(len(line), (source, port))


def _canonical(family: int, text: str) -> str:
    try:
        return plain(socket.inet_ntop(family, socket.inet_pton(family, text)))
    except OSError:
        raise ProxyError("malformed address in the PROXY line") from None


def _port(text: bytes) -> str:
    # Section 2.1: no leading zeroes.
    if text != str(int(text)).encode() or int(text) > 65535:
        raise ProxyError("malformed port in the PROXY line")
    return text.decode()


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_FIXED:
        return None
    command, family, length = struct.unpack_from("!BBH", data, len(_V2))
    if command not in (_LOCAL, _PROXY):
        raise ProxyError(f"unknown version or command of the PROXY protocol: {command:#04x}")
    if length > V2_LIMIT:
        raise ProxyError(f"the PROXY header is longer than {V2_LIMIT} bytes")
    size = _V2_FIXED + length
    known = _FAMILIES.get(family)
    if command == _PROXY and known is not None and length < known[1].size:
        raise ProxyError("the PROXY header is too short for its addresses")
    if len(data) < size:
        return None
    # A family that is not known, or unspecified, is skipped as if the proxy knew nothing; so are
    # the TLVs behind the addresses.
    if command == _LOCAL or known is None:
        return ProxyHeader(size, None)
    kind, layout = known
    if kind == socket.AF_UNIX:
        return ProxyHeader(size, ("", ""))
    source, _, port, _ = layout.unpack_from(data, _V2_FIXED)
    return ProxyHeader(size, (plain(socket.inet_ntop(kind, source)), str(port)))


_MAPPED = "::ffff:"


def plain(address: str) -> str:
    """An IPv4 address that stands in an IPv6 one, as itself (RFC 4291 section 2.5.5.2)."""
    if address.startswith(_MAPPED) and "." in address:
        return address[len(_MAPPED) :]
    return address
