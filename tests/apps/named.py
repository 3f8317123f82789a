"""What a request's name is, for the application."""

import time
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.basic import answer


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application."""
    if environ["PATH_INFO"] == "/fail":
        raise RuntimeError("not today")
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.4)
    return answer(start_response, str(environ.get("prefork.request_id")).encode())
