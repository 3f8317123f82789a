"""Clients that check every byte, one at a time or as a load from several threads."""

import contextlib
import fcntl
import json
import os
import random
import socket
import struct
import termios
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.pressure import pause
from tests.support.processes import asleep
from tests.support.waiting import PATIENCE, until


class Cut(Exception):
    """The connection ended before its answer was whole."""

    def __init__(self, got: bytes, why: str) -> None:
        super().__init__(f"{why} after {got[:60]!r} ({len(got)} bytes)")
        self.got = got


@dataclass
class Answer:
    """One whole answer with a Content-Length."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def last(self) -> bool:
        """Whether the server says that it ends the connection."""
        return self.headers.get("connection", "").lower() == "close"


class Connection:
    """One HTTP connection; each answer must be whole, with no byte behind it."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection((host, port), PATIENCE)
        self.port: int = self.sock.getsockname()[1]
        """The client's port, which identifies the connection."""
        self.answers = 0
        self.pid: int | None = None
        """The worker that holds it, known after an answer with the pid."""

    def send(self, path: str, body: bytes = b"", *, close: bool = False) -> None:
        end = "Connection: close\r\n" if close else ""
        method = "POST" if body else "GET"
        head = f"{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n{end}\r\n"
        try:
            self.sock.sendall(head.encode() + body)
        except OSError as problem:
            raise Cut(b"", str(problem)) from None

    def receive(self) -> Answer:
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._more(got)
        head, _, body = got.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        length = int(headers["content-length"])
        parts, have = [body], len(body)
        while have < length:
            parts.append(self._more(got))
            have += len(parts[-1])
        body = b"".join(parts)
        assert len(body) == length, f"{len(body) - length} bytes after the answer"
        assert status.startswith("HTTP/1.1 "), status
        self.answers += 1
        return Answer(int(status.split()[1]), headers, body)

    def _more(self, got: bytes) -> bytes:
        try:
            data = self.sock.recv(65536)
        except OSError as problem:
            raise Cut(got, str(problem)) from None
        if not data:
            raise Cut(got, "end")
        return data

    def ask(self, path: str, body: bytes = b"", *, close: bool = False) -> Answer:
        self.send(path, body, close=close)
        return self.receive()

    def arrived(self) -> None:
        """Waits until the server's kernel has taken all that was sent (tcp(7), SIOCOUTQ)."""

        def outstanding() -> int:
            packed = fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0\0\0\0")
            return int(struct.unpack("i", packed)[0])

        # The first look is without a pause: on one machine the kernel takes it at once.
        if outstanding():
            until(lambda: not outstanding(), "the server's kernel takes what was sent")

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ask(
    connection: Connection, rng: random.Random, *, close: bool = False, moves: bool = False
) -> Answer:
    """Sends a random request to `tests.apps.basic` and checks each byte of the answer.

    The first on each connection asks who answers; so does every other that can, and it is always
    the same worker, unless connections move (`workers.handover`).
    """
    kind = rng.randrange(4) if connection.answers or close else 0
    if kind == 0:
        answer = connection.ask("/pid", close=close)
        if not moves:
            _check_holder(connection, int(answer.body))
        assert answer.body == b"%d" % int(answer.body)
    elif kind == 1:
        answer = connection.ask("/", close=close)
        told = json.loads(answer.body)
        assert told.keys() == {"hello", "pid", "slot", "generation"}, told
        if not moves:
            _check_holder(connection, told["pid"])
    elif kind == 2:
        size = rng.choice((1, 1000, 100_000))
        answer = connection.ask(f"/big?n={size}", close=close)
        assert answer.body == b"x" * size
    else:
        body = rng.randbytes(rng.choice((1, 3000, 50_000)))
        answer = connection.ask("/echo", body, close=close)
        assert answer.body == body
    assert answer.status == 200, answer
    return answer


def _check_holder(connection: Connection, pid: int) -> None:
    assert connection.pid in (None, pid), f"{pid} answers on a connection of {connection.pid}"
    connection.pid = pid


@dataclass
class Killed:
    """A worker that a test has killed."""

    pid: int
    held: set[int]
    """The ports of those clients whose connections it held."""


def explained(connection: Connection, killed: Iterable[Killed]) -> bool:
    """Whether a killed worker held the connection, and no answer has named another holder."""
    culprits = [dead.pid for dead in killed if connection.port in dead.held]
    return bool(culprits) and connection.pid in (None, *culprits)


@dataclass
class Load:
    """Clients in threads, each in a loop over its own connections, until `end`."""

    problems: list[str] = field(default_factory=list)
    """What a client raised, such as an AssertionError for a wrong byte: there must be none."""
    answers: int = 0
    eager: bool = False
    """Whether the clients go on without a pause after an answer."""

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self._progress = threading.Condition()
        self._threads: list[threading.Thread] = []

    def run(self, client: Callable[[random.Random], None], count: int) -> None:
        """Starts threads that call `client` again and again until `over` is set."""

        def loop(seed: int) -> None:
            rng = random.Random(seed)
            try:
                while not self.over.is_set():
                    client(rng)
            except BaseException as problem:
                self.problems.append(f"{type(problem).__name__}: {problem}")
                with self._progress:
                    self._progress.notify_all()

        for number in range(count):
            seed = len(self._threads) * 1000 + number
            thread = threading.Thread(target=loop, args=(seed,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def count(self) -> None:
        """Counts one answer, and waits for the pause after it; clients call it."""
        with self._progress:
            self.answers += 1
            self._progress.notify_all()
        if not self.eager:
            self.over.wait(pause(len(self._threads)))

    def wait_answers(self, more: int) -> None:
        """Waits until there are that many more answers than now."""
        with self._progress:
            wanted = self.answers + more
            there = self._progress.wait_for(
                lambda: self.answers >= wanted or self.problems, PATIENCE
            )
        assert there, "the load stands still"
        assert not self.problems, self.problems

    def end(self) -> None:
        """Stops the clients after their current call; there must have been no problem."""
        self.over.set()
        for thread in self._threads:
            thread.join(PATIENCE * 2)
            assert not thread.is_alive(), "a client hangs"
        assert not self.problems, self.problems


@contextlib.contextmanager
def running_load() -> Iterator[Load]:
    """A load that runs until the end of the block."""
    made = Load()
    try:
        yield made
    finally:
        made.over.set()
    made.end()


class Gate:
    """A FIFO that holds a request in the application (`tests.apps.supervised`, /hold)."""

    def __init__(self, path: Path) -> None:
        self.target = f"/hold?fifo={path}"
        self.path = path
        self._fd = -1
        os.mkfifo(path)

    def arrived(self) -> "Gate":
        """Waits until the request is in the application, where it stays until `open`."""

        def reader() -> bool:
            with contextlib.suppress(OSError):  # ENXIO: there is no reader yet, fifo(7)
                self._fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            return self._fd >= 0

        until(reader, f"somebody waits at {self.path}")
        return self

    def open(self) -> None:
        """Lets the request continue."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_OTHERS = 32
"""Connections of other workers that are open meanwhile: one may win again and again, and there are
tests with few descriptors."""


class Kept:
    """Kept connections, each known by the worker that holds it."""

    def __init__(self, port: int, holder: int | None = None, count: int = 4) -> None:
        """`count` connections that one worker holds, which is `holder` if that is given."""
        self._others: list[Connection] = []
        self.mine: list[Connection] = []
        while len(self.mine) < count:
            connection = Connection(port)
            pid = int(connection.ask("/pid").body)
            holder = holder or pid
            (self.mine if pid == holder else self._others).append(connection)
            if len(self._others) > _OTHERS:
                self._others.pop(0).close()
        assert holder is not None
        self.holder: int = holder

    def rest(self) -> None:
        """Waits until the holder rests, so that the next request is its own.

        A worker that loses its CPU in the middle of a call looks busy, and what comes meanwhile is
        its sibling's.
        """
        until(lambda: asleep(self.holder), "it rests")

    def occupy(self, connection: Connection, gate: Gate) -> None:
        """Sends the holder into a gate, with a request on one of them."""
        self.rest()
        connection.send(gate.target)
        gate.arrived()

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in (*self.mine, *self._others):
            connection.close()
