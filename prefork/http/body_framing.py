"""How a body ends (RFC 9112 sections 6 and 7), and bounds on what of it is no body.

The parser reads it; what stands here only refuses.
"""

from prefork.http.head_rules import Reject
from prefork.http.request import Environ

CHUNKED = -1

_FRAMING_FOR_A_BYTE = 16
"""Bytes of chunk framing that a byte of body may bring along; a chunk of one byte has five."""

_SOME = 16 * 1024
"""Bytes of framing that any body may have, beyond the size of a head."""


def body_length(environ: Environ, limit: int) -> int:
    """Bytes of body that a request says it has, or CHUNKED.

    `limit`: bytes allowed, 0 for no limit.  Raises Reject for what is no framing of ours.
    """
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is None:
        length = int(environ["CONTENT_LENGTH"])
        if limit and length > limit:
            raise Reject(413, f"body is larger than {limit} bytes")
        return length
    if environ["SERVER_PROTOCOL"] == "HTTP/1.0":
        raise Reject(400, "Transfer-Encoding in HTTP/1.0")  # RFC 9112 section 6.1
    if coding.lower() != "chunked":
        raise Reject(501, "unknown transfer coding")
    return CHUNKED


class ChunkedFraming:
    """What surrounds the bytes of one chunked body."""

    __slots__ = ("_count_limit", "_overhead", "_size_limit", "_trailer_count", "_trailer_size")

    def __init__(self, count: int, size: int) -> None:
        """The limits of a head, which trailers have, too: lines and bytes, 0 for no limit."""
        self._count_limit = count
        self._size_limit = size
        self._overhead = 0
        self._trailer_count = 0
        self._trailer_size = 0

    def problem(self, received: int, body: int) -> Reject | None:
        """What is wrong once so many bytes have come, of which so many are body.

        Chunk extensions, zeros before a size, and a trailer without an end are bounded.  Chunks of
        a byte each are legal and mostly framing, so each byte of body pays for some.
        """
        limit = self._size_limit
        self._overhead = max(self._overhead + received - _FRAMING_FOR_A_BYTE * body, 0)
        if limit and self._overhead > limit + _SOME:
            return Reject(431, f"chunk framing or trailers are larger than {limit} bytes")
        return None

    def add_trailer(self, name: bytes, value: bytes) -> None:
        """A trailer is read, and dropped (RFC 9112 section 7.1.2), but has the limits of a head.

        Raises Reject(431).
        """
        self._trailer_count += 1
        self._trailer_size += len(name) + len(value) + 4
        if self._count_limit and self._trailer_count > self._count_limit:
            raise Reject(431, f"more than {self._count_limit} trailers")
        if self._size_limit and self._trailer_size > self._size_limit:
            raise Reject(431, f"trailers are larger than {self._size_limit} bytes")
