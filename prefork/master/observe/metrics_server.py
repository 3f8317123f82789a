"""Where metrics are served: HTTP/1.1, one request a connection, and none that the master waits for.

Every read and write is non-blocking, and a page is made in slices, one in each round of the loop.
What a client may cost is bounded, as on the control socket.
"""

import contextlib
import selectors
import socket
from collections.abc import Callable, Generator
from time import monotonic

from prefork import logs
from prefork.listeners import Listener

MAX_CLIENTS = 16
_TIMEOUT = 10.0
"""Seconds for a client to send its request, and then to take the page."""

_LIMIT = 8 * 1024
"""Bytes of a request."""

_PAUSE = 1.0
"""Seconds without accept(2) after it failed for want of descriptors or memory."""

Page = Generator[None, None, tuple[str, bytes]]
"""Yields between slices; at its end, content type and body."""

Render = Callable[[str], Page]
"""Makes the page, given the client's Accept header."""


class _Client:
    def __init__(self, sock: socket.socket, now: float) -> None:
        self.sock = sock
        self.deadline = now + _TIMEOUT
        self.input = b""
        self.output = b""
        self.page: Page | None = None
        self.head_only = False


class MetricsServer:
    """Serves pages at `/metrics` on the listener that it follows."""

    def __init__(self, selector: selectors.BaseSelector, render: Render) -> None:
        self._selector = selector
        self._render = render
        self._listener: Listener | None = None
        self._resume_at: float | None = None
        self._clients: list[_Client] = []

    def follow(self, listener: Listener | None) -> None:
        """Serves there, and no more where it did so far; before that is closed."""
        if listener is self._listener:
            return
        if self._listener is not None and self._resume_at is None:
            self._selector.unregister(self._listener.fileno())
        self._listener, self._resume_at = listener, None
        if listener is not None:
            listener.sock.setblocking(False)
            self._watch(listener)
            logs.event("info", "metrics served", address=listener.name)

    def descriptors(self) -> list[int]:
        """All that are open here, for a forked child to close."""
        return [client.sock.fileno() for client in self._clients]

    def close(self) -> None:
        self.follow(None)
        for client in list(self._clients):
            self._drop(client)

    @property
    def look_at(self) -> float | None:
        """Monotonic seconds at which `look` has something to do; 0.0: now."""
        if any(client.page is not None for client in self._clients):
            return 0.0
        times = [client.deadline for client in self._clients]
        return min([*times, *([self._resume_at] if self._resume_at else [])], default=None)

    def look(self) -> None:
        """Goes on with the pages, by a slice each, and drops who takes too long."""
        now = monotonic()
        for client in list(self._clients):
            if client.page is not None:
                self._advance(client, client.page)
            elif client.deadline <= now:
                self._drop(client)
        if self._resume_at is not None and self._resume_at <= now and self._listener is not None:
            self._resume_at = None
            self._watch(self._listener)

    def _watch(self, listener: Listener) -> None:
        self._selector.register(listener.fileno(), selectors.EVENT_READ, self._accept)

    def _accept(self, _: int) -> None:
        assert self._listener is not None
        try:
            sock, _address = self._listener.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            logs.event("warning", "metrics paused", why=error.strerror)
            self._selector.unregister(self._listener.fileno())
            self._resume_at = monotonic() + _PAUSE
            return
        sock.setblocking(False)
        if len(self._clients) >= MAX_CLIENTS:
            self._drop(self._clients[0])
        client = _Client(sock, monotonic())
        self._clients.append(client)
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._read(client))

    def _drop(self, client: _Client) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(client.sock)
        client.sock.close()
        self._clients.remove(client)

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
