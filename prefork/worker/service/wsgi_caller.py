"""One call of a WSGI application, with the work before it, after it, and after a failure."""

from collections.abc import Callable
from time import monotonic, time
from typing import TYPE_CHECKING

from prefork import logs
from prefork.apps.wsgi import Application, MisbehavedApplication, WsgiResponse
from prefork.compiled import native
from prefork.http.request import Request
from prefork.http.request_id import RequestIds
from prefork.scoreboard import ThreadRecord, WorkerStatsWriter
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.service.application_caller import AccessLogWriter, ApplicationCaller
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


@native(allow_interpreted_subclasses=True)
class WsgiCaller(ApplicationCaller):
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
        trusted.  `draining`: see `ApplicationCaller`."""
        super().__init__(stats, access=access, ids=ids, draining=draining)
        self._application = application
        self._threads = threads
        self._websockets = websockets
        # If nothing of this is configured, a call is the application's alone.
        self._attended = proxies or any(
            each is not None for each in (threads, ids, draining, access)
        )

    def call(
        self, connection: HttpConnection, request: Request, record: ThreadRecord, now: float
    ) -> WsgiResponse:
        """Has the application answer a request.

        `now`: monotonic seconds, as of a moment ago, when its last bytes were read.
        """
        attended = self._attended
        environ = request.environ
        if attended:
            self._prepare(connection, request, record)
            if self._websockets is not None and "HTTP_UPGRADE" in environ:
                self._websockets.offer(connection, request, record)
            if self._threads is not None:
                self._threads.before_call(record)
        record.start(now, request.line, environ["REMOTE_ADDR"], request.id)
        response = WsgiResponse(request, connection)
        environ["wsgi.early_hints"] = response.early_hints
        try:
            response.take(self._application(environ, response.start))
        except BaseException as raised:  # SystemExit too: it ends the request, not the worker
            upgraded = connection.upgraded
            # flask-sock returns a response that nobody gets, and others none at all.
            if upgraded and upgraded.taken and isinstance(raised, MisbehavedApplication):
                response.failure = 101
            else:
                response.fail(raised, self.failed)
        if self.forked:
            exit_child(None)
        del response.request
        response.ended = ended = monotonic()
        head, sent = response.head, response.sent
        status = head.code if head is not None else response.failure
        if connection.expired is not None:
            status, sent = 504, connection.expired or sent
        if attended and connection.upgraded is not None and self._upgraded(connection):
            status, sent, response.last = 101, 0, True
            record.end_upgraded(ended)
        else:
            record.end(ended, status, sent)
        if attended:
            self._after(request, status, sent, ended - now)
        return response

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
        """The work after a call of `elapsed` seconds that not every configuration needs."""
        if self._threads is not None:
            self._threads.after_call(elapsed)
        if self._access is not None:
            self._access.add(request.environ, status, sent, time() - elapsed, elapsed)
