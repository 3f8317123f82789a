"""One open file, or a few plain words, as an HTTP answer: its type, its conditions, its ranges.

Nothing here looks at a path to find a file: all headers come from its descriptor, so that size,
validators and bytes are those of the same file.
"""

import mimetypes
import os
import stat
import time
from contextlib import ExitStack
from email.utils import formatdate
from http import HTTPStatus
from io import FileIO

from msgspec import Struct

from prefork.apps import conditions, ranges
from prefork.apps.file_slice import FileSlice
from prefork.apps.ranges import MultipartRanges, Range, content_range
from prefork.http.request import Environ

# By the last suffix alone. An instance of `MimeTypes` has nothing of the machine's own files, but
# it grows from one Python to the next: the types that the web needs are listed here, the rest comes
# from there. An archive has no Content-Encoding: with one, a client would unpack it.
_TYPES: dict[str, str] = {
    **mimetypes.MimeTypes().types_map[True],
    ".7z": "application/x-7z-compressed",
    ".atom": "application/atom+xml",
    ".avif": "image/avif",
    ".br": "application/x-brotli",
    ".bz2": "application/x-bzip2",
    ".flac": "audio/flac",
    ".gz": "application/gzip",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript",
    ".jxl": "image/jxl",
    ".log": "text/plain",
    ".m4a": "audio/mp4",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".ogg": "audio/ogg",
    ".otf": "font/otf",
    ".rss": "application/rss+xml",
    ".tgz": "application/gzip",
    ".toml": "application/toml",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xz": "application/x-xz",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zst": "application/zstd",
}


class FileResponse(Struct):
    """The arguments of `start_response`, and the body."""

    status: HTTPStatus
    headers: list[tuple[str, str]]
    body: bytes | FileSlice | MultipartRanges = b""


def plain(status: HTTPStatus, *headers: tuple[str, str]) -> FileResponse:
    """A status with its own words as its body."""
    body = f"{status.value} {status.phrase}\n".encode()
    return FileResponse(
        status, [*described("text/plain; charset=utf-8", len(body)), *headers], body
    )


def described(kind: str, length: int) -> list[tuple[str, str]]:
    """The headers of a body, whose length is in bytes.

    A browser must take the type at its word, and not look into the file for another: an upload that
    is served as a picture would be run as a script (https://fetch.spec.whatwg.org/#x-content-type-options-header).
    """
    return [
        ("Content-Type", kind),
        ("Content-Length", str(length)),
        ("X-Content-Type-Options", "nosniff"),
    ]


def from_file(
    environ: Environ, fd: int, status: os.stat_result, path: bytes, coding: str | None = None
) -> FileResponse:
    """The answer from an open file, whose descriptor becomes the answer's or is closed.

    status: of the descriptor.  path: its suffix determines the type.  coding: the content coding of
    the file; "" if it has none, but another client would get a file that has, and None if no client
    would.
    """
    with ExitStack() as stack:
        stack.callback(os.close, fd)
        if not stat.S_ISREG(status.st_mode):
            return plain(HTTPStatus.NOT_FOUND)
        answer, part = _represent(environ, status, path, coding)
        if coding is not None and answer.status is not HTTPStatus.PRECONDITION_FAILED:
            answer.headers.append(("Vary", "Accept-Encoding"))
            if coding and answer.status is not HTTPStatus.NOT_MODIFIED:
                answer.headers.append(("Content-Encoding", coding))
        if part is not None and environ["REQUEST_METHOD"] == "GET":
            file = FileIO(fd)
            stack.pop_all()
            answer.body = (
                part.of(file) if isinstance(part, MultipartRanges) else FileSlice(file, *part)
            )
        return answer


def _represent(
    environ: Environ, status: os.stat_result, path: bytes, coding: str | None
) -> tuple[FileResponse, Range | MultipartRanges | None]:
    """The head of the response to a request for a file, and the part of the file in its body.

    The entity tag is a strong one: it changes with each write, as far as the clock of the file
    system ticks between two of them, and if a file of another time or size takes this one's place.
    An inode would tell apart two files with the same time and size; but it differs between machines
    that serve the same files, and is no client's business.  Two codings of one file may have the
    same time and size, so a tag names its coding.
    """
    size = status.st_size
    modified = modified_at(status)
    etag = f'"{status.st_mtime_ns:x}-{size:x}{f"-{coding}" if coding else ""}"'
    headers = [("ETag", etag), ("Last-Modified", formatdate(modified, usegmt=True))]
    outcome = conditions.outcome(environ, etag, modified)
    if outcome is HTTPStatus.PRECONDITION_FAILED:
        return plain(outcome), None
    if outcome is HTTPStatus.NOT_MODIFIED:
        return FileResponse(outcome, headers), None
    headers.append(("Accept-Ranges", "bytes"))
    kind = _content_type(path)
    asked = None
    # Section 14.2: a range is for GET alone.
    if environ["REQUEST_METHOD"] == "GET" and conditions.may_be_partial(environ, etag, modified):
        asked = ranges.parse(environ.get("HTTP_RANGE", ""), size)
    if asked is None:
        headers += described(kind, size)
        return FileResponse(HTTPStatus.OK, headers), (0, size) if size else None
    if not asked:
        beyond = ("Content-Range", f"bytes */{size}")
        return plain(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, beyond), None
    if len(asked) > 1:
        parts = MultipartRanges(asked, size, kind)
        headers += described(parts.content_type, parts.length)
        return FileResponse(HTTPStatus.PARTIAL_CONTENT, headers), parts
    (part,) = asked
    headers.append(("Content-Range", content_range(part, size)))
    headers += described(kind, part[1])
    return FileResponse(HTTPStatus.PARTIAL_CONTENT, headers), part


def modified_at(status: os.stat_result) -> int:
    """Seconds since 1970, never in the future (RFC 9110 section 8.8.2.1).

    Not from `st_mtime`: a float has room for a quarter of a microsecond, and the last one of a
    second would be the next second.
    """
    return max(0, min(status.st_mtime_ns // 1_000_000_000, int(time.time())))


def _content_type(path: bytes) -> str:
    suffix = os.path.splitext(os.fsdecode(path))[1].lower()
    kind = _TYPES.get(suffix, "application/octet-stream")
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
