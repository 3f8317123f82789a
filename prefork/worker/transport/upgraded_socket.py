"""The socket of a connection that a WSGI application takes over: `environ["werkzeug.socket"]`.

It is a duplicate of the connection's, blocking, so that flask-sock and simple-websocket can speak
WebSocket on it.  The connection is the application's from its first use on; until then it is as any
other, and the application may answer the request instead.
"""

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from prefork.unpatched import Lock
from prefork.websocket.frame_writer import close_frame

_SWITCHED = b"HTTP/1.1 101"


class UpgradedSocket(socket.socket):
    """A duplicate of a client's socket, which tells when it is used."""

    def __init__(self, fd: int, early: bytes, taken: Callable[[], None]) -> None:
        """`fd`: of the connection.  `early`: what came behind the request.  `taken`: is called at
        the first use.

        Raises OSError if there is no descriptor left.
        """
        super().__init__(fileno=os.dup(fd))
        self.settimeout(None)
        self._early = early
        self._report = taken
        self.taken = False
        """The application has used it."""
        self._open = False
        self._sending = Lock()
        """Held while the application sends, so that nothing gets into the middle of a frame."""

    def _take(self) -> None:
        if not self.taken:
            self.taken = True
            self._report()

    # What libraries use.  In the worker's own hands, `socket.socket`'s methods do the rest.

    def send(self, data: Any, flags: int = 0) -> int:
        self._take()
        with self._sending:
            sent = super().send(data, flags | socket.MSG_NOSIGNAL)
        self._opened(data)
        return sent

    def sendall(self, data: Any, flags: int = 0) -> None:
        self._take()
        with self._sending:
            super().sendall(data, flags | socket.MSG_NOSIGNAL)
        self._opened(data)

    def _opened(self, data: Any) -> None:
        if not self._open:
            self._open = bytes(data[: len(_SWITCHED)]) == _SWITCHED

    def recv(self, size: int, flags: int = 0) -> bytes:
        """What the client has sent; at first what came with the request.

        A selector does not see the latter: still, a library that waits in one gets it with the next
        bytes.
        """
        self._take()
        if self._early:
            data = self._early[:size]
            if not flags & socket.MSG_PEEK:
                self._early = self._early[size:]
            return data
        return super().recv(size, flags)

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        self._take()
        if self._early:
            data = self.recv(size or len(buffer), flags)
            memoryview(buffer).cast("B")[: len(data)] = data
            return len(data)
        return super().recv_into(buffer, size, flags)

    def makefile(self, *args: Any, **kwargs: Any) -> Any:
        self._take()
        return super().makefile(*args, **kwargs)

    # The end.

    def say_goodbye(self, code: int) -> None:
        """The worker is on its way out: the client gets a close frame, and the application the end
        of what the client sends.

        The frame is left out if the application is sending at this moment.
        """
        if self._open and self._sending.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    super().send(close_frame(code), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            finally:
                self._sending.release()
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RD)

    def cut(self) -> None:
        """Ends the connection; a thread of the application that still reads or sends finds that."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)
