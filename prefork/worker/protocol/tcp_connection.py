"""A connection of a TCP handler, before, during and after the handler's call.

Before it, a header of the PROXY protocol may have to come (NEW, PROXY_HEADER).  After it, bytes of
the client may be left that nobody has read (LINGER): a close with unread data is a reset (RFC 2525
section 2.17), which could destroy the last answer.
"""

import contextlib
import socket
from math import inf

from prefork.worker.protocol.connection_state import ConnectionState
from prefork.worker.protocol.state_change import successor
from prefork.worker.schedule.worker_listener import WorkerListener
from prefork.worker.transport.accepted_socket import PeerAddress, peer_name
from prefork.worker.transport.lingering_close import LingeringClose
from prefork.worker.transport.proxy_header import ProxyHeaderReader

_PROXY_HEADER, _NEW = ConnectionState.PROXY_HEADER, ConnectionState.NEW
_CALL, _LINGER, _CLOSED = ConnectionState.CALL, ConnectionState.LINGER, ConnectionState.CLOSED


class TcpConnection:
    """One accepted connection and its handler's call."""

    def __init__(self, sock: socket.socket, address: PeerAddress, listener: WorkerListener) -> None:
        """`address`: as accept(2) gave it to Python."""
        self.state = _NEW
        self.sock = sock
        self.listener = listener
        self.set_client(address)
        self.thread = 0
        """Identifier of the thread that has called the handler, 0 while none has."""
        self._header = ProxyHeaderReader()
        self._lingering: LingeringClose | None = None
        # For prefork.worker.schedule.poller.
        self.fd = sock.fileno()
        self.events = 0
        self.deadline = 0.0
        self.wheel_time = inf

    def enter(self, state: ConnectionState) -> None:
        """Changes the state, to one that the table allows; any other ends the connection."""
        self.state = successor(self.state, state)

    def set_client(self, address: PeerAddress) -> None:
        """Names the client; `address`: in the form of accept(2)."""
        self.address = address
        host, port = peer_name(address)
        self.peer = f"{host}:{port}" if host else "unix"

    def read_header(self) -> bool:
        """Reads the PROXY header; returns whether it is complete, and the client named.

        Raises ProxyError if it can't become one, and OSError if the connection is at its end.
        """
        header = self._header.read(self.sock)
        if header is None:
            if self._header.begun:
                self.enter(_PROXY_HEADER)
            return False
        if header.source is not None:
            self.set_client(_as_accepted(*header.source))
        return True

    def shut_for_reading(self) -> None:
        """The handler finds the end of its input, and comes to its own end."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RD)

    def give_up(self) -> None:
        """The handler finds its connection ended."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def finish(self, now: float) -> None:
        """The handler has returned: shuts our side down, and enters LINGER or CLOSED."""
        # A handler that closed its socket, or detached it, has ended the connection itself.
        if self.sock.fileno() < 0:
            self.enter(_CLOSED)
            return
        try:
            self._lingering = LingeringClose(self.sock, now)
        except OSError:
            self.enter(_CLOSED)
            return
        # A client that has sent nothing more is not waited for.
        self._linger_on(now, wait=self._lingering.discarded > 0)

    def discard(self, now: float) -> None:
        """Throws away the bytes that have come after the handler's end."""
        assert self._lingering is not None
        self._lingering.discard()
        self._linger_on(now)

    def _linger_on(self, now: float, *, wait: bool = True) -> None:
        assert self._lingering is not None
        if self._lingering.over or not wait:
            self.enter(_CLOSED)
        else:
            self.enter(_LINGER)
            self.deadline = self._lingering.due(now)


def _as_accepted(host: str, port: str) -> PeerAddress:
    """The address of a PROXY header in the form that accept(2) gives it to Python."""
    if not host:
        return ""  # a Unix socket
    return (host, int(port), 0, 0) if ":" in host else (host, int(port))
