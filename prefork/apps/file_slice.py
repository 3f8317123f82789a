"""A part of an open file, as a body."""

from collections.abc import Iterator
from io import FileIO

BLOCK = 64 * 1024
"""Bytes read at a time if the kernel does not send the file itself."""


class FileSlice:
    """A part of an open file, and a file itself: for `wsgi.file_wrapper`, or a body as it is.

    It ends at the end of the part, so a server that reads to the end sends not a byte too many.
    """

    def __init__(self, file: FileIO, first: int, length: int) -> None:
        file.seek(first)  # sendfile(2) starts at the descriptor's position
        self.file = file
        self._end = first + length
        self.fileno = file.fileno
        self.tell = file.tell
        self.close = file.close

    def read(self, size: int = -1) -> bytes:
        left = max(self._end - self.tell(), 0)
        return self.file.read(left if size < 0 else min(size, left))

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(BLOCK):
            yield block
