"""TCP handlers."""

import itertools
import os
import socket
import threading
from pathlib import Path


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


def exits(sock: socket.socket, address: object) -> None:
    """Raises what is no Exception."""
    raise SystemExit(5)
