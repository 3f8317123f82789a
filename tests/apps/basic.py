"""One WSGI application with a path for each thing that a test asks of a server.

The environ's own keys of prefork are shown where they are there, so that the same application
can be held against another server.
"""

import hashlib
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

PIECE = 64 * 1024


def query(environ: WSGIEnvironment, name: str, default: str) -> str:
    values: dict[str, list[str]] = parse_qs(environ.get("QUERY_STRING", ""))
    return values.get(name, [default])[0]


def answer(
    start_response: StartResponse, body: bytes, kind: str = "text/plain", status: str = "200 OK"
) -> list[bytes]:
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def as_json(start_response: StartResponse, value: object) -> list[bytes]:
    return answer(start_response, json.dumps(value).encode(), "application/json")


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Which worker answers: pid, slot, generation."""
    told = {name: environ.get(f"prefork.{name}") for name in ("slot", "generation")}
    return as_json(start_response, {"hello": "world", "pid": os.getpid(), **told})


def pid(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return answer(start_response, str(os.getpid()).encode())


def sleep(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """?s= seconds in the application, then the pid."""
    time.sleep(float(query(environ, "s", "1")))
    return pid(environ, start_response)


def hold(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Stays in the application until the file ?path= is gone, which it makes itself."""
    path = Path(query(environ, "path", ""))
    path.touch()
    while path.exists():
        time.sleep(0.005)
    return pid(environ, start_response)


def gate(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A piece, and another when the file ?path= is gone, which it makes itself."""
    path = Path(query(environ, "path", ""))
    start_response("200 OK", [("Content-Type", "text/plain")])

    def pieces() -> Iterator[bytes]:
        yield b"before, "
        path.touch()
        while path.exists():
            time.sleep(0.005)
        yield b"after"

    return pieces()


def big(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """?n= bytes in one piece."""
    return answer(start_response, b"x" * int(query(environ, "n", "1000000")))


_turns = itertools.count(1)


def turn(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Which call of this path it was in this worker, after ?s= seconds asleep and ?cpu= seconds of
    Python in the application; filled up with spaces to ?n= bytes."""
    number = next(_turns)
    time.sleep(float(query(environ, "s", "0")))
    until = time.thread_time() + float(query(environ, "cpu", "0"))
    while time.thread_time() < until:
        pass
    return answer(start_response, b"%d" % number + b" " * int(query(environ, "n", "0")))


def stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """?n= pieces of at least ?size= bytes with ?delay= seconds before each but the first; the
    length is not told."""
    n, delay = int(query(environ, "n", "3")), float(query(environ, "delay", "0"))
    size = int(query(environ, "size", "0"))
    start_response("200 OK", [("Content-Type", "text/plain")])

    def pieces() -> Iterator[bytes]:
        for number in range(n):
            if number and delay:
                time.sleep(delay)
            yield f"piece {number}\n".encode().rjust(size)

    return pieces()


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The body, with its type."""
    body = b"".join(pieces_of(environ))
    return answer(start_response, body, environ.get("CONTENT_TYPE") or "application/octet-stream")


def digest(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Length and SHA-256 of the body, read in pieces."""
    total, size = hashlib.sha256(), 0
    for piece in pieces_of(environ):
        total.update(piece)
        size += len(piece)
    return as_json(start_response, {"size": size, "sha256": total.hexdigest()})


def pieces_of(environ: WSGIEnvironment) -> Iterator[bytes]:
    while piece := environ["wsgi.input"].read(PIECE):
        yield piece


def error(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Raises before start_response; with ?after=1, after the first piece is out."""
    if query(environ, "after", "0") == "0":
        raise RuntimeError("raised by /error")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "100")])

    def pieces() -> Iterator[bytes]:
        yield b"first"
        raise RuntimeError("raised by /error after a piece")

    return pieces()


def leave(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """sys.exit(?code=) inside the application."""
    sys.exit(int(query(environ, "code", "0")))


def show(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The environ: strings, numbers and truth values as they are, all else by its repr."""
    plain = {
        name: value if isinstance(value, str | int | tuple) else repr(value)
        for name, value in environ.items()
    }
    return as_json(start_response, plain)


def headers(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The request's headers, and two of the same name in the answer."""
    got = {name: value for name, value in environ.items() if name.startswith(("HTTP_", "CONTENT_"))}
    body = json.dumps(got).encode()
    sent = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    sent += [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Latin", "caf\xe9")]
    start_response("200 OK", sent)
    return [body]


def write(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Two pieces by write(), a third by the iterable."""
    send = start_response("200 OK", [("Content-Type", "text/plain")])
    send(b"written ")
    send(b"twice, ")
    return [b"returned once"]


def exc_info(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """start_response again with exc_info: replaces the status, or with ?sent=1 raises again."""
    send = start_response("200 OK", [("Content-Type", "text/plain"), ("X-Replaced", "no")])
    if query(environ, "sent", "0") == "1":
        send(b"already out")
    try:
        raise ValueError("raised by /exc_info")
    except ValueError:
        body = b"replaced"
        replaced = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        start_response("503 Service Unavailable", replaced, sys.exc_info())
        return [body]


class Closing:
    """An iterable of two pieces that counts its close() calls, for its process."""

    closed = 0

    def __init__(self, fail: bool) -> None:
        self.pieces = iter((b"one ", b"two"))
        self.fail = fail

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self.pieces)
        if self.fail and piece == b"two":
            raise RuntimeError("raised by the iterable of /close")
        return piece

    def close(self) -> None:
        Closing.closed += 1


def close(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """An iterable with close(), which with ?fail=1 raises on the way; ?count=1 tells how many
    were closed in this process so far."""
    if query(environ, "count", "0") == "1":
        return answer(start_response, str(Closing.closed).encode())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Closing(query(environ, "fail", "0") == "1")


class Endless:
    """Pieces without an end; its close() counts as one of `Closing`."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return b"x" * PIECE

    def close(self) -> None:
        Closing.closed += 1


def endless(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A body that ends when the client has had enough."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return Endless()


def read(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """What each call on wsgi.input gives, by ?how=."""
    body = environ["wsgi.input"]
    calls: dict[str, Callable[[], list[bytes]]] = {
        "sizes": lambda: [body.read(3), body.read(0), body.read(1 << 30), body.read(1)],
        "all": lambda: [body.read(), body.read()],
        "minus": lambda: [body.read(-1), body.read(-1)],
        "line": lambda: [body.readline(), body.readline(2), body.readline(1000), body.read(4)],
        "lines": lambda: [*body.readlines(), b"|", *body.readlines()],
        "hint": lambda: [*body.readlines(8), b"|", body.read(1 << 30)],
        "iteration": lambda: [*body, b"|", body.read(1)],
    }
    pieces = calls[query(environ, "how", "all")]()
    return as_json(start_response, [piece.decode("latin-1") for piece in pieces])


def file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """wsgi.file_wrapper: of the file ?path= (this module) from ?offset= on, or with ?memory=1 of
    an object without a descriptor; ?claim= is its Content-Length where it is given."""
    content = io.BytesIO(b"from memory")
    source = Path(query(environ, "path", __file__)).open("rb")  # noqa: SIM115 - the server closes
    if query(environ, "memory", "0") == "1":
        source.close()
        chosen: io.BufferedIOBase = content
    else:
        source.seek(int(query(environ, "offset", "0")))
        chosen = source
    headers = [("Content-Type", "application/octet-stream")]
    if claim := query(environ, "claim", ""):
        headers.append(("Content-Length", claim))
    start_response("200 OK", headers)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](chosen, PIECE)
    return wrapped


def gen(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """A generator: start_response runs only at its first step; empty pieces between."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b""
    yield b"generated "
    yield b""
    yield b"in pieces"


def badlength(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Claims ?claim= bytes and sends ?send=."""
    claim, send = query(environ, "claim", "10"), int(query(environ, "send", "5"))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", claim)])
    return [b"x" * send]


def nolength(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """One piece whose length the application does not tell, so that the server may."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"no length given"]


def empty(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """?status=204 or 304: no body, no length."""
    status = query(environ, "status", "204")
    start_response({"204": "204 No Content", "304": "304 Not Modified"}[status], [])
    return []


def missing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return answer(start_response, b"not found", status="404 Not Found")


ROUTES: dict[str, Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]] = {
    "/": hello,
    "/pid": pid,
    "/sleep": sleep,
    "/hold": hold,
    "/gate": gate,
    "/big": big,
    "/turn": turn,
    "/stream": stream,
    "/echo": echo,
    "/digest": digest,
    "/error": error,
    "/exit": leave,
    "/environ": show,
    "/headers": headers,
    "/write": write,
    "/exc_info": exc_info,
    "/close": close,
    "/endless": endless,
    "/read": read,
    "/file": file,
    "/gen": gen,
    "/badlength": badlength,
    "/nolength": nolength,
    "/empty": empty,
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application."""
    return ROUTES.get(environ["PATH_INFO"], missing)(environ, start_response)


def factory() -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """For targets of the form `module:factory()`."""
    return app
