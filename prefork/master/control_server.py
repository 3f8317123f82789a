"""The master's side of the control socket.  The master never waits for a client.

Every read and write is non-blocking.  The costs of a client are bounded: it has one request at a
time, of limited size; the bytes of answers that it does not read are limited, and so are the time
for which it lets the master wait, and the number of clients.  A client that exceeds a limit is
closed.
"""

import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefork import logs, unix_socket
from prefork.control import (
    ANSWER_LIMIT,
    REQUEST_LIMIT,
    Command,
    ControlError,
    decode_request,
    encode,
    unlink_default_path,
)
from prefork.master.client_acceptor import ClientAcceptor
from prefork.master.periodic import Periodic
from prefork.master.snapshot import ControlConnectionSnapshot, ControlSnapshot

IDLE_LIMIT = 10.0
"""Seconds in which a client has to send its request, and then to read its answer."""

MAX_CLIENTS = 32

_BACKLOG = 128

Handler = Callable[[Command, "Reply"], None]


class Reply:
    """Sends the answer to one request, now or later.

    There is one answer.  After it, and after the client has closed, all methods do nothing.
    """

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection
        self._answered = False

    def progress(self, text: str) -> None:
        """Sends a text before the answer."""
        if not self._answered:
            self._connection.send({"progress": text})

    def ok(self, **fields: Any) -> None:
        """Answers that the command succeeded; the fields are what msgspec can encode."""
        self._answer({"ok": True, **fields})

    def fail(self, error: str, **fields: Any) -> None:
        """Answers that the command failed, and why; the fields are as those of `ok`."""
        self._answer({"ok": False, "error": error, **fields})

    def ok_until_exit(self, **fields: Any) -> None:
        """Answers that a stop has begun; the connection stays open until the server ends."""
        self._answer({"ok": True, **fields}, last=True)

    def fileno(self) -> int:
        """The descriptor of the connection, by which the next master finds it; -1: it is closed."""
        return self._connection.fileno()

    def _answer(self, message: Mapping[str, Any], last: bool = False) -> None:
        if not self._answered:
            self._answered = True
            self._connection.answer(message, last)


class ControlServer(Periodic):
    """Listens on a path, and calls the handler of `serve` with each request and its `Reply`.

    The loop has to call the data of each key in the selector with the mask of the event.  A client
    is refused unless `permits` accepts its uid; by default these are root and the user of the
    master.

    Raises ControlError if the path cannot be bound, also if another process listens there.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        path: Path,
        *,
        permits: Callable[[int], bool] = lambda uid: uid in (0, os.geteuid()),
        adopted: ControlSnapshot | None = None,
    ) -> None:
        """`adopted`: the socket and the clients of the master before, instead of new ones."""
        self.selector = selector
        self.handle: Handler
        self.acceptor: ClientAcceptor[_Connection] = ClientAcceptor(
            selector, MAX_CLIENTS, self._connected, self._paused
        )
        self._permits = permits
        self.path = os.fspath(path)
        self._sock, self.inode = _reopen(adopted) if adopted else _listen(self.path)
        self._adopted = adopted.connections if adopted else ()

    def serve(self, handle: Handler) -> None:
        """From now on, clients are accepted and `handle` is called with their requests; call it
        once.
        """
        self.handle = handle
        self.acceptor.listen(self._sock)
        for state in self._adopted:
            self.acceptor.clients.append(_Connection(self, _socket_of(state.fd), state))
        self._adopted = ()

    def descriptors(self) -> list[int]:
        """All that are open here, for a forked child to close."""
        return [self._sock.fileno(), *(each.fileno() for each in self.acceptor.clients)]

    def snapshot(self) -> ControlSnapshot:
        """The socket and all clients, for the next master."""
        return ControlSnapshot(
            path=self.path,
            fd=self._sock.fileno(),
            inode=self.inode,
            connections=tuple(each.snapshot() for each in self.acceptor.clients),
        )

    def reply(self, fd: int) -> Reply | None:
        """The reply to a client of the master before, if it is still connected."""
        found = (each for each in self.acceptor.clients if each.fileno() == fd)
        return next((Reply(connection) for connection in found), None)

    def renew(self) -> None:
        """Listens at the path anew, since the file was removed or replaced; clients stay.

        Raises ControlError, and then nothing has changed.
        """
        sock, self.inode = _listen(self.path)
        self.acceptor.listen(sock)
        self._sock.close()
        self._sock = sock

    @property
    def due(self) -> float | None:
        return self.acceptor.due

    def run(self, now: float) -> None:
        """Closes the clients whose deadline has passed."""
        self.acceptor.run(now)

    def overslept(self, seconds: float) -> None:
        self.acceptor.overslept(seconds)

    def close(self) -> None:
        """Removes the socket file if it is still ours, then closes all clients; once."""
        if self._sock.fileno() < 0:
            return
        self.acceptor.listen(None)
        unlink_default_path(Path(self.path))
        try:
            if self.inode:
                unix_socket.unlink(self.path, self.inode)
        except OSError as error:
            logs.event("warning", "control socket not removed", path=self.path, reason=str(error))
        self._sock.close()
        for connection in list(self.acceptor.clients):
            connection.close()

    def _connected(self, sock: socket.socket) -> None:
        uid = unix_socket.credentials(sock).uid
        if not self._permits(uid):
            _reject(sock, f"user {uid} may not control this server; use its user, or root")
        elif not self.acceptor.make_room():
            _reject(sock, f"{MAX_CLIENTS} other clients wait for their answers; try again later")
        else:
            self.acceptor.clients.append(_Connection(self, sock))

    def _paused(self, reason: str | None) -> None:
        logs.event("warning", "control socket paused", reason=reason)


class _Connection:
    """One client.

    The master waits, until a deadline, for its request or until it has read an answer.  In between
    the client waits for the master, and nothing is read from it.
    """

    def __init__(
        self,
        server: ControlServer,
        sock: socket.socket,
        state: ControlConnectionSnapshot | None = None,
    ) -> None:
        self.deadline: float | None = None
        self._server = server
        self._sock = sock
        self._input = state.input if state else b""
        self._output = bytearray(state.output if state else b"")
        self._busy = state.busy if state else False
        self._closing = state.closing if state else False
        self._events = 0
        self._watch()

    def snapshot(self) -> ControlConnectionSnapshot:
        return ControlConnectionSnapshot(
            fd=self.fileno(),
            input=self._input,
            output=bytes(self._output),
            busy=self._busy,
            closing=self._closing,
        )

    def fileno(self) -> int:
        return self._sock.fileno()

    def answer(self, message: Mapping[str, Any], last: bool) -> None:
        """Ends the request; after the last answer nothing more is read from the client."""
        self._busy = last
        self.send(message)

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message, at once or when the client reads."""
        self._output += encode(message)
        self._flush()
        if len(self._output) > ANSWER_LIMIT:
            self.close()

    def close(self) -> None:
        """Closes the connection; later calls fail as if the client had closed it."""
        self._want(0)
        self._sock.close()
        if self in self._server.acceptor.clients:
            self._server.acceptor.clients.remove(self)

    def _on_event(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush()
        else:
            self._read()

    def _read(self) -> None:
        try:
            data = self._sock.recv(REQUEST_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            return self.close()
        line, end, rest = (self._input + data).partition(b"\n")
        if rest:
            self._refuse("one request at a time; wait for the answer before the next request")
        elif len(line) > REQUEST_LIMIT:
            self._refuse(f"a request has at most {REQUEST_LIMIT} bytes")
        elif end:
            self._input = b""
            self._serve(line)
        else:
            self._input = line

    def _serve(self, line: bytes) -> None:
        self._busy = True
        self._watch()
        reply = Reply(self)
        try:
            self._server.handle(decode_request(line), reply)
        except ControlError as error:
            reply.fail(str(error))
        except Exception as error:
            # A command must not be able to end the server.
            logs.event("error", "control command failed", traceback=logs.traceback_of(error))
            reply.fail(f"internal error, see the log of the server: {error!r}")

    def _refuse(self, error: str) -> None:
        self._closing = True
        self.send({"ok": False, "error": error})

    def _flush(self) -> None:
        try:
            del self._output[: self._sock.send(self._output)]
        except BlockingIOError:
            pass
        except OSError:  # the client has closed
            return self.close()
        if self._closing and not self._output:
            return self.close()
        self._watch()

    def _watch(self) -> None:
        """Waits for the next event; single bytes do not put the deadline off."""
        if self._output:
            self._want(selectors.EVENT_WRITE)
        else:
            self._want(0 if self._busy else selectors.EVENT_READ)

    def _want(self, events: int) -> None:
        if events == self._events:
            return
        selector = self._server.selector
        if not events:
            # A client that has closed would be readable for ever; the answer finds that out.
            selector.unregister(self._sock)
        elif not self._events:
            selector.register(self._sock, events, self._on_event)
        else:
            selector.modify(self._sock, events, self._on_event)
        self._events = events
        self.deadline = time.monotonic() + IDLE_LIMIT if events else None


def _listen(path: str) -> tuple[socket.socket, unix_socket.Inode | None]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        unix_socket.exists(path)  # first, so that no lock file is created beside a foreign file
        with unix_socket.locked(path):
            inode = unix_socket.bind(sock, path)
            sock.listen(_BACKLOG)
    except (unix_socket.Refusal, OSError) as error:
        sock.close()
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ControlError(
            f"cannot open the control socket {path}: {reason} (the path follows from control.path"
            " or server.name)"
        ) from None
    return sock, inode


def _reopen(state: ControlSnapshot) -> tuple[socket.socket, unix_socket.Inode | None]:
    return _socket_of(state.fd), state.inode


def _socket_of(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def _reject(sock: socket.socket, error: str) -> None:
    """Sends an error and closes; the first bytes of a connection always fit its buffer."""
    with sock:
        try:
            sock.send(encode({"ok": False, "error": error}))
        except OSError:  # the client has closed
            return
