"""Responses that take long: because of their client, or because of the application."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.basic import missing, query

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PIECE = bytes(range(256)) * 256
"""64 KiB."""

_MANY = PIECE * 480  # not in the request: to fill 30 MB is a long time on a busy machine

PLAIN = [("Content-Type", "application/octet-stream")]


class _Opaque:
    """A file of which only `read` is known, so that it is read and not sent by the kernel."""

    def __init__(self, pieces: int) -> None:
        self._left = pieces

    def read(self, size: int) -> bytes:
        self._left -= 1
        return PIECE[:size] if self._left >= 0 else b""


def generated(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """?n= pieces, made one by one."""
    start_response("200 OK", PLAIN)
    for _ in range(int(query(environ, "n", "1"))):
        yield PIECE


def written(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The same with write()."""
    write = start_response("200 OK", PLAIN)
    for _ in range(int(query(environ, "n", "1"))):
        write(PIECE)
    return []


def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The same from a file that has to be read."""
    start_response("200 OK", PLAIN)
    result: Iterable[bytes] = environ["wsgi.file_wrapper"](
        _Opaque(int(query(environ, "n", "1"))), len(PIECE)
    )
    return result


def whole(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The same in one piece, more than the server keeps."""
    size = int(query(environ, "n", "1"))
    start_response("200 OK", [*PLAIN, ("Content-Length", str(size * len(PIECE)))])
    return [_MANY[: size * len(PIECE)]]


def events(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """An event stream: ?n= events, each ?s= seconds after the one before."""
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    for number in range(int(query(environ, "n", "1"))):
        yield f"data: {number}\n\n".encode()
        time.sleep(float(query(environ, "s", "0")))


def stuck(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """?n= pieces, and then nothing until the FIFO ?fifo= is at its end."""
    if size := int(query(environ, "n", "0")):
        start_response("200 OK", PLAIN)
        yield PIECE * size
    Path(query(environ, "fifo", "")).read_bytes()
    if not size:
        start_response("200 OK", PLAIN)
    yield b"too late"


def received(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The size of the body."""
    size = 0
    while data := environ["wsgi.input"].read(10_000):
        size += len(data)
    start_response("200 OK", PLAIN)
    return [str(size).encode()]


ROUTES: dict[str, Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]] = {
    "/generated": generated,
    "/written": written,
    "/wrapped": wrapped,
    "/whole": whole,
    "/events": events,
    "/stuck": stuck,
    "/received": received,
}


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application: ?n= pieces.  At /works, one that was waited for takes some work."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    works = scope["path"] == "/works"
    for _ in range(int(scope["query_string"].partition(b"n=")[2])):
        began = time.monotonic()
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        if works and time.monotonic() - began > 1:
            works = False
            await asyncio.sleep(1.1)
    await send({"type": "http.response.body", "body": b""})


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application."""
    return ROUTES.get(environ["PATH_INFO"], missing)(environ, start_response)
