"""A raw stream: from a descriptor to the socket, and from the socket to another descriptor."""

import os

from prefork.client.connection import ClientConnection, ClientError, Disconnected
from prefork.client.content import PIECE
from prefork.client.output import write_all


def relay(connection: ClientConnection, source: int | None, sink: int) -> None:
    """Copies `source` to the peer and the peer to `sink` until the peer closes.

    The end of `source` only ends the sending direction (shutdown(2), SHUT_WR): the peer can still
    send.  Raises ClientError for a failure of the socket, OSError for a failure of `sink`.
    """
    pending = memoryview(b"")
    broken: Disconnected | None = None
    while True:
        readable, writable, filled = connection.wait(
            write=bool(pending), source=None if pending else source
        )
        if readable:
            data = connection.recv(wait=False)
            if data == b"":
                break
            write_all(sink, data or b"")
        try:
            if filled and source is not None:
                pending = memoryview(_read(source))
                if not pending:
                    source = None
                    connection.shutdown()
            if pending and (writable or filled):
                pending = pending[connection.send(pending) :]
        except Disconnected as error:
            # Bytes that the peer sent before it closed are still to be read.
            broken, source, pending = error, None, memoryview(b"")
    if broken is not None:
        raise broken


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, PIECE)
    except OSError as error:
        raise ClientError("read standard input", error.strerror or str(error)) from error
