"""A control server in the loop of a thread, as the master's loop would drive it."""

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec

from prefork.control import Command
from prefork.master.control_server import ControlServer, Reply
from tests.support.waiting import PATIENCE


class Loop:
    """A thread that dispatches the events of a selector, and calls what `run` is given."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self._orders: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self.selector.register(self._woken, selectors.EVENT_READ, self._obey)
        self._running = True
        self._thread = threading.Thread(target=self._dispatch)
        self._thread.start()

    def run(self, function: Callable[[], Any]) -> Any:
        """Calls a function in the loop's thread after all pending events; returns its result."""
        result: Future[Any] = Future()
        self._orders.put((function, result))
        self._wake.send(b"!")
        return result.result(timeout=PATIENCE)

    def stop(self) -> None:
        self._orders.put(None)
        self._wake.send(b"!")
        self._thread.join()
        self.selector.close()
        self._wake.close()
        self._woken.close()

    def _dispatch(self) -> None:
        while self._running:
            self._round(None)

    def _round(self, timeout: float | None) -> bool:
        events = self.selector.select(timeout)
        for key, mask in events:
            key.data(mask)
        return bool(events)

    def _obey(self, mask: int) -> None:
        self._woken.recv(1)
        while self._round(0):
            pass
        if (order := self._orders.get()) is None:
            self._running = False
            return
        function, result = order
        try:
            result.set_result(function())
        except Exception as error:
            result.set_exception(error)


class Served:
    """A control server at `path` that keeps all requests; a test sets `handle`."""

    def __init__(self, path: Path, loop: Loop, permits: Callable[[int], bool] | None) -> None:
        self.path = path
        self.loop = loop
        self.asked: list[Command] = []
        self.replies: SimpleQueue[Reply] = SimpleQueue()
        self.handle: Callable[[Command, Reply], None] = lambda request, reply: reply.ok()
        extra: dict[str, Any] = {"permits": permits} if permits else {}
        self.server: ControlServer = loop.run(lambda: ControlServer(loop.selector, path, **extra))
        loop.run(lambda: self.server.serve(self._handle))

    def _handle(self, request: Command, reply: Reply) -> None:
        self.asked.append(request)
        self.handle(request, reply)

    def keep(self, request: Command, reply: Reply) -> None:
        """A handler that does not answer: the test takes the reply from `replies`."""
        self.replies.put(reply)

    def expire(self, seconds: float) -> None:
        """Expires clients as of `seconds` seconds after the next deadline."""
        self.loop.run(lambda: self.server.run((self.server.due or 0.0) + seconds))

    def due(self) -> float | None:
        due: float | None = self.loop.run(lambda: self.server.due)
        return due

    def deadline(self) -> float:
        """When something is due, in monotonic seconds: there must be something."""
        due = self.due()
        assert due is not None
        return due

    def clients(self) -> int:
        """The number of clients, after all pending events."""
        return int(self.loop.run(lambda: len(self.server.acceptor.clients)))


@contextlib.contextmanager
def serving(path: Path, permits: Callable[[int], bool] | None = None) -> Iterator[Served]:
    loop = Loop()
    try:
        served = Served(path, loop, permits)
        yield served
        loop.run(served.server.close)
    finally:
        loop.stop()


class Raw:
    """A client of the control socket that sends any bytes."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(os.fspath(path))
        self._lines = self.sock.makefile("rb")

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def line(self) -> dict[str, Any] | None:
        """The next message, None at the end of the connection, clean or not."""
        try:
            data = self._lines.readline()
        except ConnectionResetError:
            return None
        return msgspec.json.decode(data, type=dict[str, Any]) if data else None

    def ask(self, data: bytes) -> dict[str, Any] | None:
        self.send(data)
        return self.line()
