"""The server of metrics: HTTP/1.1, one request in a connection, and the master waits for none.

Every read and write is non-blocking, and a page is made in slices, one in each round of the loop.
The cost of a client is bounded, as on the control socket.
"""

import contextlib
import selectors
import socket
from collections.abc import Callable, Generator
from time import monotonic

from prefork import logs
from prefork.listeners import Listener
from prefork.master.client_acceptor import ClientAcceptor
from prefork.master.periodic import Periodic

MAX_CLIENTS = 16
_TIMEOUT = 10.0
"""Seconds for a client to send its request, and then to take the page."""

_LIMIT = 8 * 1024
"""Bytes of a request."""

Page = Generator[None, None, tuple[str, bytes]]
"""Yields between slices; at its end, content type and body."""

Render = Callable[[str], Page]
"""Makes the page, given the client's Accept header."""


class _Client:
    def __init__(
        self, sock: socket.socket, deadline: float, drop: Callable[["_Client"], None]
    ) -> None:
        self.sock = sock
        self.deadline: float | None = deadline
        self._drop = drop
        self.input = b""
        self.output = b""
        self.page: Page | None = None
        self.head_only = False

    def close(self) -> None:
        self._drop(self)


class MetricsServer(Periodic):
    """Serves pages at `/metrics` on the listener that it follows."""

    def __init__(self, selector: selectors.BaseSelector, render: Render) -> None:
        self._selector = selector
        self._render = render
        self._listener: Listener | None = None
        self._acceptor: ClientAcceptor[_Client] = ClientAcceptor(
            selector, MAX_CLIENTS, self._connected, self._paused
        )

    def follow(self, listener: Listener | None) -> None:
        """Serves on this listener instead of the one before, which the caller may close then."""
        if listener is self._listener:
            return
        self._listener = listener
        self._acceptor.listen(None if listener is None else listener.sock)
        if listener is not None:
            logs.event("info", "metrics served", address=listener.name)

    def descriptors(self) -> list[int]:
        """All that are open here, for a forked child to close."""
        return [client.sock.fileno() for client in self._acceptor.clients]

    def close(self) -> None:
        self.follow(None)
        for client in list(self._acceptor.clients):
            self._drop(client)

    @property
    def due(self) -> float | None:
        """At once while a page is being made, else the first deadline of a client."""
        if any(client.page is not None for client in self._acceptor.clients):
            return 0.0
        return self._acceptor.due

    def run(self, now: float) -> None:
        """Goes on with the pages, by a slice each, and drops clients that take too long."""
        for client in list(self._acceptor.clients):
            if client.page is not None:
                self._advance(client, client.page)
        self._acceptor.run(now)

    def overslept(self, seconds: float) -> None:
        self._acceptor.overslept(seconds)

    def _connected(self, sock: socket.socket) -> None:
        if not self._acceptor.make_room():
            sock.close()
            return
        client = _Client(sock, monotonic() + _TIMEOUT, self._drop)
        self._acceptor.clients.append(client)
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._read(client))

    def _paused(self, reason: str | None) -> None:
        logs.event("warning", "metrics paused", reason=reason)

    def _drop(self, client: _Client) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(client.sock)
        client.sock.close()
        self._acceptor.clients.remove(client)

    def _read(self, client: _Client) -> None:
        try:
            data = client.sock.recv(_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.input += data
        if not data or len(client.input) > _LIMIT:
            return self._drop(client)
        if b"\r\n\r\n" in client.input:
            self._selector.unregister(client.sock)
            self._answer(client)

    def _answer(self, client: _Client) -> None:
        head = client.input.decode("latin-1").partition("\r\n\r\n")[0]
        line, *headers = head.split("\r\n")
        method, _, rest = line.partition(" ")
        target = rest.partition(" ")[0].partition("?")[0]
        client.head_only = method == "HEAD"
        if method not in ("GET", "HEAD"):
            self._send(client, "405 Method Not Allowed", "text/plain", b"GET and HEAD only\n")
        elif target != "/metrics":
            self._send(client, "404 Not Found", "text/plain", b"metrics are at /metrics\n")
        else:
            pairs = (header.partition(":") for header in headers)
            accept = (value for name, _, value in pairs if name.lower() == "accept")
            client.deadline = None  # it waits for us
            client.page = self._render(next(accept, "").strip())

    def _advance(self, client: _Client, page: Page) -> None:
        try:
            next(page)
        except StopIteration as end:
            client.page = None
            self._send(client, "200 OK", *end.value)
        except Exception as error:
            # A figure that can't be had must not be able to end the server.
            client.page = None
            logs.event("error", "metrics failed", traceback=logs.traceback_of(error))
            self._send(client, "500 Internal Server Error", "text/plain", b"see the log\n")

    def _send(self, client: _Client, status: str, kind: str, body: bytes) -> None:
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        client.output = head.encode("latin-1") + (b"" if client.head_only else body)
        client.deadline = monotonic() + _TIMEOUT
        self._selector.register(client.sock, selectors.EVENT_WRITE, lambda _: self._write(client))

    def _write(self, client: _Client) -> None:
        try:
            sent = client.sock.send(client.output)
        except BlockingIOError:
            return
        except OSError:
            return self._drop(client)
        client.output = client.output[sent:]
        if not client.output:
            self._drop(client)
