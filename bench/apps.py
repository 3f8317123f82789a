"""Applications of the memory and respawn benches.

All answer `PROBE` with the constant that tells that a server is up; what else they answer is
`objects`: the same; `lone` and `django`: a text that names the worker.
"""

import os
import random
import sys
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from bench.hello import app as hello

PROBE = "/hello"

MEGABYTES = 100
"""What the records of `objects` take, by sys.getsizeof."""

TOUCHED = 20
"""Records that a request looks at."""

Application = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]


def _records() -> list[dict[str, Any]]:
    """As a cache of rows has them: no two the same, five small objects each."""
    records: list[dict[str, Any]] = []
    size = 0
    while size < MEGABYTES * 1_000_000:
        number = len(records)
        tags = [f"tag {number % 89}", f"tag {number % 97}"]
        record = {"id": number, "name": f"name {number}", "price": number / 7, "tags": tags}
        size += sys.getsizeof(record) + sum(map(sys.getsizeof, (*record.values(), *tags)))
        records.append(record)
    return records


def objects() -> Application:
    """A factory, so that nothing is held by who only imports this module."""
    records = _records()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        for record in random.choices(records, k=TOUCHED):
            sum(map(len, record["tags"]), len(record["name"]))
        return hello(environ, start_response)

    return app


def _worker(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = b"Worker %d answers\n" % os.getpid()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def _probed(application: Application) -> Application:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        chosen = hello if environ["PATH_INFO"] == PROBE else application
        return chosen(environ, start_response)

    return app


def lone() -> Application:
    """The least there is."""
    return _probed(_worker)


def django() -> Application:
    """A project with the admin."""
    from bench.django_app import application

    return _probed(application)
