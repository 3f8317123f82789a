"""A body on its way, over a connection that takes a few bytes at a time."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from prefork.client import ClientError, RequestContent
from prefork.client.connection import ClientConnection
from prefork.client.content import PIECE, Upload


class Narrow:
    """Takes at most so many bytes at once, and nothing every second time."""

    def __init__(self, width: int, plain: bool) -> None:
        self.plain = plain
        self.got = bytearray()
        self._width = width
        self._ready = False

    def send(self, data: memoryview) -> int:
        self._ready = not self._ready
        taken = bytes(data[: self._width]) if self._ready else b""
        self.got += taken
        return len(taken)

    def sendfile(self, fd: int, offset: int, count: int) -> int | None:
        self._ready = not self._ready
        if not self._ready:
            return None
        data = os.pread(fd, min(count, self._width), offset)
        self.got += data
        return len(data)


def push(upload: Upload, connection: Narrow) -> None:
    """One step; `Narrow` has of a connection what an upload uses."""
    upload.push(cast(ClientConnection, connection))


def push_all(upload: Upload, connection: Narrow, most: int = 1000) -> bytes:
    for _ in range(most):
        if upload.done:
            return bytes(connection.got)
        push(upload, connection)
    raise AssertionError("it never ends")


@pytest.fixture(params=[b"", b"abc", bytes(range(256)) * 700], ids=["empty", "3 B", "179 KB"])
def data(request: pytest.FixtureRequest) -> bytes:
    found: bytes = request.param
    return found


@pytest.fixture
def file(tmp_path: Path, data: bytes) -> Iterator[int]:
    path = tmp_path / "body"
    path.write_bytes(b"before" + data)
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 6, os.SEEK_SET)
    yield fd
    os.close(fd)


def unchunk(data: bytes) -> bytes:
    """The reading of RFC 9112 section 7.1, for what has no extensions and no trailers."""
    found = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        count = int(size, 16)
        found, data = found + data[:count], data[count:]
        assert data[:2] == b"\r\n"
        data = data[2:]
        if not count:
            assert not data
            return found


@pytest.mark.parametrize("plain", [True, False])
def test_bytes(data: bytes, plain: bool) -> None:
    assert push_all(Upload(RequestContent(data), chunked=False), Narrow(5000, plain)) == data


@pytest.mark.parametrize("plain", [True, False])
def test_a_file_by_sendfile_and_by_send(file: int, data: bytes, plain: bool) -> None:
    body = RequestContent(fd=file)
    for _ in range(2):  # A second time it goes again: a file can be replayed.
        assert push_all(Upload(body, chunked=False), Narrow(5000, plain)) == data


@pytest.mark.parametrize("plain", [True, False])
def test_chunks(file: int, data: bytes, plain: bool) -> None:
    for body in (RequestContent(data), RequestContent(fd=file)):
        sent = push_all(Upload(body, chunked=True), Narrow(5000, plain))
        assert unchunk(sent) == data


def test_a_pipe(data: bytes) -> None:
    reading, writing = os.pipe()
    upload = Upload(RequestContent(fd=reading), chunked=True)
    connection = Narrow(5000, plain=True)
    assert upload.source == reading
    for start in range(0, len(data), PIECE // 2):
        os.write(writing, data[start : start + PIECE // 2])
        push(upload, connection)
        while upload.source is None:  # Before more is read, what is in hand goes.
            push(upload, connection)
    os.close(writing)
    assert unchunk(push_all(upload, connection)) == data
    assert upload.source is None
    os.close(reading)


@pytest.mark.parametrize("plain", [True, False])
def test_a_file_that_becomes_shorter_is_an_error(tmp_path: Path, plain: bool) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"a" * 100)
    with open(path, "rb", buffering=0) as opened:
        upload = Upload(RequestContent(fd=opened.fileno()), chunked=False)
        os.truncate(path, 40)
        with pytest.raises(ClientError, match="ends after 40 of 100 bytes"):
            push_all(upload, Narrow(5000, plain))


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(ClientError, match="read the body: Is a directory"):
        push_all(Upload(RequestContent(fd=fd), chunked=True), Narrow(5000, plain=True))
    os.close(fd)
