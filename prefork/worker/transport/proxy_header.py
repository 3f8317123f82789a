"""The PROXY header that an accepted connection begins with, taken off its socket."""

import socket

from prefork import logs
from prefork.http import proxy_protocol

_refused = logs.RateLimit(5.0, burst=10)


def report_refused(peer: str, reason: str) -> None:
    """Logs that a connection is closed which does not begin as it has to, or may not begin so.

    A client can make thousands of these a second, each with a packet or two.
    """
    if _refused.due():
        skipped = _refused.skipped or None
        logs.event("warning", "connection refused", peer=peer, reason=reason, skipped=skipped)


class ProxyHeaderReader:
    """The part of the header that has come."""

    __slots__ = ("_had",)

    def __init__(self) -> None:
        self._had = b""

    @property
    def begun(self) -> bool:
        """Some of it was taken off the socket."""
        return bool(self._had)

    def read(self, sock: socket.SocketType) -> proxy_protocol.ProxyHeader | None:
        """Takes the header and not a byte more: all that follows is the protocol's own.

        None while more of it has to come.  Raises ProxyError if it can't become a header, and
        OSError if the connection is at its end.
        """
        limit = proxy_protocol.V2_LIMIT + proxy_protocol.V1_LIMIT
        try:
            fresh = sock.recv(limit, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            if not fresh:  # of a health check, which only connects
                raise ConnectionAbortedError("the end before the PROXY header")
            header = proxy_protocol.read(self._had + fresh)
            size = len(fresh) if header is None else header.size - len(self._had)
            self._had += sock.recv(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        return header
