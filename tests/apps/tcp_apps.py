"""TCP handlers."""

import itertools
import os
import select
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import prefork


def echo(sock: socket.socket, address: object) -> None:
    """Every byte back, until the client has shut down its sending side."""
    while piece := sock.recv(65536):
        sock.sendall(piece)


def whoami(sock: socket.socket, address: object) -> None:
    """The worker's pid and the client's address, in one line."""
    sock.sendall(f"{os.getpid()} {address}\n".encode())


def greets(sock: socket.socket, address: object) -> None:
    """The client's address in a line, then every byte back."""
    sock.sendall(f"{address!r}\n".encode())
    echo(sock, address)


def fails(sock: socket.socket, address: object) -> None:
    """Says one line, then raises: that ends this connection and no other."""
    sock.sendall(b"about to fail\n")
    raise RuntimeError("raised by the TCP handler")


def until_eof(sock: socket.socket, address: object) -> None:
    """Says "ready", reads to EOF, and leaves a file as proof.

    The file is named by PREFORK_TEST_EOF in the environment and holds the number of bytes read;
    it is renamed into place, so that who sees it sees all of it.
    """
    sock.sendall(b"ready\n")
    size = 0
    while piece := sock.recv(65536):
        size += len(piece)
    proof = Path(os.environ["PREFORK_TEST_EOF"])
    draft = proof.with_name(f"{proof.name}.{os.getpid()}")
    draft.write_text(str(size))
    draft.rename(proof)
    sock.sendall(b"bye\n")


_serial = itertools.count()
_inside: set[int] = set()
_lock = threading.Lock()


def together(sock: socket.socket, address: object) -> None:
    """Says how many are in here with this one, itself included; stays until a line comes, and
    then says it again."""
    me = next(_serial)
    with _lock:
        _inside.add(me)
        sock.sendall(b"%d\n" % len(_inside))
    sock.recv(100)
    with _lock:
        sock.sendall(b"%d\n" % len(_inside))
        _inside.remove(me)


def impolite(sock: socket.socket, address: object) -> None:
    """Answers as soon as the client has sent something, and returns without reading it."""
    sock.recv(1, socket.MSG_PEEK)
    sock.sendall(b"not interested\n")


def closes(sock: socket.socket, address: object) -> None:
    """Closes its connection itself."""
    sock.sendall(b"closed by the handler\n")
    sock.close()


def closes_the_number(sock: socket.socket, address: object) -> None:
    """As a file made by os.fdopen() does when it is collected."""
    with os.fdopen(sock.fileno(), "wb") as file:
        file.write(b"closed by number\n")


def told(sock: socket.socket, address: object) -> None:
    """Every byte back, and a last line when the worker is about to leave."""
    sock.sendall(b"hello\n")
    watched = [sock.fileno(), prefork.stopping.fileno()]
    while not prefork.stopping.is_set():
        readable, _, _ = select.select(watched, [], [])
        if watched[0] in readable:
            data = sock.recv(65536)
            if not data:
                return
            sock.sendall(data)
    sock.sendall(b"please connect again\n")


async def coroutine(sock: socket.socket, address: object) -> None:
    """Can't be a handler."""


def generator(sock: socket.socket, address: object) -> Iterator[None]:
    """Can't be a handler."""
    yield


async def async_generator(sock: socket.socket, address: object) -> AsyncIterator[None]:
    """Can't be a handler."""
    yield


class AsyncCallable:
    """Its instances can't be handlers."""

    async def __call__(self, sock: socket.socket, address: object) -> None:
        """Would never run."""


async_callable = AsyncCallable()


def factory() -> object:
    """Returns a handler, and is none."""
    return echo


def of_environ(environ: object) -> None:
    """Takes one argument."""


def hides_a_coroutine(sock: socket.socket, address: object) -> object:
    """A plain function, by its looks."""
    return coroutine(sock, address)


class Conversation:
    """A class that does all of its work when it is created, as those of socketserver."""

    def __init__(self, sock: socket.socket, address: object) -> None:
        sock.sendall(b"from a class\n")


def exits(sock: socket.socket, address: object) -> None:
    """Raises what is no Exception."""
    raise SystemExit(5)
