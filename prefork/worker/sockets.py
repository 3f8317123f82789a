"""Accepted descriptors as sockets, and what becomes of them at the end."""

import socket
from typing import Any

_MAPPED = "::ffff:"


def adopt(fd: int, peer: Any, listener: socket.socket) -> tuple[socket.socket, str, str]:
    """An accepted descriptor as (socket, peer's host, peer's port).

    Host and port are empty for a Unix socket.  An IPv4 client of a dual-stack listener is named
    by its IPv4 address (RFC 4291 section 2.5.5.2).
    """
    sock = socket.socket(listener.family, listener.type, listener.proto, fileno=fd)
    if not isinstance(peer, tuple):
        return sock, "", ""
    host = peer[0]
    if host.startswith(_MAPPED) and "." in host:
        host = host[len(_MAPPED) :]
    return sock, host, str(peer[1])
