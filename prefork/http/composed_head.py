"""A response's head, composed: its bytes, and how its body is framed."""

from enum import Enum

from msgspec import Struct


class ResponseFraming(Enum):
    """How the client finds the end of the body (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class ResponseHead(Struct, eq=False):
    """A composed head."""

    data: bytes
    code: int
    framing: ResponseFraming
    length: int
    """Bytes of body to send; -1 if only the end of the body shows it, or if there is none."""
    keep_alive: bool
