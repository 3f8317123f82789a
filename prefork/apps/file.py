"""One open file, or a few plain words, as an HTTP answer: its type, its conditions, its ranges.

Nothing here looks at a path to find a file: what is said of one is read off its descriptor, so
that size, validators and bytes are those of the same file.
"""

import mimetypes
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from typing import IO

from prefork.http.connection import Environ

BLOCK = 64 * 1024
"""Bytes read at a time where the kernel does not send the file itself."""

# By the last suffix alone. An instance of `MimeTypes` has nothing of the machine's own files, but
# it grows from one Python to the next: what the web needs is said here, the rest taken from there.
# An archive stays what it is: with Content-Encoding a client would unpack what it should store.
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

_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')  # RFC 9110 section 8.8.3, without W/
# One range. Python refuses to read thousands of digits, and no file has a size of nineteen.
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)

Range = tuple[int, int]
"""First byte, and how many."""


class Part:
    """A part of an open file, and a file itself: for `wsgi.file_wrapper`, or a body as it is.

    It ends where the part ends, so a server that reads on to the end sends not a byte too many.
    """

    def __init__(self, file: IO[bytes], first: int, length: int) -> None:
        file.seek(first)  # sendfile(2) starts at the descriptor's position
        self._file = file
        self._end = first + length
        self.fileno = file.fileno
        self.tell = file.tell
        self.close = file.close

    def read(self, size: int = -1) -> bytes:
        left = max(self._end - self.tell(), 0)
        return self._file.read(left if size < 0 else min(size, left))

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(BLOCK):
            yield block


@dataclass
class Answer:
    """What `start_response` is told, and the body."""

    status: HTTPStatus
    headers: list[tuple[str, str]]
    body: bytes | Part = b""


def plain(status: HTTPStatus, *headers: tuple[str, str]) -> Answer:
    """A status with its own words as its body."""
    body = f"{status.value} {status.phrase}\n".encode()
    return Answer(status, [*described("text/plain; charset=utf-8", len(body)), *headers], body)


def described(kind: str, length: int) -> list[tuple[str, str]]:
    """The headers of a body, whose length is in bytes."""
    return [("Content-Type", kind), ("Content-Length", str(length))]


def from_file(environ: Environ, fd: int, path: bytes) -> Answer:
    """The answer from an open file, whose descriptor becomes the answer's or is closed."""
    with ExitStack() as stack:
        stack.callback(os.close, fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return plain(HTTPStatus.NOT_FOUND)
        answer, (first, length) = _represent(environ, status, path)
        if length and environ["REQUEST_METHOD"] == "GET":
            file = os.fdopen(fd, "rb", buffering=0)
            stack.pop_all()
            answer.body = Part(file, first, length)
        return answer


def _represent(environ: Environ, status: os.stat_result, path: bytes) -> tuple[Answer, Range]:
    """The head that a request for a file gets, and the part of the file that goes with it.

    In the order of RFC 9110 section 13.2.2.  The entity tag is a strong one: it changes with each
    write, as far as the clock of the file system ticks between two of them, and with each rename
    of another file into this one's place.
    """
    size = status.st_size
    modified = modified_at(status)
    etag = f'"{status.st_mtime_ns:x}-{size:x}-{status.st_ino:x}"'
    headers = [("ETag", etag), ("Last-Modified", formatdate(modified, usegmt=True))]
    if _is_current(environ, etag, modified):
        return Answer(HTTPStatus.NOT_MODIFIED, headers), (0, 0)
    headers.append(("Accept-Ranges", "bytes"))
    part = None
    # Section 14.2: a range is for GET alone.
    if environ["REQUEST_METHOD"] == "GET" and _may_be_partial(environ, etag, modified):
        part = _range(environ.get("HTTP_RANGE", ""), size)
    if part is None:
        headers += described(_content_type(path), size)
        return Answer(HTTPStatus.OK, headers), (0, size)
    first, length = part
    if not length:
        beyond = ("Content-Range", f"bytes */{size}")
        return plain(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, beyond), part
    headers.append(("Content-Range", f"bytes {first}-{first + length - 1}/{size}"))
    headers += described(_content_type(path), length)
    return Answer(HTTPStatus.PARTIAL_CONTENT, headers), part


def modified_at(status: os.stat_result) -> int:
    """Seconds since 1970, never in the future (RFC 9110 section 8.8.2.1)."""
    return max(0, min(int(status.st_mtime), int(time.time())))


def _is_current(environ: Environ, etag: str, modified: int) -> bool:
    """Whether the client has it already (RFC 9110 sections 13.1.2 and 13.1.3)."""
    tags = environ.get("HTTP_IF_NONE_MATCH")
    if tags is not None:
        # Weak comparison; and If-Modified-Since, if any, is not looked at.
        return tags.strip() == "*" or etag in _ETAG.findall(tags)
    since = _date(environ.get("HTTP_IF_MODIFIED_SINCE", ""))
    return since is not None and modified <= since


def _may_be_partial(environ: Environ, etag: str, modified: int) -> bool:
    """If-Range (RFC 9110 section 13.1.5): a part is of use to who has the rest of this very file.

    The tag is compared strongly, the date exactly.
    """
    condition = environ.get("HTTP_IF_RANGE")
    return condition is None or condition.strip() == etag or _date(condition) == modified


def _date(text: str) -> int | None:
    """An HTTP date in any of its three forms (RFC 9110 section 5.6.7), None where it is none."""
    try:
        date = parsedate_to_datetime(text)
    except (IndexError, OverflowError, TypeError, ValueError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)  # the form of asctime(3) has no zone, and means GMT
    return int(date.timestamp())


def _range(text: str, size: int) -> Range | None:
    """The part that a Range header asks for (RFC 9110 section 14.1.2).

    Its length is 0 where the file has nothing of it.  None: the whole file, for want of one
    well-formed range; a server may ignore what it does not want to serve, such as several.
    """
    match = _RANGE.fullmatch(text)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        # The last bytes of an empty file: satisfiable, but Content-Range cannot say so.
        return None if int(last) and not size else (size - length, length)
    start = int(first)
    if last and int(last) < start:
        return None
    end = min(int(last) + 1, size) if last else size
    return start, max(end - start, 0)


def _content_type(path: bytes) -> str:
    suffix = os.path.splitext(os.fsdecode(path))[1].lower()
    kind = _TYPES.get(suffix, "application/octet-stream")
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
