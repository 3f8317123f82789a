"""A response's head, composed: its bytes, and how its body is framed."""

from enum import Enum

from msgspec import Struct


class ResponseFraming(Enum):
    """How the client finds the end of the body (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class ResponseHead:
    """A composed head, which several responses may share."""

    __slots__ = ("code", "data", "framing", "keep_alive", "length")

    def __init__(
        self, data: bytes, code: int, framing: ResponseFraming, length: int, keep_alive: bool
    ) -> None:
        self.data = data
        self.code = code
        self.framing = framing
        self.length = length
        """Bytes of body to send; -1 if only the end of the body shows it, or if there is none."""
        self.keep_alive = keep_alive

    def replaced(self, data: bytes) -> "ResponseHead":
        """A head with other bytes and the same framing."""
        return ResponseHead(data, self.code, self.framing, self.length, self.keep_alive)


class RepeatedResponse(Struct, frozen=True, eq=False):
    """How the response to a repeated request began.

    The next response begins in the same way if the application gives the same for it."""

    given: tuple[str, list[tuple[str, str]], bool, int]
    """The arguments of `response_head.compose` besides the request, in its order."""
    head: ResponseHead
    until: float
    """Monotonic seconds at which its `Date` has passed."""
