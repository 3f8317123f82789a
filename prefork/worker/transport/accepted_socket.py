"""Accepted descriptors as sockets, and the names of their peers."""

from prefork.unpatched import socket

_MAPPED = "::ffff:"
_STREAM = int(socket.SOCK_STREAM)


PeerAddress = tuple[str, int] | tuple[str, int, int, int] | str | bytes
"""As accept(2) gives it to Python: host and port first for IP, a path or nothing for a Unix socket.
"""


def socket_of(fd: int) -> socket.SocketType:
    """An accepted descriptor as a socket of the C module.

    socket.socket would take 3 us more for each connection, for nothing that is needed here: its
    __init__ and close() are in Python, and `listener.family` and `.type` look up enums.  CPython
    finds the family by the getsockname(2) that it makes in any case (3.11 to 3.14).
    """
    sock = socket.SocketType(-1, _STREAM, 0, fd)
    if sock.gettimeout() is not None:  # the application's default: MSG_DONTWAIT would wait so long
        sock.settimeout(None)
    return sock


def peer_name(peer: PeerAddress) -> tuple[str, str]:
    """Host and port of a peer's address; empty for a Unix socket.

    An IPv4 client of a dual-stack listener is named by its IPv4 address (RFC 4291 section 2.5.5.2).
    """
    if not isinstance(peer, tuple):
        return "", ""
    host = peer[0]
    if "." in host:
        host = host.removeprefix(_MAPPED)
    return host, str(peer[1])
