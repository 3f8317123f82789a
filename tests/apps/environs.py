"""An application that does to its environ what PEP 3333 allows it: changes it, and empties it."""

import threading
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

BODY = b"hello\n"
METHODS = {"/as-get": "GET", "/as-head": "HEAD"}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    environ.clear()
    if path in METHODS:
        environ["REQUEST_METHOD"] = METHODS[path]
    if path == "/raises":
        raise RuntimeError("with an empty environ")
    if path == "/stuck":
        threading.Event().wait()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([BODY[:2], BODY[2:]]) if path == "/pieces" else [BODY]
