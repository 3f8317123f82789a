"""Writes down each request that it gets, in the file $WITNESS, and tells it in a header."""

import json
import os
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    seen = [environ["REQUEST_METHOD"], environ["RAW_URI"], body.decode("latin-1")]
    line = json.dumps([environ.get("HTTP_X_ORIGIN"), *seen]).encode() + b"\n"
    log = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(log, line)
    finally:
        os.close(log)
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Seen", json.dumps(seen[:2]))])
    return [b"seen\n"]
