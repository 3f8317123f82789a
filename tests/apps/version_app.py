"""Answers a constant.  Tests copy this file, rewrite the constant in the copy, and reload."""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

VERSION = "one"


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = VERSION.encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
