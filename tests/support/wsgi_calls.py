"""Calls of an application on an HTTP connection, as a worker's service has them."""

from collections.abc import Callable

from prefork.apps.wsgi import Application
from prefork.http.request import Request
from prefork.scoreboard import Scoreboard
from prefork.worker.service.wsgi_caller import WsgiCaller

_BOARD = Scoreboard()
RECORD = _BOARD.record(0, 0)
"""Of the thread that calls."""

Failed = Callable[[Request, BaseException], None]


class PlainCaller(WsgiCaller):
    """Hands the application's exceptions to a function."""

    def __init__(self, application: Application, failed: Failed) -> None:
        super().__init__(
            *(application, None, _BOARD.stats_writer(0)),
            access=None,
            ids=None,
            proxies=False,
            draining=None,
        )
        self._test_failed = failed

    def failed(self, request: Request, problem: BaseException) -> None:
        self._test_failed(request, problem)
