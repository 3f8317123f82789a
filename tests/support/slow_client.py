"""A client that takes its response only as far as a test says."""

import hashlib
import socket
import ssl

from tests.support.server import Server
from tests.support.waiting import PATIENCE

_WINDOW = 64 * 1024
"""Bytes that the kernel keeps for the client."""


class SlowClient:
    """One connection with a small receive buffer, and one request on it, of HTTP/1.0: the response
    is not chunked, and ends with the connection."""

    def __init__(
        self,
        server: Server,
        path: str,
        *,
        tls: ssl.SSLContext | None = None,
        head: str = "",
        method: str = "GET",
    ) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(PATIENCE)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)
        self.sock.connect(("127.0.0.1", server.port))
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        self.sock.sendall(f"{method} {path} HTTP/1.0\r\nHost: t\r\n{head}\r\n".encode())
        self.head = b""
        self._digest = hashlib.sha256()
        self.size = 0
        """Bytes of the body that were taken."""

    def read_head(self) -> None:
        while not self.head.endswith(b"\r\n\r\n"):
            byte = self.sock.recv(1)
            assert byte, f"closed after {self.head!r}"
            self.head += byte

    def take(self, size: int) -> bool:
        """Takes so many bytes of the body, or all up to its end; returns whether there is more.

        Raises OSError if the connection is reset.
        """
        if not self.head:
            self.read_head()
        until = self.size + size
        while self.size < until:
            data = self.sock.recv(min(until - self.size, 65536))
            if not data:
                return False
            self._digest.update(data)
            self.size += len(data)
        return True

    def take_rest(self) -> tuple[int, str]:
        """Takes the rest; returns the bytes of the whole body, and their SHA-256."""
        while self.take(1 << 20):
            pass
        return self.size, self._digest.hexdigest()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "SlowClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def whole(body: bytes) -> tuple[int, str]:
    """What `take_rest` returns if the client has got all of it."""
    return len(body), hashlib.sha256(body).hexdigest()
