"""A TCP segment as the rest of this package sees it, whoever has taken it apart."""

import enum
import re
from dataclasses import dataclass
from typing import NamedTuple

# A head begins a segment, or follows the blank line of one without a body. One that follows a body
# in the same segment is not looked for: only a whole parse of the stream would find it.
_HEAD = re.compile(
    rb"(?:\A|(?<=\r\n\r\n))"
    rb"(HTTP/1\.[01] [1-5]\d\d[^\r\n]*|[A-Z]{3,16} [!-~]+(?: HTTP/1\.[01](?=\r\n)|\Z))"
)
_LINE = 60


class WireError(Exception):
    """Why packets cannot be had, and what to do, in one line."""


class Endpoint(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Flags(enum.IntFlag):
    """The control bits of RFC 9293 section 3.1."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80

    def __str__(self) -> str:
        """The bits by name, those that steer the connection first."""
        order = (Flags.SYN, Flags.FIN, Flags.RST, *Flags)
        return ",".join(dict.fromkeys(flag.name or "" for flag in order if flag in self))


@dataclass(frozen=True, slots=True)
class Frame:
    """What a capture or a file holds: the bytes from the IP header on."""

    at: int
    """Nanoseconds since 1970."""
    data: bytes
    interface: str = ""
    """Where it was seen, if known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One TCP segment; sequence numbers as on the wire."""

    at: int
    """Nanoseconds since 1970."""
    source: Endpoint
    target: Endpoint
    flags: Flags
    seq: int
    ack: int
    window: int
    """As in the header: bytes still to be scaled, except in a SYN."""
    length: int
    """Bytes of data."""
    options: tuple[str, ...] = ()
    """By name, without padding."""
    sack: tuple[tuple[int, int], ...] = ()
    """First and last + 1 of each stretch that came after a gap."""
    lines: tuple[str, ...] = ()
    """First lines of the HTTP messages that begin in it, safe for a terminal."""
    interface: str = ""


def http_lines(data: bytes) -> tuple[str, ...]:
    """The first lines of HTTP/1 requests and answers in a segment's data."""
    return tuple(_shown(found) for found in _HEAD.findall(data))


def _shown(line: bytes) -> str:
    text = line.decode("latin-1").encode("unicode_escape").decode("ascii")
    return text if len(text) <= _LINE else text[: _LINE - 3] + "..."
