"""Servers that misbehave, in threads of the test process.

A server is a list of functions, one for each connection in turn; each gets the accepted socket.
What one of them raises, the test that used it raises at its end.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httptools

from tests.support.sockets import read_head

PATIENCE = 30.0
"""Seconds after which a test fails instead of hanging."""

Handler = Callable[[socket.socket], None]

OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """A listening socket; `port` and `url` to connect to, `accepted` connections so far."""

    def __init__(self, handlers: tuple[Handler, ...], listener: socket.socket) -> None:
        self.accepted = 0
        self.errors: list[BaseException] = []
        self.port: int = listener.getsockname()[1] if listener.family != socket.AF_UNIX else 0
        self.url = f"http://127.0.0.1:{self.port}/"
        self._listener = listener
        self._handlers = handlers
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        for handler in self._handlers:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            sock.settimeout(PATIENCE)
            thread = threading.Thread(target=self._serve, args=(handler, sock), daemon=True)
            self._threads.append(thread)
            thread.start()
        # A connection more than expected is refused, so that the client does not hang.
        self._listener.close()

    def _serve(self, handler: Handler, sock: socket.socket) -> None:
        with sock:
            try:
                handler(sock)
            except BaseException as error:
                self.errors.append(error)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            # close() would not wake the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self._listener.close()


@contextlib.contextmanager
def serving(*handlers: Handler, path: Path | None = None) -> Iterator[Server]:
    """A server for the block, on a port of the kernel's choice or a Unix socket."""
    if path is None:
        listener = socket.create_server(("127.0.0.1", 0))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
    server = Server(handlers, listener)
    try:
        yield server
    finally:
        server.stop()
    for error in server.errors:
        raise error


def expect_end(sock: socket.socket) -> None:
    """The client must close: it sends no more bytes, and no reset."""
    assert sock.recv(1) == b""


def reset(sock: socket.socket) -> None:
    """Closes with a RST instead of a FIN (socket(7), SO_LINGER)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def answers(*pieces: bytes, ends: bool = False) -> Handler:
    """Reads a request, sends these bytes, then closes or waits for the client to."""

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        for piece in pieces:
            sock.sendall(piece)
        if not ends:
            expect_end(sock)

    return handle


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole and proper answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Recorder:
    """A proper server for one connection: notes each request, answers "ok"."""

    def __init__(self) -> None:
        self.heads: list[dict[str, str]] = []
        self.lines: list[str] = []
        self.bodies: list[bytes] = []
        self._complete = 0
        self._headers: dict[str, str] = {}
        self._url = b""

    def __call__(self, sock: socket.socket) -> None:
        answered = self._complete
        parser = httptools.HttpRequestParser(self)
        while data := sock.recv(65536):
            parser.feed_data(data)
            while answered < self._complete:
                self.lines[-1] = parser.get_method().decode() + self.lines[-1]
                sock.sendall(answer(b"ok"))
                answered += 1

    def on_message_begin(self) -> None:
        self._headers, self._url = {}, b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self.heads.append(self._headers)
        self.lines.append(f" {self._url.decode()}")
        self.bodies.append(b"")

    def on_body(self, body: bytes) -> None:
        self.bodies[-1] += body

    def on_message_complete(self) -> None:
        self._complete += 1
