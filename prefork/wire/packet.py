"""A TCP segment, independent of the library that dissects it."""

import enum
import re
from dataclasses import dataclass
from typing import NamedTuple

# A head is at the beginning of a segment, or follows the blank line of a head without a body. A
# head that follows a body in the same segment is not found: that would need a parser of the whole
# stream.
_HEAD = re.compile(
    rb"(?:\A|(?<=\r\n\r\n))"
    rb"(HTTP/1\.[01] [1-5]\d\d[^\r\n]*|[A-Z]{3,16} [!-~]+(?: HTTP/1\.[01](?=\r\n)|\Z))"
)
_LINE = 60


class WireError(Exception):
    """Packets cannot be captured or read; the text is one line with the reason and what to do."""


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
        """The names of the bits, with SYN, FIN and RST first."""
        order = (Flags.SYN, Flags.FIN, Flags.RST, *Flags)
        return ",".join(dict.fromkeys(flag.name or "" for flag in order if flag in self))


@dataclass(frozen=True, slots=True)
class Frame:
    """A captured packet: the bytes from the IP header on."""

    at: int
    """Nanoseconds since 1970."""
    data: bytes
    interface: str = ""
    """The interface of the capture, if it is known."""


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
    """As in the header: not scaled."""
    length: int
    """Bytes of data."""
    options: tuple[str, ...] = ()
    """The names, without padding."""
    sack: tuple[tuple[int, int], ...] = ()
    """First and last + 1 of each selectively acknowledged range."""
    lines: tuple[str, ...] = ()
    """The first lines of the HTTP messages that begin in it, safe for a terminal."""
    interface: str = ""


def http_lines(data: bytes) -> tuple[str, ...]:
    """The first lines of HTTP/1 requests and responses in the data of a segment."""
    return tuple(_shown(found) for found in _HEAD.findall(data))


def _shown(line: bytes) -> str:
    text = line.decode("latin-1").encode("unicode_escape").decode("ascii")
    return text if len(text) <= _LINE else text[: _LINE - 3] + "..."
