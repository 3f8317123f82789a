"""The body of a request: bytes, a regular file or a pipe, and its upload."""

import os
import stat

from prefork.client.connection import ClientConnection, ClientError
from prefork.quantity import quantity

PIECE = 64 * 1024


class RequestContent:
    """Bytes in memory, or an open descriptor; `length` is None if only its end shows it.

    The default content type of bytes is that of a form, as with curl.
    """

    def __init__(self, data: bytes = b"", fd: int | None = None) -> None:
        """Raises OSError if fstat(2) or lseek(2) fails."""
        self.data = data
        self.fd = fd
        form = "application/x-www-form-urlencoded"
        self.content_type = form if fd is None else "application/octet-stream"
        self.offset = 0
        self.length: int | None = len(data)
        if fd is not None:
            self.length = self._measure(fd)

    @property
    def replayable(self) -> bool:
        """Whether it can be sent a second time."""
        return self.length is not None

    @property
    def small(self) -> bool:
        """Whether it is in memory and short enough to be sent together with the head."""
        return self.length == len(self.data) <= PIECE

    def _measure(self, fd: int) -> int | None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        # Standard input may be a file that was read in part.
        self.offset = os.lseek(fd, 0, os.SEEK_CUR)
        length = max(0, status.st_size - self.offset)
        # The files of proc(5) have size 0 and are not empty.
        if length == 0 and os.pread(fd, 1, self.offset):
            return None
        return length


class Upload:
    """The sending of a body: how much was read, and the bytes that are still to be sent."""

    def __init__(self, body: RequestContent, chunked: bool) -> None:
        self._body = body
        self._chunked = chunked
        self._read = 0
        self._pending = memoryview(b"")
        self._ended = body.length == 0 and not chunked

    @property
    def done(self) -> bool:
        return self._ended and not self._pending

    @property
    def source(self) -> int | None:
        """The descriptor to wait for before `push`, if reading it may block."""
        if self._pending or self._body.replayable or self._ended:
            return None
        return self._body.fd

    def push(self, connection: ClientConnection) -> None:
        """One read, and one send of as much as is possible without waiting.

        Raises ClientError if the body cannot be read, or is shorter than its Content-Length.
        """
        body = self._body
        direct = connection.plain and not self._chunked
        if direct and body.fd is not None and body.length is not None:
            self._sendfile(connection, body.fd, body.length)
            return
        if not self._pending:
            self._refill()
        if self._pending:
            self._pending = self._pending[connection.send(self._pending) :]

    def _sendfile(self, connection: ClientConnection, fd: int, length: int) -> None:
        sent = connection.sendfile(fd, self._body.offset + self._read, length - self._read)
        if sent == 0:
            self._shrunk()
        self._read += sent or 0
        self._ended = self._read == length

    def _refill(self) -> None:
        body = self._body
        try:
            data = self._next()
        except BlockingIOError:
            return
        except OSError as error:
            raise ClientError("read the body", error.strerror or str(error)) from error
        self._read += len(data)
        self._ended = not data if body.length is None else self._read == body.length
        if not data and body.length:
            self._shrunk()
        self._pending = memoryview(self._frame(data) if self._chunked else data)

    def _next(self) -> bytes:
        body = self._body
        if body.fd is None:
            return body.data[self._read : self._read + PIECE]
        if body.length is None:
            return os.read(body.fd, PIECE)
        wanted = min(PIECE, body.length - self._read)
        return os.pread(body.fd, wanted, body.offset + self._read)

    def _frame(self, data: bytes) -> bytes:
        # RFC 9112 section 7.1; the chunk of size 0 ends the body.
        framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return framed + b"0\r\n\r\n" if self._ended else framed

    def _shrunk(self) -> None:
        raise ClientError(
            "read the body",
            f"the file ends after {self._read} of {quantity(self._body.length or 0, 'byte')}",
        )
