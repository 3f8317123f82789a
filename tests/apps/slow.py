"""Requests that are slow, each in a way of its own: in C code, asleep, behind a lock, at work."""

import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.basic import missing, pid, query


def backtrack(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """In C code, with the GIL: each letter of ?n= takes twice as long."""
    re.match(r"(a+)+$", "a" * int(query(environ, "n", "26")) + "b")
    return pid(environ, start_response)


def asleep(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """In a system call that the kernel does not resume by itself."""
    time.sleep(float(query(environ, "s", "1")))
    return pid(environ, start_response)


def locked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Behind a lock that another thread holds until the FIFO ?fifo= is at its end."""
    fifo = Path(query(environ, "fifo", ""))
    lock = threading.Lock()
    lock.acquire()

    def holder() -> None:
        fifo.read_bytes()
        lock.release()

    threading.Thread(target=holder).start()
    lock.acquire()
    return pid(environ, start_response)


def calling(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """In Python code that makes and leaves frames, until the FIFO ?fifo= is at its end."""
    waiting = threading.Thread(target=Path(query(environ, "fifo", "")).read_bytes)
    waiting.start()
    while waiting.is_alive():
        pass
    return pid(environ, start_response)


ROUTES: dict[str, Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]] = {
    "/pid": pid,
    "/backtrack": backtrack,
    "/asleep": asleep,
    "/locked": locked,
    "/calling": calling,
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application."""
    return ROUTES.get(environ["PATH_INFO"], missing)(environ, start_response)
