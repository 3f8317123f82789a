"""Clients of WebSockets: a real one, and one that sends bytes by hand."""

import select
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.support.raw_http import Raw
from tests.support.server import Server
from tests.support.waiting import PATIENCE

HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""Of a path, as bytes."""


class LockedSSLSocket(ssl.SSLSocket):
    """Reads and writes of two threads, one at a time.

    The client of websockets has a thread that reads while another writes.  CPython 3.11
    has no lock for that: when session tickets were read during the first write, OpenSSL reported
    the end of the connection (in one of about 400 handshakes beside other work)."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        while True:
            with self._lock:
                self.setblocking(False)  # a ticket makes it readable, and there is nothing to read
                try:
                    return super().recv(buflen, flags)
                except ssl.SSLWantReadError:
                    pass
                finally:
                    self.setblocking(True)
            select.select([self], [], [])

    def sendall(self, data: Any, flags: int = 0) -> None:
        with self._lock:
            super().sendall(data, flags)

    @property
    def _lock(self) -> threading.Lock:
        """SSLSocket makes its instances by a way of its own, without __init__."""
        lock: threading.Lock = self.__dict__.setdefault("lock", threading.Lock())
        return lock


@contextmanager
def websocket(server: Server, path: str, **options: Any) -> Iterator[ClientConnection]:
    """A client of the package websockets; for `options` see its `connect`."""
    scheme = "ws"
    if "ssl" in options:
        scheme = "wss"
        options["ssl"].sslsocket_class = LockedSSLSocket
    with connect(
        f"{scheme}://127.0.0.1:{server.port}{path}",
        open_timeout=PATIENCE,
        close_timeout=PATIENCE,
        proxy=None,
        **options,
    ) as client:
        yield client


@contextmanager
def raw_websocket(server: Server, path: str, behind: bytes = b"") -> Iterator[Raw]:
    """A connection after its handshake; `behind`: what is sent right behind that."""
    with server.connect() as sock:
        raw = Raw(sock)
        raw.send(HANDSHAKE % path.encode() + behind)
        assert raw.answer().status == 101
        yield raw


def server_frame(raw: Raw) -> tuple[int, bytes]:
    """The next frame of the server: its first byte, and its payload."""
    first, size = raw.exactly(2)
    assert size < 128, "a frame of the server is masked"
    if size == 126:
        size = int.from_bytes(raw.exactly(2), "big")
    elif size == 127:
        size = int.from_bytes(raw.exactly(8), "big")
    return first, raw.exactly(size)
