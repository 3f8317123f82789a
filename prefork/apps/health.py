"""The health path: answered without the application, for balancers and container platforms."""

from collections.abc import Callable, Iterable

from prefork.apps.wsgi import Application, StartResponse
from prefork.http.request import Environ


class Health:
    """A WSGI application in front of another: 200 while the server serves, 503 once it drains."""

    def __init__(self, application: Application, path: str, draining: Callable[[], bool]) -> None:
        self._application = application
        self._path = path
        self._draining = draining

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != self._path:
            return self._application(environ, start_response)
        draining = self._draining()
        status, text = (
            ("503 Service Unavailable", b"draining\n") if draining else ("200 OK", b"ok\n")
        )
        start_response(
            status,
            [
                ("Content-Type", "text/plain"),
                ("Content-Length", str(len(text))),
                ("Cache-Control", "no-store"),
            ],
        )
        return [text]
