"""The parts of a file that a Range header asks for (RFC 9110 section 14)."""

import re
import secrets
from collections.abc import Iterator
from typing import IO

from prefork.apps.file_slice import BLOCK

Range = tuple[int, int]
"""First byte, and how many."""

_UNIT = re.compile(r"bytes=(.*)", re.IGNORECASE | re.DOTALL)
# Python refuses to read thousands of digits, and no file has a size of nineteen.
_RANGE = re.compile(r"[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*")
_RANGES = 16
"""Ranges that are served; no client needs more to go on with a download."""


def parse(text: str, size: int) -> list[Range] | None:
    """The ranges that the file has something of, in the order of the header.

    Empty: it has nothing of any (416).  None: the whole file is to be sent, since there is no
    header, or a malformed one, or it asks for too many ranges or for more bytes than there are in
    all (section 14.2 lets a server ignore those).
    """
    match = _UNIT.fullmatch(text)
    if match is None:
        return None
    asked = match[1].split(",", _RANGES + 1)
    found = []
    for one in asked:
        if len(asked) > 1 and not one.strip(" \t"):
            continue  # an empty element of a list (section 5.6.1)
        part = _range(one, size)
        if part is None:
            return None
        found.append(part)
    if not found or len(found) > _RANGES:
        return None
    satisfiable = [part for part in found if part[1]]
    if len(satisfiable) > 1 and sum(length for _, length in satisfiable) > size:
        return None
    return satisfiable


def _range(text: str, size: int) -> Range | None:
    """One range; its length is 0 if the file has nothing of it.  None if it is malformed."""
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


def content_range(part: Range, size: int) -> str:
    first, length = part
    return f"bytes {first}-{first + length - 1}/{size}"


class MultipartRanges:
    """Several parts of an open file as the body of `multipart/byteranges` (section 14.6)."""

    def __init__(self, ranges: list[Range], size: int, kind: str) -> None:
        """`size`: bytes of the whole file; `kind`: its type."""
        boundary = secrets.token_hex(16)  # nobody can have put it into the file
        self.content_type = f"multipart/byteranges; boundary={boundary}"
        self._pieces = [
            (
                f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n"
                f"Content-Range: {content_range(part, size)}\r\n\r\n".encode("latin-1"),
                part,
            )
            for part in ranges
        ]
        self._end = f"\r\n--{boundary}--\r\n".encode()
        self.length = len(self._end) + sum(len(head) + length for head, (_, length) in self._pieces)
        self._file: IO[bytes] | None = None

    def of(self, file: IO[bytes]) -> "MultipartRanges":
        """The file becomes the body's, which closes it."""
        self._file = file
        return self

    def __iter__(self) -> Iterator[bytes]:
        file = self._file
        assert file is not None
        for head, (first, length) in self._pieces:
            file.seek(first)
            yield head
            while length:
                block = file.read(min(length, BLOCK))
                if not block:
                    return  # the file has shrunk: the answer ends visibly short
                length -= len(block)
                yield block
        yield self._end

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
