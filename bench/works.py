"""Three applications that spend their time in different ways; each answers the same bytes."""

import time
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from bench.hello import BODY, app

nothing = app
"""Almost only the server's own work."""

STEPS = 30_000
WAIT = 0.010


def compute(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Python code, of about a millisecond: the interpreter runs one thread of it at a time."""
    total = 0
    for number in range(STEPS):
        total += number
    assert total == STEPS * (STEPS - 1) // 2
    return app(environ, start_response)


def wait(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """As for a database: the thread sleeps for 10 ms, and the interpreter is free for others."""
    time.sleep(WAIT)
    return app(environ, start_response)


__all__ = ["BODY", "compute", "nothing", "wait"]
