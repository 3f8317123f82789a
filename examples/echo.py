"""A TCP handler: every line comes back, until the client has said its last.

    prefork serve --tcp examples.echo:handle --bind 127.0.0.1:7007

A handler is called once for each connection, in a worker of its own for as long as it lasts; when
it returns, the server closes the connection.
"""

import socket


def handle(sock: socket.socket, address: object) -> None:
    """Sends back each line as it is whole, and at the end what is left without a newline.

    A client may shut down its sending side (shutdown(2), SHUT_WR) and read on: it gets all of it.
    One that goes away is no error.  makefile() would hold no bound on a line; this holds 64 KiB.
    """
    rest = b""
    try:
        while received := sock.recv(65536):
            lines, newline, rest = (rest + received).rpartition(b"\n")
            if len(rest) > 65536:
                lines, newline, rest = lines + newline + rest, b"", b""
            if lines or newline:
                sock.sendall(lines + newline)
        sock.sendall(rest)
    except (ConnectionResetError, BrokenPipeError):
        pass
