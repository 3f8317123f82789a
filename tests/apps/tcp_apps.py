"""TCP handlers."""

import os
import socket
from pathlib import Path


def echo(sock: socket.socket, address: object) -> None:
    """Every byte back, until the client has shut down its sending side."""
    while piece := sock.recv(65536):
        sock.sendall(piece)


def whoami(sock: socket.socket, address: object) -> None:
    """The worker's pid and the client's address, in one line."""
    sock.sendall(f"{os.getpid()} {address}\n".encode())


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
