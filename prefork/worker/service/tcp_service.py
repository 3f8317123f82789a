"""The TCP connections of one worker: one call of the handler for each, `handler(sock, address)`.

A handler has its connection to itself for as long as it likes, in the thread that called it.  Only
connections that need no handler are parked: those that have to begin with a header of the PROXY
protocol, and those whose handler has returned while the client still sends.

A worker that was ordered to leave lets its handlers go on.  They learn of it from
`prefork.stopping`.  Shortly before the worker is killed, those that are left find the end of their
input, so that a handler that waits for its client ends in order.
"""

import errno
import inspect
import signal
import socket
from collections.abc import Callable
from time import monotonic

from prefork import logs
from prefork.http.forwarded import Trusts
from prefork.http.proxy_protocol import ProxyError
from prefork.scoreboard import ThreadRecord, WorkerStatsWriter
from prefork.unpatched import get_ident, sleep, start_new_thread
from prefork.worker.protocol.connection_state import (
    TABLE,
    ConnectionState,
    Movable,
    OnStop,
)
from prefork.worker.protocol.tcp_connection import TcpConnection
from prefork.worker.schedule.handover import Handover, HandoverMessage
from prefork.worker.schedule.poller import EPOLLIN, ConnectionPoller, SharedConnectionPoller
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener
from prefork.worker.service.forked_child import exit_child
from prefork.worker.transport.accepted_socket import PeerAddress, peer_name
from prefork.worker.transport.proxy_header import report_refused

_CLOSED = (
    "the handler has closed the descriptor of its connection by its number; let it close the"
    " socket, or use the number of a duplicate (os.dup)"
)

_LAST_CHANCE = 2.0
"""Seconds that a connection gets for its PROXY header when its worker is on its way out."""

_LAST_WORDS = 2.0
"""Seconds between the end of a handler's input and the death of its worker; a fifth of the time
that the worker has, if that is less."""

_CALL, _LINGER = ConnectionState.CALL, ConnectionState.LINGER

Handler = Callable[[socket.socket, PeerAddress], object]


class TcpService:
    """All TCP connections of one worker."""

    def __init__(
        self,
        handler: Handler,
        threads: LeaderFollowers | None,
        handover: Handover,
        stats: WorkerStatsWriter,
        *,
        request_timeout: float,
        graceful_timeout: float,
        header_timeout: float,
        proxies: Trusts | None,
    ) -> None:
        """`threads`: of a worker that has several.  `proxies`: the peers that begin with a header
        of the PROXY protocol, all others are refused; None: nobody does.  `header_timeout`: seconds
        for that header, 0 for no limit."""
        self.poller: ConnectionPoller[TcpConnection] = (
            ConnectionPoller() if threads is None else SharedConnectionPoller()
        )
        self._handler = handler
        self._threads = threads
        self._handover = handover
        self._stats = stats
        self._request_timeout = request_timeout
        self._graceful_timeout = graceful_timeout
        self._header_timeout = header_timeout
        self._proxies = proxies
        self._open: set[TcpConnection] = set()
        self._running: dict[TcpConnection, float] = {}
        self._failed_by_clients = logs.RateLimit(5.0, burst=10)
        self._forked = False
        self._input_ended = False

    # prefork.worker.schedule.service_interface.Service

    def serve_accepted(
        self, accepted: AcceptedSocket, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        fd, address = accepted
        theirs = listener.sock
        sock = socket.socket(theirs.family, theirs.type, theirs.proto, fileno=fd)
        # The handler gets a blocking socket, whatever socket.setdefaulttimeout was given.
        sock.settimeout(None)
        connection = TcpConnection(sock, address, listener)
        self._open.add(connection)
        if self._proxies is None:
            self._call(connection, record)
            return
        if self._header_timeout:
            connection.deadline = monotonic() + self._header_timeout
        if self._proxies(peer_name(address)[0]):
            self._proceed(connection, record)
        else:
            self._refuse(connection, "the peer is not one of http.trusted_proxies")

    def serve_received(
        self, message: HandoverMessage, fd: int, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        self.serve_accepted((fd, message.peer), listener, record)

    def serve_ready(self, fd: int, events: int, record: ThreadRecord, now: float) -> float:
        connection = self.poller.claim(fd)
        if connection is None:
            return now
        if connection.state is _LINGER:
            connection.discard(monotonic())
            self._wait(connection)
        else:
            self._proceed(connection, record)
        return monotonic()

    def close_overdue(self, now: float, record: ThreadRecord) -> None:
        for connection in self.poller.claim_expired(now):
            self._close(connection)

    def hand_over(self, fd: int, slot: int | None = None) -> bool:
        connection = self.poller.parked.get(fd)
        return connection is not None and self._move(connection, only_idle=True, slot=slot)

    def hand_over_all(self) -> bool:
        stays = False
        for connection in list(self.poller.parked.values()):
            if TABLE[connection.state].movable is Movable.EMPTY:
                stays = not self._move(connection, only_idle=False) or stays
        return stays

    def _move(self, connection: TcpConnection, *, only_idle: bool, slot: int | None = None) -> bool:
        """Hands over a connection of which nothing was read; False if it stays, or another thread
        has it."""
        if TABLE[connection.state].movable is not Movable.EMPTY:  # only a look, not ours yet
            return False
        if not self.poller.claim_connection(connection):
            return False
        if TABLE[connection.state].movable is Movable.EMPTY:
            self.poller.unregister(connection)
            message = HandoverMessage(
                *(connection.listener.inode, connection.address, ("", ""), b""),
                *(monotonic(), 0.0, False, False),
            )
            if self._handover.send(message, connection.fd, only_idle=only_idle, slot=slot):
                self._close(connection)
                return True
        self.poller.park(connection, EPOLLIN)
        return False

    def begin_shutdown(self, seconds: float | None = None) -> None:
        limit = self._graceful_timeout if seconds is None else seconds
        if not limit:
            return
        # Not a threading.Thread: its start takes a lock, which the code that a signal handler has
        # interrupted may hold.  Signals are for the main thread, which may wait in the handler.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            start_new_thread(self._end_input, (limit - min(_LAST_WORDS, limit / 5),))
        except RuntimeError:  # no room for a thread
            self._end_input(0.0)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _end_input(self, delay: float) -> None:
        """Shows all handlers the end of their input after `delay` seconds."""
        sleep(delay)
        self._input_ended = True
        for connection in list(self._running):
            connection.shut_for_reading()

    def shut_down_idle(self) -> None:
        if self._handover.has_receiver:
            self.hand_over_all()
        leave_at = monotonic() + _LAST_CHANCE
        for connection in list(self.poller.parked.values()):
            on_stop = TABLE[connection.state].on_stop
            if on_stop is OnStop.LAST_CHANCE and self.poller.claim_connection(connection):
                connection.deadline = min(connection.deadline or leave_at, leave_at)
                self.poller.park(connection, EPOLLIN)

    def expire_requests(self, now: float) -> None:
        for connection, started in list(self._running.items()):
            if now - started >= self._request_timeout:
                connection.give_up()

    def flush(self) -> None:
        # Nothing else is kept back: a handler's connections are in no access log.
        self._stats.set_connections(len(self._open), len(self.poller.parked), 0, 0)

    def after_fork_in_child(self) -> None:
        self._forked = True
        for connection in self._open:
            # The one whose handler has forked may go on in the child.
            if connection.thread != get_ident():
                connection.sock.close()

    # One connection, which this thread has.

    def _proceed(self, connection: TcpConnection, record: ThreadRecord) -> None:
        """Reads the PROXY header, and calls the handler once that is complete."""
        try:
            complete = connection.read_header()
        except ProxyError as problem:
            self._refuse(connection, str(problem))
            return
        except OSError:
            self._close(connection)
            return
        if complete:
            self.poller.unregister(connection)  # its events are the handler's
            self._call(connection, record)
        else:
            self.poller.park(connection, EPOLLIN)

    def _refuse(self, connection: TcpConnection, reason: str) -> None:
        report_refused(connection.peer, reason)
        self._close(connection)

    def _call(self, connection: TcpConnection, record: ThreadRecord) -> None:
        connection.enter(_CALL)
        if connection.state is not _CALL:
            return self._close(connection)
        threads = self._threads
        now = monotonic()
        record.start(now, connection.peer.encode(), connection.peer)
        if threads is not None:
            threads.before_call(record)
        self._running[connection] = now
        connection.thread = get_ident()
        if self._input_ended:
            connection.shut_for_reading()
        failure: BaseException | None = None
        try:
            result = self._handler(connection.sock, connection.address)
            if result is not None and inspect.isawaitable(result):
                raise TypeError("the handler returned a coroutine, which nobody awaits")
        except BaseException as problem:  # SystemExit too: it ends this connection only
            failure = problem
        if failure is not None and not (self._forked and isinstance(failure, SystemExit)):
            self._stats.set_error(f"{connection.peer}: {logs.summary_of(failure)}")
            # A handler that lets errors of its socket through fails whenever a client wants.
            by_client = isinstance(failure, OSError)
            if not by_client or self._failed_by_clients.due():
                logs.event(
                    "error",
                    "handler failed",
                    peer=connection.peer,
                    traceback=logs.application_traceback(failure),
                    skipped=(self._failed_by_clients.skipped or None) if by_client else None,
                )
        if self._forked:
            exit_child(failure)
        failure = None  # its traceback holds this frame
        connection.thread = 0
        del self._running[connection]
        ended = monotonic()
        record.end(ended)
        if threads is not None:
            threads.after_call(ended - now)
        connection.finish(ended)
        self._wait(connection)

    def _wait(self, connection: TcpConnection) -> None:
        """Parks a connection whose client still sends, and closes all others."""
        if connection.state is _LINGER:
            self.poller.park(connection, EPOLLIN)
        else:
            self._close(connection)

    def _close(self, connection: TcpConnection) -> None:
        self.poller.remove(connection)
        self._open.discard(connection)
        try:
            connection.sock.close()
        except OSError as problem:
            if problem.errno == errno.EBADF:  # others of this worker are not to suffer from it
                logs.event("error", "handler failed", peer=connection.peer, reason=_CLOSED)
