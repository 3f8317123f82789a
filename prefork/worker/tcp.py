"""TCP handlers in a worker: one call for each connection, `handler(sock, address)`.

A handler has its connection to itself for as long as it likes, in the thread that called it.
Only what is left over when it returns, bytes of the client's that nobody read, is parked for a
moment: a close with unread data is a reset (RFC 2525 section 2.17), which could take the last
answer with it.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from prefork import logs
from prefork.scoreboard import Record, Teller
from prefork.worker import forked
from prefork.worker.accept import Arrival, Door
from prefork.worker.handover import Parcel
from prefork.worker.parking import EPOLLIN, Parking, SharedParking
from prefork.worker.sockets import peer_name
from prefork.worker.threads import Crew

Handler = Callable[[socket.socket, Any], object]

_LINGER = 2.0  # seconds
_LINGER_BYTES = 1024 * 1024
_PIECE = 64 * 1024


class Exchange:
    """One accepted connection and its handler."""

    def __init__(self, sock: socket.socket, address: Any, peer: str) -> None:
        self.sock = sock
        self.address = address
        self.peer = peer
        self.thread = 0
        self._discarded = 0
        self.fd = sock.fileno()
        self.events = 0
        self.deadline = 0.0
        self.tick = 0

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
        crew: Crew | None,
        teller: Teller,
        *,
        request_timeout: float,
    ) -> None:
        self.parking: Parking[Exchange] = Parking() if crew is None else SharedParking()
        self._handler = handler
        self._crew = crew
        self._teller = teller
        self._request_timeout = request_timeout
        self._open: set[Exchange] = set()
        self._running: dict[Exchange, float] = {}
        self._forked = False
        self._last = False

    # prefork.worker.loop.Service

    def welcome(self, arrival: Arrival, door: Door, record: Record) -> None:
        fd, address = arrival
        listener = door.sock
        sock = socket.socket(listener.family, listener.type, listener.proto, fileno=fd)
        host, port = peer_name(address)
        exchange = Exchange(sock, address, f"{host}:{port}" if host else "unix")
        self._open.add(exchange)
        self._call(exchange, record)
        self._finish(exchange)

    def adopt(self, parcel: Parcel, fd: int, door: Door, record: Record) -> None:
        self.welcome((fd, parcel.peer), door, record)

    def ready(self, fd: int, events: int, record: Record) -> None:
        exchange = self.parking.claim(fd)
        if exchange is not None:
            if exchange.discard():
                self.parking.park(exchange, EPOLLIN)
            else:
                self._close(exchange)

    def overdue(self, now: float, record: Record) -> None:
        for exchange in self.parking.expired(now):
            self._close(exchange)

    def offer(self, fd: int, slot: int | None = None) -> bool:
        """Only fresh connections move: what is parked here is at its end."""
        return False

    def hand_over_all(self) -> None:
        """The same."""

    def last(self) -> None:
        self._last = True
        for exchange in list(self._running):
            exchange.shut_for_reading()

    def leave(self) -> None:
        """What is parked here ends by itself within two seconds."""

    def expire(self, now: float) -> None:
        for exchange, started in list(self._running.items()):
            if now - started >= self._request_timeout:
                exchange.give_up()

    def flush(self) -> None:
        # Nothing else is kept back: a handler's connections are in no access log.
        self._teller.holds(len(self._open), len(self.parking.parked), 0, 0)

    def in_child(self) -> None:
        self._forked = True
        for exchange in self._open:
            # The one whose handler has forked may go on in the child.
            if exchange.thread != threading.get_ident():
                exchange.sock.close()

    # One exchange.

    def _call(self, exchange: Exchange, record: Record) -> None:
        crew = self._crew
        now = monotonic()
        record.start(now, exchange.peer.encode(), exchange.peer)
        if crew is not None:
            crew.enter(record)
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
            self._teller.failed(f"{exchange.peer}: {logs.summary_of(failure)}")
            logs.event(
                "error",
                "handler failed",
                peer=exchange.peer,
                traceback=logs.traceback_of(failure),
            )
        if self._forked:
            forked.leave(failure)
        failure = None  # its traceback holds this frame
        exchange.thread = 0
        del self._running[exchange]
        ended = monotonic()
        record.end(ended)
        if crew is not None:
            crew.leave(ended - now)

    def _finish(self, exchange: Exchange) -> None:
        if exchange.finish():
            exchange.deadline = monotonic() + _LINGER
            self.parking.park(exchange, EPOLLIN)
        else:
            self._close(exchange)

    def _close(self, exchange: Exchange) -> None:
        self.parking.forget(exchange)
        exchange.sock.close()
        self._open.discard(exchange)
