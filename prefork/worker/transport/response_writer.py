"""The sending side of a connection: as much as the client takes now, and the rest later."""

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Iterator
from functools import partial
from time import monotonic
from typing import Final

from prefork import logs
from prefork.http.response_sink import ResponseSink
from prefork.scoreboard import ThreadRecord
from prefork.worker.transport.client_limits import ClientLimits
from prefork.worker.transport.output_buffer import (
    AHEAD,
    SHRUNK,
    OutputBuffer,
    SendFile,
    UnreadableFileError,
    falls_behind,
)

_SMALL_FILE: Final = 32 * 1024  # read and sent with the head: one call in place of three
_SENDFILE: Final = 1024 * 1024  # bytes asked of the kernel at one time
_READ: Final = 64 * 1024  # bytes of a file read at one time if the kernel does not send it

# An application may set SIGPIPE to its default, which ends the process when a client leaves.
_DONTWAIT: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

# struct linger, socket(7)
_RESET: Final = struct.pack("@ii", 1, 0)
_CLOSE: Final = struct.pack("@ii", 0, 0)

_broken_off = logs.RateLimit(5.0)
_too_slow = logs.RateLimit(5.0)


class ResponseWriter(ResponseSink):
    """The socket of one client, and the bytes that are to be sent on it."""

    __slots__ = (
        "_ends_with_close",
        "_record",
        "_rules",
        "_started",
        "ahead_limited",
        "fd",
        "response_size",
        "sock",
        "unsent",
    )

    def __init__(self, sock: socket.SocketType, rules: ClientLimits) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self._rules = rules
        self.unsent: OutputBuffer | None = None
        """There while the client lags behind."""
        self._started = False
        self._record: ThreadRecord | None = None
        """Of the thread that has the request, or had the last one."""
        self._ends_with_close = False
        self.ahead_limited = False
        """The kernel was told not to keep more than AHEAD bytes for this client."""
        self.response_size = 0
        """Bytes of body of the last response."""
        self.broken = False
        """The client is gone, or its request was given up."""

    @property
    def lagging(self) -> bool:
        """The client has something to take."""
        return self.unsent is not None

    def send(self, data: bytes) -> None:
        """Sends as many bytes as the client takes now, and keeps the rest."""
        if self.broken:
            return
        self._started = True
        if self.unsent is not None:
            self._keep(memoryview(data))
            return
        try:
            sent = self.sock.send(data, _DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.broken = True
            return
        if sent != len(data):
            self._keep(memoryview(data)[sent:])

    def send_piece(self, data: bytes) -> None:
        """The same for a part of a response of which the application has to make the rest: its time
        for the next part begins now (`[workers] request_timeout`)."""
        self.send(data)
        if self._record is not None:
            self._record.resume(monotonic())

    @contextlib.contextmanager
    def awaiting_client(self) -> Iterator[None]:
        """A thread waits for the client: that is not the application's time."""
        record = self._record
        if record is None:
            yield
            return
        record.wait(monotonic())
        try:
            yield
        finally:
            record.resume(monotonic())

    def offer(self, data: bytes | memoryview, most: int) -> int:
        """Sends as many bytes as the client takes now, and keeps some more in memory, as long as
        that is no more than `most` in all.

        Returns how many bytes it has taken; the others have to be offered again when the client
        has taken what is kept (`unsent`).  Never waits, and never writes to disk.
        """
        size = len(data)
        if self.broken:
            return size
        self._started = True
        sent = 0
        if self.unsent is None:
            try:
                sent = self.sock.send(data, _DONTWAIT)
            except BlockingIOError:
                pass
            except OSError:
                self.broken = True
                return size
            if sent == size:
                return size
        return sent + self._lag().keep(memoryview(data)[sent:], most)

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        """Sends a head and `count` bytes of a file from `offset`."""
        if count <= _SMALL_FILE:
            try:
                data = os.pread(fd, count, offset)
            except OSError as problem:
                self._source_failed(f"a file cannot be read: {problem.strerror}")
                return
            self.send(head + data)
            if len(data) != count:
                self._source_failed(SHRUNK)
            return
        self.send(head)
        if self.broken:
            return
        try:
            self._lag().add_file(fd, offset, count)
        except OSError:  # no descriptor is left
            self._copy_file(fd, offset, count)
        else:
            self.flush()

    def _copy_file(self, fd: int, offset: int, count: int) -> None:
        """Sends bytes of a file as if the application had made them."""
        while count and not self.broken:
            try:
                data = os.pread(fd, min(count, _READ), offset)
            except OSError as problem:
                self._source_failed(f"a file cannot be read: {problem.strerror}")
                return
            if not data:
                self._source_failed(SHRUNK)
                return
            self.send(data)
            offset += len(data)
            count -= len(data)
        self.flush()

    def _keep(self, data: memoryview) -> None:
        try:
            unsent = self._lag()
            while data:
                data = unsent.add(data)
                if data:
                    with self.awaiting_client():
                        data = unsent.wait_for_reader(data)
            if not unsent:  # the client has taken all of it meanwhile
                self.unsent = None
        except TimeoutError:
            self._gave_up()
        except UnreadableFileError as problem:
            self._source_failed(str(problem))
        except OSError:
            self.broken = True

    def _lag(self) -> OutputBuffer:
        """From now on the client has something to take."""
        if self.unsent is None:
            self.unsent = OutputBuffer(self.sock, self._file_sender(), self._rules)
        return self.unsent

    def _file_sender(self) -> SendFile:
        return partial(_send_file, self.sock)

    def _look_ahead(self) -> bool:
        """Whether the client has to take more of its last response before its next request is
        served."""
        behind = falls_behind(self.sock)
        if behind:
            self._lag()
        else:
            self.response_size = 0
        return behind

    def limit_ahead(self) -> None:
        """From now on the kernel keeps no more than AHEAD bytes for this client."""
        if self.ahead_limited:
            return
        self.ahead_limited = True
        with contextlib.suppress(OSError):  # a Unix socket, for which the kernel keeps little
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, AHEAD)

    def flush(self) -> None:
        """Sends kept bytes: as many as the client takes now, within one turn."""
        unsent = self.unsent
        if unsent is None:
            return
        try:
            unsent.flush()
            if not unsent:
                self.unsent = None
        except UnreadableFileError as problem:
            self._source_failed(str(problem))
        except OSError:
            self.broken = True

    def ends_with_close(self) -> None:
        """The end of the connection will be that of the response (HTTP/1.0 without a length).

        If the response breaks off, its client would take what it has for the whole.  So until
        `allow_close` each close resets the connection, also that of a worker that is killed.  (A
        Unix socket knows no reset.)
        """
        self._ends_with_close = True
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def allow_close(self) -> None:
        """The last response was sent as a whole."""
        if self._ends_with_close:
            self._ends_with_close = False
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE)

    def break_off(self) -> None:
        """The response stays incomplete: its length, its chunks or a reset shows that."""
        if self._ends_with_close:
            self.broken = True

    def _source_failed(self, reason: str) -> None:
        """Bytes that were promised to the client are not there."""
        self.broken = True
        if _broken_off.due():
            logs.event("warning", "response broken off", reason=reason)

    def _gave_up(self) -> None:
        """The client takes too little of its response."""
        self.broken = True
        if _too_slow.due():
            logs.event(
                "info",
                "response broken off",
                reason="the client takes too little of it"
                " (http.write_timeout, http.min_write_rate)",
            )

    def send_interim(self, data: bytes) -> None:
        """Sends an interim response: a request that takes too long can still get a 504."""
        started = self._started
        self.send(data)
        self._started = started


def _send_file(sock: socket.SocketType, fd: int, offset: int, count: int) -> int:
    """Sends bytes of a file, or reads and sends some if the kernel does not.

    sendfile(2) is refused by some file systems (EINVAL), kernels and filters of system calls
    (ENOSYS, EPERM).  It knows no MSG_NOSIGNAL, so it is not used while SIGPIPE would end the
    process.  Raises UnreadableFileError if the file cannot be read, OSError for the connection.
    """
    if signal.getsignal(signal.SIGPIPE) is not signal.SIG_DFL:
        try:
            if sent := os.sendfile(sock.fileno(), fd, offset, min(count, _SENDFILE)):
                return sent
        except BlockingIOError:
            raise
        except OSError:  # of the file or of the connection: the calls below tell
            pass
    try:
        data = os.pread(fd, min(count, _READ), offset)
    except OSError as problem:
        raise UnreadableFileError(f"a file cannot be read: {problem.strerror}") from None
    return sock.send(data, _DONTWAIT) if data else 0
