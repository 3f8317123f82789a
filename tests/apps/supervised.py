"""What the tests of the supervisor ask of an application: to be held, stuck, and to have children.

`/hold?fifo=PATH` stays in the application for exactly as long as the test wants: it reads a FIFO
to its end, and the test has the other end.
"""

import itertools
import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.basic import as_json, missing, pid, query


def hold(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Reads the FIFO ?fifo= to its end; then the pid."""
    Path(query(environ, "fifo", "")).read_bytes()
    return pid(environ, start_response)


def stuck(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Never leaves a loop in C that looks at no signal and keeps the GIL."""
    deque(itertools.repeat(None), maxlen=0)
    return pid(environ, start_response)


def backtrack(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A regular expression that needs longer than anybody lives."""
    re.match(r"(a+)+$", "a" * 64 + "b")
    return pid(environ, start_response)


def fork(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Leaves a child by os.fork() that lives until a signal ends it; its pid."""
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    return as_json(start_response, {"pid": os.getpid(), "child": child})


def popen(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Leaves a child by subprocess that lives until a signal ends it; its pid."""
    child = subprocess.Popen(["sleep", "infinity"])
    return as_json(start_response, {"pid": os.getpid(), "child": child.pid})


ROUTES: dict[str, Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]] = {
    "/pid": pid,
    "/hold": hold,
    "/stuck": stuck,
    "/backtrack": backtrack,
    "/fork": fork,
    "/popen": popen,
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application."""
    return ROUTES.get(environ["PATH_INFO"], missing)(environ, start_response)
