"""A request's body, gathered before the application is called: in memory, past a size on disk."""

from tempfile import SpooledTemporaryFile
from typing import IO

from prefork.http.head import Reject


class Body:
    """What has come of a body so far."""

    __slots__ = ("_limit", "file", "size")

    def __init__(self, memory: int, limit: int) -> None:
        """`memory`: bytes kept in memory; `limit`: bytes allowed; 0 means no limit."""
        self.file: IO[bytes] = SpooledTemporaryFile(max_size=memory)  # noqa: SIM115
        self.size = 0
        self._limit = limit

    def write(self, data: bytes) -> None:
        """Adds a piece. Raises Reject(413) past the limit, OSError where the disk is full."""
        self.size += len(data)
        if self._limit and self.size > self._limit:
            raise Reject(413, f"body is larger than {self._limit} bytes")
        self.file.write(data)

    def whole(self) -> IO[bytes]:
        """The body from its first byte, as a file."""
        self.file.seek(0)
        return self.file
