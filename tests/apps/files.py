"""Files of all kinds for `wsgi.file_wrapper`, and responses that break off."""

import contextlib
import gzip
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from io import BufferedRandom, BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.basic import answer, query

REDACTED = bytes.maketrans(b"secrt", b"*****")


class Redacted(FileIO):
    """As a file that is decrypted while it is read."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size).translate(REDACTED)

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class Wrapper:
    """Passes on to the file all that it does not have itself."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        return data.translate(REDACTED)


def patched(file: Any) -> Any:
    read = file.read
    file.read = lambda size=-1: read(size).translate(REDACTED)
    return file


def seeked(path: str) -> Any:
    file = BufferedReader(FileIO(path))
    file.read(10)
    return file


def temporary(path: str) -> Any:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115
    file.write(Path(path).read_bytes())
    file.seek(5)
    return file


def unflushed(path: str) -> Any:
    file = BufferedRandom(FileIO(path, "r+b"))
    file.write(b"CHANGE")
    file.seek(0)
    return file


KINDS: dict[str, Callable[[str], Any]] = {
    "raw": FileIO,
    "buffered": lambda path: BufferedReader(FileIO(path)),
    "seeked": seeked,
    "gzip": gzip.GzipFile,
    "gzip in a buffer": lambda path: BufferedReader(gzip.GzipFile(path)),
    "redacted": Redacted,
    "redacted in a buffer": lambda path: BufferedReader(Redacted(path)),
    "wrapper": lambda path: Wrapper(FileIO(path)),
    "patched raw": lambda path: patched(FileIO(path)),
    "patched buffer": lambda path: patched(BufferedReader(FileIO(path))),
    "temporary": temporary,
    "unflushed": unflushed,
    "memory": lambda path: BytesIO(Path(path).read_bytes()),
    "random access": lambda path: BufferedRandom(FileIO(path, "r+b")),
}


def wrap(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The file ?path=, opened as ?kind=, by the wrapper."""
    file = KINDS[query(environ, "kind", "raw")](query(environ, "path", ""))
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    result: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
    return result


def read(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """What `read()` gives for it."""
    with contextlib.closing(
        KINDS[query(environ, "kind", "raw")](query(environ, "path", ""))
    ) as file:
        return answer(start_response, b"".join(iter(lambda: file.read(8192), b"")))


def half(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A response without a length that breaks off by ?how=, when the client has some of it."""
    how = query(environ, "how", "raise")
    start_response("200 OK", [("Content-Type", "text/plain")])

    def pieces() -> Iterator[bytes]:
        yield b"half of it"
        if how == "raise":
            raise LookupError("the other half")
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "hang":
            signal.pause()
            signal.pause()
        yield b", and the rest"

    return pieces()


def big(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """?n= bytes, in pieces."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (b"x" * 65536 for _ in range(int(query(environ, "n", "0")) // 65536))


ROUTES = {
    "/wrap": wrap,
    "/read": read,
    "/half": half,
    "/big": big,
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
