"""A request's body that the application reads while it comes (prefork.http.streamed_body).

If the application asks for more than has come, its own thread waits for the client.
"""

import contextlib
from contextlib import AbstractContextManager
from time import monotonic
from typing import Protocol

from prefork.http.head_rules import Reject
from prefork.http.reader import RequestReader
from prefork.http.response_head import CONTINUE
from prefork.http.streamed_body import StreamedBody
from prefork.unpatched import select
from prefork.worker.transport.client_limits import ClientLimits, due


class StreamingClient(Protocol):
    """The part of a connection that is needed here."""

    fd: int
    reader: RequestReader
    broken: bool

    @property
    def lagging(self) -> bool:
        """There are bytes that the client has not taken."""

    def flush(self) -> None:
        """Sends as many of them as the client takes now."""

    def receive_body(self) -> bytes:
        """Bytes of the body; raises OSError as a recv(2) that does not wait."""

    def send_interim(self, data: bytes) -> None:
        """Sends an interim response."""

    def awaiting_client(self) -> AbstractContextManager[None]:
        """Entered while a thread waits for the client: that is not the application's time."""


_OVER = Reject(400, "the request is over")


def pull(client: StreamingClient, rules: ClientLimits, body: StreamedBody) -> None:
    """Waits for more of a body, and feeds it to the reader."""
    reader = client.reader
    if reader.body is not body:
        body.fail(_OVER)
        return
    body.pulling = True
    try:
        _pull(client, rules, body)
    finally:
        body.pulling = False


def _pull(client: StreamingClient, rules: ClientLimits, body: StreamedBody) -> None:
    reader = client.reader
    if reader.wants_continue:
        reader.wants_continue = body.awaited = False
        client.send_interim(CONTINUE)
    try:
        data = b"" if client.broken else _await_data(client, rules, body)
    except TimeoutError:
        body.fail(Reject(408, "the request did not come in time"))
        reader.finish()
        return
    except OSError:
        data = b""
    if body.unwanted:
        # A thread of the application's has read on after the response.  The connection ends with
        # that (`abandon_body`), so these bytes are of no more use.
        body.fail(_OVER)
    elif data:
        reader.feed(data)
    else:
        client.broken = True
        body.fail(Reject(400, "the client is gone"))


def _await_data(client: StreamingClient, rules: ClientLimits, body: StreamedBody) -> bytes:
    """Raises TimeoutError if the client takes too long, other OSErrors if the connection fails."""
    with contextlib.suppress(BlockingIOError):
        return client.receive_body()
    began = monotonic()
    # The rate is that of the time in which it was waited for: the application may read slowly.
    until = due(
        began,
        silence=rules.body_timeout,
        rate=rules.min_body_rate,
        since=began - body.waited,
        done=body.size,
    )
    poll = select.poll()
    try:
        with client.awaiting_client():
            while True:
                # A client may want its answer read before it sends on.
                poll.register(client.fd, select.POLLIN | (select.POLLOUT if client.lagging else 0))
                left = max(until - monotonic(), 0.0) * 1000 if until else None
                events = poll.poll(left)
                if not events:
                    raise TimeoutError
                if events[0][1] & select.POLLOUT:
                    client.flush()
                    if client.broken:
                        raise ConnectionError
                with contextlib.suppress(BlockingIOError):
                    return client.receive_body()
    finally:
        body.waited += monotonic() - began


def abandon_body(reader: RequestReader, body: StreamedBody) -> None:
    """The application has answered, and may have left some of the body unread.

    The connection ends with the response if the rest of the body can't be drained, or if a thread
    of the application's is reading: what that gets may be part of the next request.
    """
    body.abandon()
    if reader.body is body and (body.pulling or not body.drainable):
        reader.wants_continue = False
        reader.finish()


def is_draining(reader: RequestReader) -> bool:
    """Whether the bytes that come now are the rest of a body that nobody reads."""
    return type(reader.body) is StreamedBody and reader.body.unwanted
