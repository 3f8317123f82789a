"""Responses compressed on their way out, around any WSGI application.

Only types that become smaller are compressed, and only for clients that accept the coding (RFC 9110
section 12.5.3). A response that has a coding already, is a part (206), or has `no-transform` stays
as it is. A strong entity tag becomes a weak one: the bytes are not those that it names (section
8.8.1).
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from prefork.apps.wsgi import Application, ExcInfo, StartResponse
from prefork.http.negotiation import accepted
from prefork.http.request import Environ

Headers = list[tuple[str, str]]

_TYPES = frozenset(
    {
        *("application/javascript", "application/json", "application/manifest+json"),
        *("application/rtf", "application/toml", "application/vnd.ms-fontobject"),
        *("application/wasm", "application/x-javascript", "application/x-ndjson"),
        *("application/xml", "application/yaml", "font/otf", "font/ttf", "image/bmp"),
        *("image/vnd.microsoft.icon", "image/x-icon"),
    }
)
_GZIP_LEVEL = 5
_ZSTD_LEVEL = 3


class Compressor(Protocol):
    """The interface of both libraries."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self, mode: int = ..., /) -> bytes: ...


def _gzip() -> tuple[Compressor, int]:
    return zlib.compressobj(_GZIP_LEVEL, wbits=31), zlib.Z_SYNC_FLUSH  # 31: the format of gzip


def _zstd() -> tuple[Compressor, int]:
    zstandard: Any = import_module("zstandard")  # the extra `zstd`
    made: Compressor = zstandard.ZstdCompressor(_ZSTD_LEVEL).compressobj()
    return made, int(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


CODINGS: dict[str, Callable[[], tuple[Compressor, int]]] = {"zstd": _zstd, "gzip": _gzip}
"""A new compressor, and the flush that lets a client read all that was written so far."""


def is_compressible(content_type: str) -> bool:
    """Whether a body of that type becomes smaller: text, and formats that are text underneath."""
    kind = content_type.partition(";")[0].strip().lower()
    # Events are sent one by one as they come, and few of them are long.
    return kind != "text/event-stream" and (
        kind.startswith("text/") or kind.endswith(("+json", "+xml", "+text")) or kind in _TYPES
    )


class EncodedHead(NamedTuple):
    """A head whose body is compressed, or not."""

    headers: Headers
    compressor: Compressor | None
    """None if the body stays as it is."""
    flush: int
    """The flush that lets a client read all that was written so far."""
    streamed: bool
    """The application has given no length: it sends piece by piece, each to arrive before the
    next."""


def encode_head(
    status: str, headers: Headers, coding: str | None, least: int, method: str
) -> EncodedHead:
    """Decides whether a response is compressed, and changes its headers to say so.

    coding: of `CODINGS`; None if the client takes none.  least: as in `Compress`.
    """
    headers = list(headers)
    fields = {name.lower(): value for name, value in headers}
    streamed = True
    if _suits(status, fields, least):
        _vary(headers, fields)
        if coding is not None:
            streamed = "content-length" not in fields
            headers = [_recoded(*pair) for pair in headers if pair[0].lower() not in _UNTRUE]
            headers.append(("Content-Encoding", coding))
            if method != "HEAD":
                return EncodedHead(headers, *CODINGS[coding](), streamed)
    return EncodedHead(headers, None, 0, streamed)


def _suits(status: str, fields: dict[str, str], least: int) -> bool:
    length = fields.get("content-length", "")
    return (
        (status[:1] in ("4", "5") or status[:3] in ("200", "201", "203"))
        and "content-encoding" not in fields
        and "no-transform" not in fields.get("cache-control", "").lower()
        and is_compressible(fields.get("content-type", ""))
        and not (length.isdecimal() and int(length) < least)
    )


class Compress:
    """An application whose answers are compressed.

    codings: of `CODINGS`, the preferred first.  least: bytes; a body that is known to be smaller
    stays as it is.
    """

    def __init__(self, application: Application, codings: Sequence[str], least: int) -> None:
        self._application = application
        self._codings = codings
        self._least = least

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        wanted = accepted(environ.get("HTTP_ACCEPT_ENCODING"), self._codings)
        coding = wanted[0] if wanted else None
        answer = _Answer(start_response, coding, self._least, environ["REQUEST_METHOD"])
        return answer.body(self._application(environ, answer.start))


class _Answer:
    """One response on its way."""

    def __init__(
        self, start_response: StartResponse, coding: str | None, least: int, method: str
    ) -> None:
        self._start_response = start_response
        self._coding = coding
        self._least = least
        self._method = method
        self._compressor: Compressor | None = None
        self._flush = 0
        self._streamed = True
        self._started = False

    def start(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        self._started = True
        encoded = encode_head(status, headers, self._coding, self._least, self._method)
        headers, self._compressor, self._flush, self._streamed = encoded
        if exc_info is None:
            write = self._start_response(status, headers)
        else:
            write = self._start_response(status, headers, exc_info)
        compressor = self._compressor
        if compressor is None:
            return write
        return lambda data: write(compressor.compress(data) + compressor.flush(self._flush))

    def body(self, result: Iterable[bytes]) -> Iterable[bytes]:
        """The iterable for the server in place of the application's."""
        if self._started:
            compressor = self._compressor
            if compressor is None:
                return result
            if type(result) is list or type(result) is tuple:
                # Complete: in one piece, so that the server knows its length.
                return [compressor.compress(b"".join(result)) + compressor.flush()]
        return _Body(self, result)

    def pieces(self, result: Iterable[bytes]) -> Iterator[bytes]:
        for piece in result:
            compressor = self._compressor  # a generator starts its response at its first step
            if compressor is None:
                yield piece
            elif piece:
                data = compressor.compress(piece)
                if self._streamed:
                    # An application that sends piece by piece wants each to arrive before the next.
                    data += compressor.flush(self._flush)
                yield data
        if self._compressor is not None:
            yield self._compressor.flush()


class _Body:
    """The pieces, with the `close` of PEP 3333."""

    def __init__(self, answer: _Answer, result: Iterable[bytes]) -> None:
        self._pieces = answer.pieces(result)
        self.close = getattr(result, "close", lambda: None)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces


_UNTRUE = frozenset({"content-length", "accept-ranges", "content-md5"})
"""Headers that are not true of the compressed body."""


def _recoded(name: str, value: str) -> tuple[str, str]:
    if name.lower() == "etag" and not value.startswith("W/"):
        return name, "W/" + value
    return name, value


def _vary(headers: Headers, fields: dict[str, str]) -> None:
    """Tells caches that another client may get another coding."""
    vary = fields.get("vary")
    if vary is None:
        headers.append(("Vary", "Accept-Encoding"))
    elif vary.strip() != "*" and "accept-encoding" not in vary.lower():
        headers[:] = [pair for pair in headers if pair[0].lower() != "vary"]
        headers.append(("Vary", f"{vary}, Accept-Encoding"))
