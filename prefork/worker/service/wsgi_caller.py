"""One call of a WSGI application, with the work before it, after it, and after a failure."""

from collections.abc import Callable
from time import monotonic, time
from typing import TYPE_CHECKING, Protocol

from prefork import logs
from prefork.apps.wsgi import Application, MisbehavedApplication, WsgiResponse
from prefork.http.queue_time import waited
from prefork.http.request import Environ, Request
from prefork.http.request_id import RequestIds
from prefork.scoreboard import ThreadRecord, WorkerStatsWriter
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.service.call_failure import report_failure
from prefork.worker.service.forked_child import exit_child

if TYPE_CHECKING:
    from prefork.worker.service.wsgi_websockets import WsgiWebsockets

_unreadable = logs.RateLimit(5.0)


def report_unreadable(key: str, problem: BaseException) -> None:
    """Logs that the application has left an object in its environ that cannot be read."""
    if _unreadable.due():
        logs.event(
            "warning", "access log value unreadable", key=key, reason=logs.summary_of(problem)
        )


class AccessLogWriter(Protocol):
    def add(
        self, environ: Environ, status: int, size: int, started: float, elapsed: float
    ) -> None: ...

    def flush(self) -> None: ...


class WsgiCaller:
    """Answers the requests of one worker, whichever thread has them."""

    def __init__(
        self,
        application: Application,
        threads: LeaderFollowers | None,
        stats: WorkerStatsWriter,
        *,
        access: AccessLogWriter | None,
        ids: RequestIds | None,
        proxies: bool,
        draining: Callable[[], bool] | None,
        websockets: "WsgiWebsockets | None" = None,
    ) -> None:
        """`threads`: of a worker that has several; `websockets` as well.  `proxies`: some are
        trusted.  `draining`: whether the server is about to stop, though it serves on; None if it
        never does both."""
        self._application = application
        self._threads = threads
        self._stats = stats
        self._access = access
        self._ids = ids
        self._draining = draining
        self._websockets = websockets
        # If nothing of this is configured, a call is the application's alone.
        self._attended = proxies or any(
            each is not None for each in (threads, ids, draining, access)
        )
        self.forked = False
        """This is a child that the application has forked."""

    def call(
        self, connection: HttpConnection, request: Request, record: ThreadRecord, now: float
    ) -> WsgiResponse:
        """Has the application answer a request.

        `now`: monotonic seconds, as of a moment ago, when its last bytes were read.
        """
        attended = self._attended
        environ = request.environ
        if attended:
            self._before(connection, request, record)
        record.start(now, request.line, environ["REMOTE_ADDR"], request.id)
        response = WsgiResponse(request, connection)
        environ["wsgi.early_hints"] = response.early_hints
        try:
            response.take(self._application(environ, response.start))
        except BaseException as raised:  # SystemExit too: it ends the request, not the worker
            upgraded = connection.upgraded
            # flask-sock returns a response that nobody gets, and others none at all.
            if not (upgraded and upgraded.taken and isinstance(raised, MisbehavedApplication)):
                response.fail(raised, self.failed)
        if self.forked:
            exit_child(None)
        del response.request
        response.ended = ended = monotonic()
        head, sent = response.head, response.sent
        status = head.code if head is not None else response.failure
        if connection.expired:
            status = 504
        if attended and connection.upgraded is not None and self._upgraded(connection):
            status, sent, response.last = 101, 0, True
            record.end_upgraded(ended)
        else:
            record.end(ended, status, sent)
        if attended:
            self._after(request, status, sent, ended - now)
        return response

    def flush(self) -> None:
        """Writes the lines that were kept for a batch."""
        if self._access is not None:
            self._access.flush()

    def _before(self, connection: HttpConnection, request: Request, record: ThreadRecord) -> None:
        """The work before a call that not every configuration needs."""
        environ = request.environ
        if self._ids is not None:
            self._ids.give(request)
        if "HTTP_X_REQUEST_START" in environ and connection.reader.proxied:
            seconds = waited(environ["HTTP_X_REQUEST_START"], time())
            if seconds is not None:
                record.add_queue_time(seconds)
        if self._draining is not None and self._draining():
            connection.closing = True
        if self._websockets is not None and "HTTP_UPGRADE" in environ:
            self._websockets.offer(connection, request, record)
        if self._threads is not None:
            self._threads.before_call(record)

    def _upgraded(self, connection: HttpConnection) -> bool:
        """Whether the application has taken the connection over; the call is over."""
        sock = connection.upgraded
        assert sock is not None
        assert self._websockets is not None
        if not sock.taken:
            sock.close()
            connection.upgraded = None
            return False
        self._websockets.release(sock)
        # What the client still sends is thrown away, so that no reset destroys a close frame; then
        # the connection ends, also for a thread of the application that still reads from it.
        connection.broken = False
        connection.reader.surplus = True
        return True

    def _after(self, request: Request, status: int, sent: int, elapsed: float) -> None:
        """The same after a call, which took `elapsed` seconds."""
        if self._threads is not None:
            self._threads.after_call(elapsed)
        if self._access is not None:
            self._access.add(request.environ, status, sent, time() - elapsed, elapsed)

    def failed(self, request: Request, problem: BaseException) -> None:
        """The application has raised an exception, or its iterable has."""
        if self.forked and isinstance(problem, SystemExit):
            exit_child(problem)
        report_failure(request, problem, self._stats)
        if self.forked:
            exit_child(problem)
