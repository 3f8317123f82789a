"""An application that leaves things behind: objects in its environ, threads that outlive a call."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.basic import answer, query


class AwayUser:
    """As a lazy user object of a framework's session."""

    def __str__(self) -> str:
        raise LookupError("the database is away")

    __repr__ = __str__


class Stubborn(Exception):
    """Its class lets nobody change it, or ask it for anything."""

    def __setattr__(self, name: str, value: object) -> None:
        raise LookupError(name)

    def __str__(self) -> str:
        raise LookupError("the text")


kept: list[tuple[Any, Any, Any]] = []
"""Of earlier calls: write, early_hints, wsgi.input."""


def leave(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """?key= of the environ gets an object that cannot be read; ?fail=1 raises afterwards."""
    for key in query(environ, "key", "").split(","):
        environ[key] = AwayUser()
    if query(environ, "fail", ""):
        raise Stubborn
    return answer(start_response, b"left")


def keep(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers by ?by=, and keeps what it was given."""
    by = query(environ, "by", "list")
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    kept.append((write, environ["wsgi.early_hints"], environ["wsgi.input"]))
    if by == "iterator":
        return iter([b"ke", b"pt"])
    if by == "write":
        write(b"kept")
        return []
    return [b"kept"]


def late(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Uses all that was kept, from a thread, in the middle of this response."""
    said: list[str] = []

    def use() -> None:
        for write, early_hints, body in kept:
            deeds: list[Callable[[], Any]] = [
                partial(write, b"LATE"),
                partial(early_hints, [("Link", "</late>; rel=preload")]),
                body.read,
            ]
            for deed in deeds:
                try:
                    deed()
                    said.append("-")
                except Exception as problem:
                    said.append(f"{type(problem).__name__}: {problem}")

    def pieces() -> Iterator[bytes]:
        yield b"first\n"
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        yield "\n".join(said).encode()

    start_response("200 OK", [("Content-Type", "text/plain")])
    return pieces()


def hammer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A thread writes from before the end of the response until it is refused."""
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    began = threading.Event()

    def use() -> None:
        began.set()
        try:
            while True:
                write(b"w" * 10)
        except Exception:
            refused.release()

    threading.Thread(target=use, daemon=True).start()
    began.wait()
    return iter([b"i" * 10])


refused = threading.Semaphore(0)


def refusals(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Waits until ?n= threads of `hammer` were refused."""
    for _ in range(int(query(environ, "n", "1"))):
        refused.acquire()
    return answer(start_response, b"all refused")


def overread(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers while a thread reads the body."""
    began = threading.Event()

    def read() -> None:
        began.set()
        with contextlib.suppress(OSError):
            environ["wsgi.input"].read()

    threading.Thread(target=read, daemon=True).start()
    began.wait()
    return answer(start_response, b"answered")


ROUTES = {
    "/overread": overread,
    "/leave": leave,
    "/keep": keep,
    "/late": late,
    "/hammer": hammer,
    "/refusals": refusals,
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
