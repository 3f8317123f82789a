"""The master's side of the control socket: many clients, and none that the master waits for.

Every read and write is non-blocking.  What a client may cost is bounded: one request at a time,
its bytes, the bytes of answers that it does not take, the time that it lets us wait, and the
number of clients.  Past a limit it is dropped, and only it.
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
)
from prefork.master.client_acceptor import ClientAcceptor
from prefork.master.periodic import Periodic
from prefork.master.snapshot import ControlConnectionSnapshot, ControlSnapshot

IDLE_LIMIT = 10.0
"""Seconds in which a client has to send its request, and then to take what is sent to it."""

MAX_CLIENTS = 32

_BACKLOG = 128

Handler = Callable[[Command, "Reply"], None]


class Reply:
    """The way back to the client of one request, now or later.

    There is one answer: after it, and after a client that hung up, everything here does nothing.
    """

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection
        self._answered = False

    def progress(self, text: str) -> None:
        """Something to read while the answer takes its time."""
        if not self._answered:
            self._connection.send({"progress": text})

    def ok(self, **fields: Any) -> None:
        """It is done; the fields are what msgspec can encode."""
        self._answer({"ok": True, **fields})

    def fail(self, error: str) -> None:
        """It is not, and why."""
        self._answer({"ok": False, "error": error})

    def ok_until_exit(self, **fields: Any) -> None:
        """It began; the client then waits for the end of the connection, which is the server's."""
        self._answer({"ok": True, **fields}, last=True)

    def fileno(self) -> int:
        """The connection's descriptor, by which the next master knows it; -1: it hung up."""
        return self._connection.fileno()

    def _answer(self, message: Mapping[str, Any], last: bool = False) -> None:
        if not self._answered:
            self._answered = True
            self._connection.answer(message, last)


class ControlServer(Periodic):
    """Listens on a path, and gives each request to the handler of `serve` with its `Reply`.

    The data of every key that it registers with the selector is to be called with the event's
    mask.  A client is refused unless `permits` its uid: root's and the master's own by default.

    Raises ControlError where the path cannot be had; one on which somebody listens never is.
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
        self._path = os.fspath(path)
        self._sock, self._inode = _adopt(adopted) if adopted else _listen(self._path)
        self._adopted = adopted.connections if adopted else ()

    def serve(self, handle: Handler) -> None:
        """From now on, clients are accepted and their requests given to `handle`; call it once."""
        self.handle = handle
        self.acceptor.listen(self._sock)
        for state in self._adopted:
            self.acceptor.clients.append(_Connection(self, _adopt_socket(state.fd), state))
        self._adopted = ()

    def descriptors(self) -> list[int]:
        """All that are open here, for a forked child to close."""
        return [self._sock.fileno(), *(each.fileno() for each in self.acceptor.clients)]

    def hand_over(self) -> ControlSnapshot:
        """The socket and all clients, for the next master."""
        return ControlSnapshot(
            path=self._path,
            fd=self._sock.fileno(),
            inode=self._inode,
            connections=tuple(each.hand_over() for each in self.acceptor.clients),
        )

    def reply(self, fd: int) -> Reply | None:
        """The way back to a client that waits since the master before, if it is still there."""
        found = (each for each in self.acceptor.clients if each.fileno() == fd)
        return next((Reply(connection) for connection in found), None)

    @property
    def due(self) -> float | None:
        return self.acceptor.due

    def run(self, now: float) -> None:
        """Drops the clients that let us wait too long."""
        self.acceptor.run(now)

    def overslept(self, seconds: float) -> None:
        self.acceptor.overslept(seconds)

    def close(self) -> None:
        """Removes the socket's file if it is still ours, then drops every client; once."""
        if self._sock.fileno() < 0:
            return
        self.acceptor.listen(None)
        try:
            if self._inode:
                unix_socket.unlink(self._path, self._inode)
        except OSError as error:
            logs.event("warning", "control socket not removed", path=self._path, reason=str(error))
        self._sock.close()
        for connection in list(self.acceptor.clients):
            connection.close()

    def _connected(self, sock: socket.socket) -> None:
        uid = unix_socket.credentials(sock).uid
        if not self._permits(uid):
            _refuse(sock, f"user {uid} may not control this server")
        elif not self.acceptor.make_room():
            _refuse(sock, f"{MAX_CLIENTS} other clients wait for their answers; try again")
        else:
            self.acceptor.clients.append(_Connection(self, sock))

    def _paused(self, reason: str | None) -> None:
        logs.event("warning", "control socket paused", reason=reason)


class _Connection:
    """One client.  We wait for its request or for its taking what we send, until a deadline; in
    between it waits for us, and nothing is read."""

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

    def hand_over(self) -> ControlConnectionSnapshot:
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
        """Ends the request; after the last answer the client stays one that waits for us."""
        self._busy = last
        self.send(message)

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends what the client takes at once, and the rest when it is ready for it."""
        self._output += encode(message)
        self._flush()
        if len(self._output) > ANSWER_LIMIT:
            self.close()

    def close(self) -> None:
        """Drops the client; what is done to it later fails as if it had hung up."""
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
            self._dismiss("one request at a time; wait for the answer before the next")
        elif len(line) > REQUEST_LIMIT:
            self._dismiss(f"a request has at most {REQUEST_LIMIT} bytes")
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
            # A command must not be able to end the server that it asks.
            logs.event("error", "control command failed", traceback=logs.traceback_of(error))
            reply.fail(f"internal error, see the server's log: {error!r}")

    def _dismiss(self, error: str) -> None:
        self._closing = True
        self.send({"ok": False, "error": error})

    def _flush(self) -> None:
        try:
            del self._output[: self._sock.send(self._output)]
        except BlockingIOError:
            pass
        except OSError:  # it hung up
            return self.close()
        if self._closing and not self._output:
            return self.close()
        self._watch()

    def _watch(self) -> None:
        """Waits for what is next; the time for it does not begin anew with every byte."""
        if self._output:
            self._want(selectors.EVENT_WRITE)
        else:
            self._want(0 if self._busy else selectors.EVENT_READ)

    def _want(self, events: int) -> None:
        if events == self._events:
            return
        selector = self._server.selector
        if not events:
            # A client that hung up would be readable for ever; it shows when we answer it.
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
        unix_socket.is_left_over(path)  # or a lock file is made beside what is not ours
        with unix_socket.locked(path):
            inode = unix_socket.bind(sock, path)
            sock.listen(_BACKLOG)
    except (unix_socket.Refusal, OSError) as error:
        sock.close()
        why = (isinstance(error, OSError) and error.strerror) or error
        raise ControlError(
            f"cannot open the control socket {path}: {why} (its place follows from control.path"
            " or server.name)"
        ) from None
    return sock, inode


def _adopt(state: ControlSnapshot) -> tuple[socket.socket, unix_socket.Inode | None]:
    return _adopt_socket(state.fd), state.inode


def _adopt_socket(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def _refuse(sock: socket.socket, error: str) -> None:
    """The first bytes of a connection always fit its buffer."""
    with sock:
        try:
            sock.send(encode({"ok": False, "error": error}))
        except OSError:  # it hung up
            return
