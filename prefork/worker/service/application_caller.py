"""What the callers of WSGI and of ASGI applications have in common: the work around each call."""

from collections.abc import Callable
from time import time
from typing import Protocol

from prefork.compiled import native
from prefork.http.queue_time import waited
from prefork.http.request import Environ, Request
from prefork.http.request_id import RequestIds
from prefork.scoreboard import ThreadRecord, WorkerStatsWriter
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.service.call_failure import report_failure
from prefork.worker.service.forked_child import exit_child


class AccessLogWriter(Protocol):
    def add(
        self, environ: Environ, status: int, size: int, started: float, elapsed: float
    ) -> None: ...

    def flush(self) -> None: ...


@native(allow_interpreted_subclasses=True)
class ApplicationCaller:
    """Prepares requests for the application, and reports its exceptions."""

    def __init__(
        self,
        stats: WorkerStatsWriter,
        *,
        access: AccessLogWriter | None,
        ids: RequestIds | None,
        draining: Callable[[], bool] | None,
    ) -> None:
        """`draining`: whether the server is about to stop, though it serves on; None if it never
        does both."""
        self.forked = False
        """This is a child that the application has forked."""
        self._stats = stats
        self._access = access
        self._ids = ids
        self._draining = draining

    def flush(self) -> None:
        """Writes the lines that were kept for a batch."""
        if self._access is not None:
            self._access.flush()

    def failed(self, request: Request, problem: BaseException) -> None:
        """The application has raised an exception, or its iterable has."""
        if self.forked and isinstance(problem, SystemExit):
            exit_child(problem)
        report_failure(request, problem, self._stats)
        if self.forked:
            exit_child(problem)

    def _prepare(self, connection: HttpConnection, request: Request, record: ThreadRecord) -> None:
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
