"""A connection whose request an event loop answers."""

import socket

from prefork.worker.protocol.asgi_connection import AsgiConnection
from tests.support.client_limits import client_limits

HEAD = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


def test_of_what_follows_a_request_little_is_read_before_it_is_answered() -> None:
    """However often the client takes something of a long response meanwhile."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(HEAD * 3000)
        connection = AsgiConnection(ours, {}, ("", ""), client_limits(), 0.0)
        for _ in range(10):
            connection.read_ahead()
        assert 0 < len(connection.reader.rest) <= 16 * 1024
