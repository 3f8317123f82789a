"""Sockets by hand."""

import socket
from pathlib import Path

from tests.support.waiting import PATIENCE


def connect(address: str) -> socket.socket:
    """A connection to "HOST:PORT"."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the other side closes."""
    parts = []
    while data := sock.recv(65536):
        parts.append(data)
    return b"".join(parts)


def read_head(sock: socket.socket) -> bytes:
    """A request up to the empty line, and no byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, f"the client has closed after {head!r}"
        head += byte
    return head


def closed_port() -> int:
    """A port that was free a moment ago: nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def accepts(path: Path) -> bool:
    """Whether a server listens at a Unix socket: its file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
