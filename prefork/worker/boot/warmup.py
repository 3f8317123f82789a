"""Requests inside a new worker before it is ready.

An application may load much at its first request (templates, connections, caches): so no client
has to wait for that.  An application that can be imported but cannot answer fails its boot.
"""

import contextlib
from collections.abc import Iterable, Iterator

from prefork import logs
from prefork.apps.wsgi import Application, WsgiResponse
from prefork.http.limits import RequestLimits
from prefork.http.reader import RequestReader
from prefork.http.request import Environ, Request
from prefork.http.response_sink import ResponseSink

_NO_LIMITS = RequestLimits(0, 0, 0, 0, 0)


class WarmupError(Exception):
    """The answer for a path was not 2xx or 3xx; one line."""


class _Discard(ResponseSink):
    """Takes the answers, and drops them."""

    __slots__ = ()

    def __init__(self) -> None:
        self.broken = False
        self.closing = True

    def send(self, data: bytes) -> None:
        pass

    def send_piece(self, data: bytes) -> None:
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
    """Requests each path or URL once, as a client at the first listener would.

    The host of a URL is that of the request, `localhost` for a path, and its scheme is the one that
    the application sees.

    Raises WarmupError for an answer of 4xx or 5xx, and what the application raises.
    """
    for path in paths:
        request, host = warmup_request(path, base)
        response = WsgiResponse(request, _Discard())
        with naming(path):
            response.take(application(request.environ, response.start))
        assert response.head is not None
        check_answer(path, host, response.head.code)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Raises a WarmupError that names the request in place of the application's exception."""
    try:
        yield
    except Exception as problem:
        traceback = logs.application_traceback(problem)
        raise WarmupError(f"warmup: GET {path} failed:\n{traceback}") from None


def warmup_request(path: str, base: Environ) -> tuple[Request, str]:
    """The request for a path or URL, and its host.  Raises WarmupError.

    It comes from this machine: applications take it for granted that a client has an address.
    """
    scheme, separator, rest = path.partition("://")
    host, target, environ = "localhost", path, base
    if separator and not path.startswith("/"):
        host, _, target = rest.partition("/")
        target = f"/{target}"
        environ = {**base, "wsgi.url_scheme": scheme}
    reader = RequestReader(environ, _NO_LIMITS, ("127.0.0.1", "0"))
    request = reader.feed(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii"))
    if request is None:
        raise WarmupError(f"warmup: {path} is no request target: {reader.error}")
    return request, host


def check_answer(path: str, host: str, status: int) -> None:
    """Raises WarmupError for an answer of 4xx or 5xx."""
    if status < 400:
        return
    hint = ""
    if status == 400 and host == "localhost":
        hint = (
            "; if the application serves certain hosts only (ALLOWED_HOSTS), give a URL "
            f'with one: workers.warmup = ["http://HOST{path}"]'
        )
    raise WarmupError(f"warmup: {path} answered {status}; expected 2xx or 3xx{hint}")
