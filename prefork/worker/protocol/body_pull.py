"""A body that the application reads while it comes (prefork.http.streamed_body), and its client.

Where the application asks for more than has come, its own thread waits for the client.
"""

import contextlib
import select
from time import monotonic
from typing import Protocol

from prefork.http.head_rules import Reject
from prefork.http.request_parser import CONTINUE, RequestParser
from prefork.http.streamed_body import StreamedBody


class StreamingClient(Protocol):
    """A conversation, as far as this is concerned."""

    fd: int
    connection: RequestParser
    broken: bool

    @property
    def lagging(self) -> bool:
        """The client has something to take."""

    def flush(self) -> None:
        """Sends what it takes now."""

    def receive(self) -> bytes:
        """Bytes of the body; raises OSError as recv(2) does that does not wait."""

    def send_interim(self, data: bytes) -> None:
        """Sends what is no response yet."""


def pull(client: StreamingClient, timeout: float) -> None:
    """Takes more of the body that the connection reads, and waits for it.

    `timeout`: seconds of silence, 0 for no limit.
    """
    connection = client.connection
    body = connection.body
    assert type(body) is StreamedBody
    if connection.wants_continue:
        connection.wants_continue = body.awaited = False
        client.send_interim(CONTINUE)
    try:
        data = b"" if client.broken else _await_data(client, timeout)
    except TimeoutError:
        body.fail(Reject(408, "the request did not come in time"))
        connection.finish()
        return
    except OSError:
        data = b""
    if data:
        connection.feed(data)
    else:
        client.broken = True
        body.fail(Reject(400, "the client is gone"))


def _await_data(client: StreamingClient, timeout: float) -> bytes:
    """Raises TimeoutError after `timeout`, and other OSErrors of a broken connection."""
    due = monotonic() + timeout
    poll = select.poll()
    while True:
        with contextlib.suppress(BlockingIOError):
            return client.receive()
        # A client may want its answer read before it sends on.
        poll.register(client.fd, select.POLLIN | (select.POLLOUT if client.lagging else 0))
        left = max(due - monotonic(), 0.0) * 1000 if timeout else None
        events = poll.poll(left)
        if not events:
            raise TimeoutError
        if events[0][1] & select.POLLOUT:
            client.flush()
            if client.broken:
                raise ConnectionError


def let_go(connection: RequestParser, body: StreamedBody) -> None:
    """The application has answered, and may have left some of the body unread."""
    body.abandon()
    if connection.body is body and not body.drainable:
        connection.wants_continue = False
        connection.finish()


def draining(connection: RequestParser) -> bool:
    """What is read now is the rest of a body that nobody wants."""
    return type(connection.body) is StreamedBody and connection.body.unwanted
