"""Applications that the parts of the bench serve.

All answer `PROBE` with the constant that tells that a server is up; what else they answer is
`objects`, `sleep`, `reader`, `neighbour`: the same; `worker`, `lone` and `django`: a text that
names the worker.
"""

import os
import random
import re
import sys
import time
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


worker = _probed(_worker)


def lone() -> Application:
    """The least there is."""
    return worker


def django() -> Application:
    """A project with the admin."""
    from bench.django_app import application

    return _probed(application)


def sleep(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """As for a database: 20 ms, with the interpreter free for others."""
    time.sleep(0.020)
    return hello(environ, start_response)


def reader(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Reads the whole body."""
    size = 0
    while data := environ["wsgi.input"].read(65536):
        size += len(data)
    assert size == int(environ.get("CONTENT_LENGTH") or 0)
    return hello(environ, start_response)


SLOW = 0.5
"""Seconds that a slow request of `neighbour` takes."""

_SLOW_PATTERN = re.compile(r"(a+)+$")  # takes twice as long for each letter more


def _compute() -> None:
    until = time.monotonic() + SLOW
    while time.monotonic() < until:
        sum(number * number for number in range(1000))


def _search() -> None:
    """`re` keeps the interpreter's lock to the end of a search; the last takes half of the time."""
    letters = 16
    until = time.monotonic() + SLOW
    while time.monotonic() < until:
        _SLOW_PATTERN.match("a" * letters + "b")
        letters += 1


def neighbour(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Fast, but for the paths of the slow."""
    path = environ["PATH_INFO"]
    if path == "/sleep":
        time.sleep(SLOW)
    elif path == "/python":
        _compute()
    elif path == "/regex":
        _search()
    return hello(environ, start_response)
