"""One connection of the client, with each system call on it.

All calls go through `traced`, so that a user can see them.  A failure becomes a ClientError with
the step that failed.
"""

import contextlib
import math
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

from prefork.client.trace import Trace, traced

RECEIVE = 64 * 1024
"""The most bytes of one recv()."""

T = TypeVar("T")


class ClientError(Exception):
    """A step failed; the text is one line: the step, then the reason."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class Disconnected(ClientError):
    """The connection was reset, or closed too early."""


class Deadline:
    """The end of all waiting; 0 seconds: no limit."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds if seconds else math.inf

    def remaining(self, most: float = math.inf) -> float | None:
        """Seconds left, at most `most`; None for no limit; raises TimeoutError after the end."""
        left = min(self._at - time.monotonic(), most)
        if left <= 0:
            raise TimeoutError
        return None if left == math.inf else left


class ClientConnection:
    """A stream socket from socket() to close()."""

    def __init__(self, family: int, trace: Trace | None, deadline: Deadline) -> None:
        self.deadline = deadline
        self.plain = True
        self._trace = trace
        arguments = (socket.AddressFamily(family).name, "SOCK_STREAM")
        self._sock = traced(
            trace, "socket", arguments, lambda: socket.socket(family, socket.SOCK_STREAM)
        )
        self._fd = self._sock.fileno()
        self._open = True
        self._ended = False

    def connect(self, address: object, shown: str, timeout: float) -> None:
        """Raises OSError, since the next address may work; 0 seconds: only the deadline."""
        self._sock.settimeout(self.deadline.remaining(timeout or math.inf))
        self._traced("connect", (shown,), lambda: self._sock.connect(address))  # type: ignore[arg-type]

    def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """The TLS handshake (RFC 8446); raises ClientError."""
        self.plain = False

        def handshake() -> None:
            wrapped = context.wrap_socket(
                self._sock,
                server_hostname=name,
                do_handshake_on_connect=False,
                # An end without close_notify may be a truncation by an attacker.
                suppress_ragged_eofs=False,
            )
            self._sock = wrapped
            wrapped.do_handshake()

        self._do("TLS handshake", "do_handshake", (name,), handshake)

    def sendall(self, data: bytes) -> None:
        self._do("send", "sendall", (data,), lambda: self._sock.sendall(data))

    def send(self, data: memoryview) -> int:
        """Sends as many bytes as possible without waiting; returns their number."""
        return self._do("send", "send", (data,), lambda: self._sock.send(data), wait=False) or 0

    def sendfile(self, fd: int, offset: int, count: int) -> int | None:
        """Sends as much of a file as possible without waiting, sendfile(2).

        Returns the number of bytes; 0 at the end of the file, None if it would have to wait.
        """
        return self._do(
            "send",
            "sendfile",
            (fd, offset, count),
            lambda: os.sendfile(self._fd, fd, offset, count),
            wait=False,
        )

    def recv(self, *, wait: bool = True) -> bytes | None:
        """The bytes received, b"" at the end; None if there are none and `wait` is false."""
        return self._do("receive", "recv", (RECEIVE,), lambda: self._sock.recv(RECEIVE), wait=wait)

    def wait(self, *, write: bool, source: int | None) -> tuple[bool, bool, bool]:
        """Waits until the socket is readable, with `write` until it is writable, or `source`
        readable.

        Returns whether these three hold.
        """
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True, False, False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN | (select.POLLOUT if write else 0))
        if source is not None:
            poll.register(source, select.POLLIN)

        def ready() -> _Events:
            left = self.deadline.remaining()
            found = poll.poll(None if left is None else math.ceil(left * 1000))
            if not found:
                raise TimeoutError
            return _Events(found)

        events = self._do("send", "poll", ("POLLIN|POLLOUT" if write else "POLLIN",), ready)
        found = dict(events or [])
        mask = found.get(self._fd, 0)
        return bool(mask & ~select.POLLOUT), bool(mask & select.POLLOUT), source in found

    def idle(self) -> bool:
        """Whether there is nothing to read: neither the end nor unexpected bytes."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not self._traced("poll", ("POLLIN", "0 ms"), lambda: _Events(poll.poll(0)))

    def shutdown(self) -> None:
        """Ends the sending direction: the server reads the end (shutdown(2), SHUT_WR)."""
        self._ended = True
        self._do("shutdown", "shutdown", ("SHUT_WR",), lambda: self._sock.shutdown(socket.SHUT_WR))

    def close(self) -> None:
        """Ends the sending direction, unless that was done, and closes; harmless a second time."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError, ValueError):
            # Without waiting for the close_notify of the server (RFC 8446 section 6.1).
            self._sock.settimeout(0)
            if isinstance(self._sock, ssl.SSLSocket):
                self._traced("unwrap", (), self._sock.unwrap)
        if not self._ended:
            # Fails if the server has reset the connection, or if there never was one.
            with contextlib.suppress(OSError):
                self._traced("shutdown", ("SHUT_WR",), lambda: self._sock.shutdown(socket.SHUT_WR))
        self._traced("close", (), self._sock.close)

    def _traced(self, name: str, arguments: tuple[object, ...], function: Callable[[], T]) -> T:
        return traced(self._trace, name, (self._fd, *arguments), function)

    def _do(
        self,
        step: str,
        name: str,
        arguments: tuple[object, ...],
        function: Callable[[], T],
        *,
        wait: bool = True,
    ) -> T | None:
        """Makes one call; returns None if it would have to wait and `wait` is false."""
        try:
            self._sock.settimeout(self.deadline.remaining() if wait else 0)
            return self._traced(name, arguments, function)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except (ConnectionError, ssl.SSLZeroReturnError) as error:
            raise Disconnected(step, explain(error)) from error
        except TimeoutError as error:
            limit = f" after {self.deadline.seconds:g} s" if error.errno is None else ""
            raise ClientError(step, explain(error) + limit) from error
        except OSError as error:
            kind = Disconnected if _is_cut(error) else ClientError
            raise kind(step, explain(error)) from error


class _Events(list[tuple[int, int]]):
    """The events of poll(), as the trace shows them."""

    def __str__(self) -> str:
        names = ("POLLIN", "POLLOUT", "POLLERR", "POLLHUP")
        shown = (
            f"{fd}:" + "|".join(name for name in names if mask & getattr(select, name))
            for fd, mask in self
        )
        return " ".join(shown) or "0"


def dial(
    host: str,
    port: int,
    *,
    timeout: float = 0,
    deadline: Deadline | None = None,
    trace: Trace | None = None,
) -> ClientConnection:
    """Connects to the first address of a host that answers; each is tried for `timeout` seconds.

    The name lookup has the time limits of the resolver (resolv.conf(5)).
    Raises ClientError with the reasons of all addresses.
    """
    deadline = deadline or Deadline(0)
    try:
        found = traced(trace, "getaddrinfo", (host, port), lambda: _look_up(host, port))
    except (OSError, UnicodeError) as error:
        raise ClientError("look up", f"{host}: {_no_name(error)}") from error
    failures = []
    for family, shown, address in found:
        try:
            return _connected(family, address, shown, timeout, deadline, trace)
        except OSError as error:
            failures.append(f"{shown}: {explain(error)}")
    raise ClientError("connect", "; ".join(failures))


def dial_unix(
    path: str,
    *,
    timeout: float = 0,
    deadline: Deadline | None = None,
    trace: Trace | None = None,
) -> ClientConnection:
    """Connects to a Unix socket; `@name` is an abstract one (unix(7)).  Raises ClientError."""
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        return _connected(socket.AF_UNIX, address, path, timeout, deadline or Deadline(0), trace)
    except OSError as error:
        raise ClientError("connect", f"{path}: {explain(error)}") from error


def _connected(
    family: int,
    address: object,
    shown: str,
    timeout: float,
    deadline: Deadline,
    trace: Trace | None,
) -> ClientConnection:
    connection = ClientConnection(family, trace, deadline)
    try:
        connection.connect(address, shown, timeout)
    except BaseException:
        connection.close()
        raise
    return connection


class _Addresses(list[tuple[int, str, object]]):
    """The addresses of a name, as the trace shows them."""

    def __str__(self) -> str:
        return ", ".join(shown for _, shown, _ in self)


def _look_up(host: str, port: int) -> _Addresses:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return _Addresses((family, _shown(address), address) for family, _, _, _, address in found)


def _shown(address: tuple[object, ...]) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _no_name(error: Exception) -> str:
    if isinstance(error, socket.gaierror) and error.errno in (
        socket.EAI_NONAME,
        socket.EAI_NODATA,
    ):
        return "name not found"
    return explain(error)


def _is_cut(error: Exception) -> bool:
    """TCP has ended before TLS: what has come may be a part."""
    # By OpenSSL 3 and CPython 3.11.2, of Debian 12, it is an SSLError like others.
    return isinstance(error, ssl.SSLEOFError) or (
        isinstance(error, ssl.SSLError) and error.reason == "UNEXPECTED_EOF_WHILE_READING"
    )


def explain(error: Exception) -> str:
    """The reason of a failed call, as text."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    if _is_cut(error):
        return "closed early, without close_notify of TLS"
    if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return "the other side does not use TLS"
    if isinstance(error, BrokenPipeError):
        return "closed early by the other side"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, TimeoutError) and error.errno is None:
        return "timed out"
    return getattr(error, "strerror", None) or str(error)
