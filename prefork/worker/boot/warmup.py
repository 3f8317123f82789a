"""Requests inside a new worker before it is ready.

An application may load much at its first request (templates, connections, caches): so no client
has to wait for that.  An application that can be imported but cannot answer fails its boot.
"""

from collections.abc import Iterable

from prefork.apps.wsgi import Application, WsgiResponse
from prefork.http.request import Environ
from prefork.http.request_parser import RequestLimits, RequestParser

_NO_LIMITS = RequestLimits(0, 0, 0, 0, 0)


class WarmupError(Exception):
    """The answer for a path was not 2xx or 3xx; one line."""


class _Discard:
    """Takes the answers, and drops them."""

    broken = False
    closing = True

    def send(self, data: bytes) -> None:
        pass

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        pass

    def send_interim(self, data: bytes) -> None:
        pass

    def ends_with_close(self) -> None:
        pass

    def break_off(self) -> None:
        pass


def warm_up(application: Application, paths: Iterable[str], base: Environ) -> None:
    """Requests each path once, as a client at the first listener would.

    Raises WarmupError for an answer of 4xx or 5xx, and what the application raises.
    """
    for path in paths:
        connection = RequestParser(base, _NO_LIMITS)
        connection.feed(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode("ascii"))
        if not connection.requests:
            raise WarmupError(f"warmup: {path} is no request target: {connection.error}")
        request = connection.requests.pop(0)
        response = WsgiResponse(request, _Discard())
        response.take(application(request.environ, response.start))
        assert response.head is not None
        status = response.head.code
        if status >= 400:
            raise WarmupError(f"warmup: {path} answered {status}; expected 2xx or 3xx")
