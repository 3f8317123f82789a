"""The sending side of a connection: as much as the client takes now, and the rest later."""

import os
import socket
from functools import partial

from prefork.worker.transport.client_limits import ClientLimits
from prefork.worker.transport.output_buffer import OutputBuffer, SendFile, falls_behind

_SMALL_FILE = 32 * 1024  # read and sent with the head: one call in place of three
_SENDFILE = 1024 * 1024  # bytes asked of the kernel at one time

_DONTWAIT = socket.MSG_DONTWAIT


class ResponseWriter:
    """The socket of one client, and the bytes that are to be sent on it."""

    __slots__ = ("_rules", "_started", "broken", "fd", "response_size", "sock", "unsent")

    def __init__(self, sock: socket.SocketType, rules: ClientLimits) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self._rules = rules
        self.unsent: OutputBuffer | None = None
        """There while the client lags behind."""
        self._started = False
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

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        """Sends a head and `count` bytes of a file from `offset`."""
        if count <= _SMALL_FILE:
            data = os.pread(fd, count, offset)
            self.send(head + data)
            self.broken = self.broken or len(data) != count  # shrunk since it was promised
            return
        self.send(head)
        if not self.broken:
            self._lag().add_file(fd, offset, count)
            self.flush()

    def _keep(self, data: memoryview) -> None:
        try:
            unsent = self._lag()
            unsent.add(data)
            if not unsent:  # the client has taken all of it meanwhile
                self.unsent = None
        except OSError:
            self.broken = True

    def _lag(self) -> OutputBuffer:
        """From now on the client has something to take."""
        if self.unsent is None:
            self.unsent = OutputBuffer(self.sock, self._file_sender(), self._rules)
        return self.unsent

    def _file_sender(self) -> SendFile:
        return partial(_send_file, self.fd)

    def _look_ahead(self) -> bool:
        """Whether the client has to take more of its last response before its next request is
        served."""
        behind = falls_behind(self.sock)
        if behind:
            self._lag()
        else:
            self.response_size = 0
        return behind

    def flush(self) -> None:
        """Sends kept bytes: as many as the client takes now, within one turn."""
        unsent = self.unsent
        if unsent is None:
            return
        try:
            unsent.flush()
            if not unsent:
                self.unsent = None
        except OSError:
            self.broken = True

    def send_interim(self, data: bytes) -> None:
        """Sends an interim response: a request that takes too long can still get a 504."""
        started = self._started
        self.send(data)
        self._started = started


def _send_file(to: int, fd: int, offset: int, count: int) -> int:
    return os.sendfile(to, fd, offset, min(count, _SENDFILE))
