"""Applications that read a body while it comes, or leave it, and one that sends early hints."""

import hashlib
from collections.abc import Iterable, Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

PLAIN = [("Content-Type", "text/plain")]


def lines(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Each line as it comes."""
    start_response("200 OK", PLAIN)
    yield b"ready\n"
    while line := environ["wsgi.input"].readline():
        yield line


def ignore(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return [b"ignored"]


def first(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Reads five bytes and leaves the rest."""
    body = environ["wsgi.input"].read(5)
    start_response("200 OK", PLAIN)
    return [body]


def everything(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    total, size = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(10_000):
        total.update(piece)
        size += len(piece)
    start_response("200 OK", PLAIN)
    told = [environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING"), size]
    return [f"{told} {total.hexdigest()}".encode()]


def caught(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answers itself where the body can't be read."""
    try:
        environ["wsgi.input"].read()
    except OSError as problem:
        start_response("422 X", PLAIN)
        return [f"{type(problem).__name__}: {problem}".encode()]
    return ignore(environ, start_response)


def hints(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    send = environ["wsgi.early_hints"]
    send([("Link", "</style.css>; rel=preload"), ("Content-Length", "99")])
    send([("Link", "</script.js>; rel=preload")])
    try:
        send([("Link", "a\r\nb")])
    except ValueError as problem:
        body = str(problem).encode()
    write = start_response("200 OK", PLAIN)
    write(b"refused: ")
    send([("Link", "</too-late>")])
    return [body]


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"].removeprefix("/")
    chosen = {
        "lines": lines,
        "ignore": ignore,
        "first": first,
        "everything": everything,
        "caught": caught,
        "hints": hints,
    }[path]
    return chosen(environ, start_response)
