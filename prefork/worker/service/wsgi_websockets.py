"""WebSockets under WSGI: which requests get a socket to speak on, and the end of these at a stop.

A request that is a valid opening handshake gets `environ["werkzeug.socket"]`, at a listener without
TLS and in a worker of several threads, since it keeps its thread for as long as it lasts.  Once the
application has used it, the request has no time limit, and what the application returns is not
sent.  The application speaks the protocol itself.
"""

import signal
from random import shuffle
from time import monotonic

from prefork import logs
from prefork.http.head_rules import Reject
from prefork.http.request import Request
from prefork.scoreboard import ThreadRecord
from prefork.unpatched import Lock, sleep, start_new_thread
from prefork.websocket.close_codes import GOING_AWAY, SERVICE_RESTART
from prefork.websocket.opening_handshake import asks_for_websocket, read_handshake
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.service.closing_times import closing_times, time_to_tell
from prefork.worker.transport.upgraded_socket import UpgradedSocket

KEY = "werkzeug.socket"


class WsgiWebsockets:
    """Those of one worker."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: graceful_timeout, 0 for no limit."""
        self._seconds = seconds
        self._open: set[UpgradedSocket] = set()
        self._lock = Lock()
        self._code = 0
        """With which they are closed, once the worker is on its way out."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)

    def offer(self, connection: HttpConnection, request: Request, record: ThreadRecord) -> None:
        """Gives a request its socket if it is a valid opening handshake.

        Of any other, the upgrade is ignored (RFC 9110 section 7.8), as it is with one thread.
        """
        environ = request.environ
        if not asks_for_websocket(environ, http11=request.http11) or connection.encrypted:
            return
        try:
            read_handshake(environ)
        except Reject:
            return

        def taken() -> None:
            record.wait(monotonic())  # for its client: without a time limit
            connection.broken = True  # nothing of ours is sent from now on
            with self._lock:
                self._open.add(sock)
                late = self._code
            if late:  # the worker closes the others already
                start_new_thread(self._close, ([sock],))

        try:
            sock = UpgradedSocket(connection.fd, connection.reader.rest, taken)
        except OSError:  # no descriptor is left: the application answers as if it were TLS
            return
        connection.upgraded = sock
        environ[KEY] = sock

    def release(self, sock: UpgradedSocket) -> None:
        """The call of the application that had it is over."""
        with self._lock:
            self._open.discard(sock)

    def close_all(self, seconds: float | None, *, restarts: bool) -> None:
        """The worker is on its way out: closes all, one after the other, within the
        spread of the time that it has.

        `seconds`: that time, 0 for no limit, None for graceful_timeout.  `restarts`: a sibling goes
        on, so that a client may connect again at once.  May be called by a signal handler (main
        thread), so it takes no lock, which the interrupted code may hold.
        """
        if seconds is not None:
            self._seconds = seconds
        self._code = SERVICE_RESTART if restarts else GOING_AWAY
        # As in TcpService.begin_shutdown.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            start_new_thread(self._close, (None,))
        except RuntimeError:  # the kernel has no room for a thread
            for sock in list(self._open):
                sock.say_goodbye(self._code)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _close(self, sockets: list[UpgradedSocket] | None) -> None:
        """Closes these, or all, each at its time."""
        if sockets is None:
            with self._lock:
                sockets = list(self._open)
            if not sockets:
                return
            logs.event("info", "closing websockets", count=len(sockets), code=self._code)
        shuffle(sockets)
        began = monotonic()
        times = closing_times(len(sockets), time_to_tell(self._seconds))
        for at, sock in zip(times, sockets, strict=True):
            sleep(max(began + at - monotonic(), 0.0))
            with self._lock:
                there = sock in self._open
            if there:
                sock.say_goodbye(self._code)
