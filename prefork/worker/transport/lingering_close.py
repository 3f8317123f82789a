"""The end of a connection whose client may still be sending (RFC 9112 section 9.6).

A close with bytes unread resets the connection, and the reset may destroy the last answer before
it was read. So only our side is shut down, and bytes that come are thrown away for a while: such a
client may read the answer only after it has sent all of its request.
"""

import socket

_SECONDS = 10.0
"""The longest time in all."""

_SILENCE = 2.0
_BYTES = 64 * 1024 * 1024

_SIZE = 256 * 1024  # bytes read at one time
_AT_ONCE = 8  # such reads, until other connections get their turn


class LingeringClose:
    """One such end under way."""

    __slots__ = ("_since", "_sock", "discarded", "over")

    def __init__(self, sock: socket.SocketType, now: float) -> None:
        """Raises OSError if the client is gone already."""
        self._sock = sock
        self._since = now
        self.discarded = 0
        """Bytes that were thrown away."""
        self.over = False
        """The connection can be closed."""
        sock.shutdown(socket.SHUT_WR)
        self.discard()

    def due(self, now: float) -> float:
        """Monotonic seconds at which the client is not waited for any longer."""
        return min(now + _SILENCE, self._since + _SECONDS)

    def discard(self) -> None:
        """Throws away the bytes that have come."""
        try:
            for _ in range(_AT_ONCE):
                size = len(self._sock.recv(_SIZE, socket.MSG_DONTWAIT))
                self.discarded += size
                if not size or self.discarded > _BYTES:
                    self.over = True
                    return
        except BlockingIOError:
            return
        except OSError:
            self.over = True
