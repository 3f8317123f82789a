"""Responses of ASGI applications compressed on their way out, by the rules of `Compress`."""

from collections.abc import Sequence

from prefork.apps.compress import EncodedHead, encode_head
from prefork.http.negotiation import accepted
from prefork.http.request import Environ


class MessageCompressor:
    """One response on its way."""

    __slots__ = ("_coding", "_encoded", "_least", "_method")

    def __init__(self, environ: Environ, codings: Sequence[str], least: int) -> None:
        """codings, least: as in `Compress`."""
        wanted = accepted(environ.get("HTTP_ACCEPT_ENCODING"), codings)
        self._coding = wanted[0] if wanted else None
        self._least = least
        self._method: str = environ["REQUEST_METHOD"]
        self._encoded: EncodedHead | None = None

    def start(self, status: str, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The headers in place of the application's; to be called with the first piece of body."""
        self._encoded = encode_head(status, headers, self._coding, self._least, self._method)
        return self._encoded.headers

    def body(self, data: bytes, *, more: bool) -> bytes:
        """The bytes in place of a piece of the body."""
        encoded = self._encoded
        if encoded is None or encoded.compressor is None:
            return data
        packed = encoded.compressor.compress(data) if data else b""
        if not more:
            return packed + encoded.compressor.flush()
        # An application that sends piece by piece wants each to arrive before the next.
        return packed + encoded.compressor.flush(encoded.flush) if encoded.streamed else packed
