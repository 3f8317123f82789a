"""TCP handlers in a worker: one call for each connection, `handler(sock, address)`.

A handler has its connection to itself for as long as it likes, in the thread that called it.
Parked is only what needs no handler.  Before it is called: a connection that owes a header of the
PROXY protocol.  When it has returned: what is left over, bytes of the client's that nobody read,
for a moment: a close with unread data is a reset (RFC 2525 section 2.17), which could take the
last answer with it.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from prefork import logs
from prefork.http.forwarded import Trusts
from prefork.http.proxy_protocol import ProxyError
from prefork.scoreboard import ThreadRecord, WorkerStatsWriter
from prefork.worker.schedule.handover import Handover, HandoverMessage
from prefork.worker.schedule.poller import EPOLLIN, ConnectionPoller, SharedConnectionPoller
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener
from prefork.worker.service import forked_child
from prefork.worker.transport.accepted_socket import peer_name
from prefork.worker.transport.proxy_header import ProxyHeaderReader

Handler = Callable[[socket.socket, Any], object]

_LINGER = 2.0  # seconds
_LINGER_BYTES = 1024 * 1024
_PIECE = 64 * 1024


class TcpConnection:
    """One accepted connection and its handler."""

    def __init__(self, sock: socket.socket, address: Any, listener: WorkerListener) -> None:
        self.sock = sock
        self.listener = listener
        self.introduce(address)
        self.header: ProxyHeaderReader | None = None
        """What has to come before the handler is called."""
        self.thread = 0
        self._discarded = 0
        self.fd = sock.fileno()
        self.events = 0
        self.deadline = 0.0
        self.wheel_time = inf

    def introduce(self, address: Any) -> None:
        """Names the client, as accept(2) does."""
        self.address = address
        host, port = peer_name(address)
        self.peer = f"{host}:{port}" if host else "unix"

    @property
    def fresh(self) -> bool:
        """Nothing was read of it yet, though it has to begin with a header."""
        return self.header is not None and not self.header.begun

    def shut_for_reading(self) -> None:
        """The handler finds the end of its input, and comes to its own end."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RD)

    def give_up(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def finish(self) -> bool:
        """The handler has returned; True where the client is still to be listened to."""
        try:
            # A handler that closed its socket, or detached it, has ended the connection itself.
            if self.sock.fileno() < 0:
                return False
            self.sock.shutdown(socket.SHUT_WR)
            return self.discard() and self._discarded > 0
        except OSError:
            return False

    def discard(self) -> bool:
        """Throws away what has come; False at the end of it."""
        try:
            while data := self.sock.recv(_PIECE, socket.MSG_DONTWAIT):
                self._discarded += len(data)
                if self._discarded > _LINGER_BYTES:
                    return False
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False


class TcpService:
    """All TCP exchanges of one worker."""

    def __init__(
        self,
        handler: Handler,
        threads: LeaderFollowers | None,
        handover: Handover,
        stats: WorkerStatsWriter,
        *,
        request_timeout: float,
        header_timeout: float,
        proxies: Trusts | None,
    ) -> None:
        """`proxies`: who speaks the PROXY protocol, and all others are refused; None: nobody does.
        `header_timeout`: seconds for its header, 0 for no limit."""
        self.poller: ConnectionPoller[TcpConnection] = (
            ConnectionPoller() if threads is None else SharedConnectionPoller()
        )
        self._handler = handler
        self._threads = threads
        self._handover = handover
        self._stats = stats
        self._request_timeout = request_timeout
        self._header_timeout = header_timeout
        self._proxies = proxies
        self._open: set[TcpConnection] = set()
        self._running: dict[TcpConnection, float] = {}
        self._forked = False
        self._last = False

    # prefork.worker.schedule.worker_loop.Service

    def serve_accepted(
        self, accepted: AcceptedSocket, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        fd, address = accepted
        listening = listener.sock
        sock = socket.socket(listening.family, listening.type, listening.proto, fileno=fd)
        exchange = TcpConnection(sock, address, listener)
        self._open.add(exchange)
        if self._proxies is not None:
            exchange.header = ProxyHeaderReader()
            if self._header_timeout:
                exchange.deadline = monotonic() + self._header_timeout
            if not self._proxies(peer_name(address)[0]):
                self._refuse(exchange, "the peer is not one of http.trusted_proxies")
                return
        self._proceed(exchange, record)

    def serve_received(
        self, parcel: HandoverMessage, fd: int, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        self.serve_accepted((fd, parcel.peer), listener, record)

    def serve_ready(self, fd: int, events: int, record: ThreadRecord, now: float) -> float:
        exchange = self.poller.claim(fd)
        if exchange is None:
            return now
        if exchange.header is not None:
            self._proceed(exchange, record)
        elif exchange.discard():
            self.poller.park(exchange, EPOLLIN)
        else:
            self._close(exchange)
        return monotonic()

    def close_overdue(self, now: float, record: ThreadRecord) -> None:
        for exchange in self.poller.claim_expired(now):
            self._close(exchange)

    def hand_over(self, fd: int, slot: int | None = None) -> bool:
        exchange = self.poller.parked.get(fd)
        return exchange is not None and self._move(exchange, only_idle=True, slot=slot)

    def hand_over_all(self) -> None:
        for exchange in list(self.poller.parked.values()):
            self._move(exchange, only_idle=False)

    def _move(self, exchange: TcpConnection, *, only_idle: bool, slot: int | None = None) -> bool:
        """Hands over a connection of which nothing was read; False where it stays, or is somebody
        else's."""
        if not exchange.fresh:  # only a look: it is not ours yet
            return False
        if not self.poller.claim_connection(exchange):
            return False
        if not exchange.fresh:
            self.poller.park(exchange, EPOLLIN)
            return False
        self.poller.unregister(exchange)
        parcel = HandoverMessage(
            *(exchange.listener.inode, exchange.address, ("", ""), b"", monotonic(), 0.0),
            *(False, False),
        )
        if self._handover.send(parcel, exchange.fd, only_idle=only_idle, slot=slot):
            self._close(exchange)
            return True
        self.poller.park(exchange, EPOLLIN)
        return False

    def begin_shutdown(self) -> None:
        self._last = True
        for exchange in list(self._running):
            exchange.shut_for_reading()

    def shut_down_idle(self) -> None:
        """What stays here ends by itself within two seconds, whatever it still owes."""
        if self._handover.has_receiver:
            self.hand_over_all()
        until = monotonic() + _LINGER
        for exchange in list(self.poller.parked.values()):
            if exchange.header is not None and self.poller.claim_connection(exchange):
                exchange.deadline = min(exchange.deadline or until, until)
                self.poller.park(exchange, EPOLLIN)

    def expire_requests(self, now: float) -> None:
        for exchange, started in list(self._running.items()):
            if now - started >= self._request_timeout:
                exchange.give_up()

    def flush(self) -> None:
        # Nothing else is kept back: a handler's connections are in no access log.
        self._stats.set_connections(len(self._open), len(self.poller.parked), 0, 0)

    def after_fork_in_child(self) -> None:
        self._forked = True
        for exchange in self._open:
            # The one whose handler has forked may go on in the child.
            if exchange.thread != threading.get_ident():
                exchange.sock.close()

    # One exchange.

    def _proceed(self, exchange: TcpConnection, record: ThreadRecord) -> None:
        if exchange.header is None or self._introduced(exchange, exchange.header):
            self._call(exchange, record)
            self._finish(exchange)

    def _introduced(self, exchange: TcpConnection, owed: ProxyHeaderReader) -> bool:
        """Whether the PROXY header is there; where not, the connection is parked or closed."""
        try:
            header = owed.read(exchange.sock)
        except ProxyError as problem:
            self._refuse(exchange, str(problem))
            return False
        except OSError:
            self._close(exchange)
            return False
        if header is None:
            self.poller.park(exchange, EPOLLIN)
            return False
        self.poller.unregister(exchange)  # its events are the handler's
        exchange.header = None
        if header.source is not None:
            exchange.introduce(_as_accepted(*header.source))
        return True

    def _refuse(self, exchange: TcpConnection, why: str) -> None:
        logs.event("warning", "connection refused", peer=exchange.peer, reason=why)
        self._close(exchange)

    def _call(self, exchange: TcpConnection, record: ThreadRecord) -> None:
        threads = self._threads
        now = monotonic()
        record.start(now, exchange.peer.encode(), exchange.peer)
        if threads is not None:
            threads.before_call(record)
        self._running[exchange] = now
        exchange.thread = threading.get_ident()
        if self._last:
            exchange.shut_for_reading()
        failure: BaseException | None = None
        try:
            self._handler(exchange.sock, exchange.address)
        except BaseException as problem:  # SystemExit too: it ends this connection only
            failure = problem
        if failure is not None and not (self._forked and isinstance(failure, SystemExit)):
            self._stats.set_error(f"{exchange.peer}: {logs.summary_of(failure)}")
            logs.event(
                "error",
                "handler failed",
                peer=exchange.peer,
                traceback=logs.traceback_of(failure),
            )
        if self._forked:
            forked_child.leave(failure)
        failure = None  # its traceback holds this frame
        exchange.thread = 0
        del self._running[exchange]
        ended = monotonic()
        record.end(ended)
        if threads is not None:
            threads.after_call(ended - now)

    def _finish(self, exchange: TcpConnection) -> None:
        if exchange.finish():
            exchange.deadline = monotonic() + _LINGER
            self.poller.park(exchange, EPOLLIN)
        else:
            self._close(exchange)

    def _close(self, exchange: TcpConnection) -> None:
        self.poller.remove(exchange)
        exchange.sock.close()
        self._open.discard(exchange)


def _as_accepted(host: str, port: str) -> Any:
    """The address of a PROXY header in the form that accept(2) gives it to Python."""
    if not host:
        return ""  # a Unix socket
    return (host, int(port), 0, 0) if ":" in host else (host, int(port))
