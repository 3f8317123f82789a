"""Applications that read a body while it comes, or leave it, and one that sends early hints."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.basic import query

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


def in_pieces(stream: BufferedReader, by: str) -> Iterator[bytes]:
    """Reads a body to its end, by one of the methods of `wsgi.input`."""
    buffer = bytearray(7000)
    while True:
        match by:
            case "read(n)":
                data = stream.read(65536)
            case "read(more than there is)":
                data = stream.read(1 << 20)
            case "read1":
                data = stream.read1(65536)
            case "readline":
                data = stream.readline()
            case "readline(n)":
                data = stream.readline(1000)
            case "readinto":
                data = bytes(buffer[: stream.readinto(buffer)])
            case "iteration":
                yield from stream
                return
            case "read()" | "readlines":
                yield from everything_at_once(stream, by)
                return
        if not data:
            return
        yield data


def everything_at_once(stream: BufferedReader, by: str) -> Iterator[bytes]:
    """What has come can't be returned as if it were the whole; it is there for the next call."""
    try:
        yield from [stream.read()] if by == "read()" else stream.readlines()
    except OSError:
        yield from in_pieces(stream, "read(n)")


def kept(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Keeps in ?file= what has come of a body, and how it ended; ?gate=: a FIFO to wait at."""
    if gate := query(environ, "gate", ""):
        Path(gate).read_bytes()
    file = Path(query(environ, "file", ""))
    pieces, end = [], "whole"
    try:
        for data in in_pieces(environ["wsgi.input"], query(environ, "by", "")):
            pieces.append(data)
    except OSError as problem:
        end = str(problem)
    new = file.with_suffix(".new")
    new.write_bytes(end.encode() + b"\n" + b"".join(pieces))
    os.replace(new, file)
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
        "kept": kept,
        "hints": hints,
    }[path]
    return chosen(environ, start_response)
