"""A load on one path that counts failures, for tests that break something meanwhile.

*Failed* is a connection that was made and did not get its whole right answer.  Refused, or never
connected, is not failed; but while a server is to serve on, nobody may be refused either.
"""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Collection

from tests.support.pressure import pause
from tests.support.waiting import PATIENCE

BODY = b"x" * 3000

Connect = Callable[[], socket.socket]


class Wrong(Exception):
    """The answer is not whole, or not right."""


def tcp(port: int, host: str = "127.0.0.1") -> Connect:
    return lambda: socket.create_connection((host, port), PATIENCE)


def unix(path: str) -> Connect:
    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return sock

    return connect


class PathLoad:
    """Client threads, until `end` is called or the server takes no more connections."""

    def __init__(
        self,
        connect: Connect,
        *,
        one_shot: int,
        kept: int = 0,
        path: str = "/big?n=3000",
        method: str = "GET",
        right: Collection[bytes] = (BODY,),
        begin: Callable[[], None] = lambda: None,
        eager: bool = False,
    ) -> None:
        """`right`: the bodies that `path` may be answered with, looked at again for each answer.

        `begin` is called first in each thread.  `eager`: without a pause after an answer, so that
        requests wait in the queue at any moment.
        """
        self._pause = 0.0 if eager else pause(one_shot + kept)
        self._begin = begin
        self.right = right
        self.bodies: Counter[bytes] = Counter()
        """How often each of the right bodies came."""
        self.answers = 0
        self.failures: Counter[str] = Counter()
        self.refused = 0
        """Clients that ended because there was no listener."""
        self._head = f"{method} {path} HTTP/1.1\r\nHost: test\r\n".encode()
        if method == "POST":
            self._head += b"Content-Length: 0\r\n"
        self._connect = connect
        self._over = threading.Event()
        self._some = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(converse,), daemon=True)
            for converse, number in ((self._ask_once, one_shot), (self._keep_asking, kept))
            for _ in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def wait_answers(self, number: int) -> None:
        """Waits until that many more answers have come."""
        with self._some:
            goal = self.answers + number
            assert self._some.wait_for(lambda: self.answers >= goal, PATIENCE), (
                f"{self.answers} answers, {dict(self.failures)}"
            )

    def end(self) -> None:
        """Ends the clients of a server that never stopped serving: nothing may have failed."""
        self.end_with_losses(0)

    def end_with_losses(self, connections: int) -> None:
        """Ends the clients after a worker was killed that held at most `connections` of theirs."""
        self._over.set()
        self.join()
        assert self.failures.total() <= connections, self.failures
        assert not self.refused, f"{self.refused} were refused"

    def join(self) -> None:
        """Waits until every client has stopped by itself."""
        for thread in self._threads:
            thread.join(PATIENCE * 2)
            assert not thread.is_alive()

    def _run(self, converse: Callable[[socket.socket], None]) -> None:
        self._begin()
        while not self._over.is_set():
            try:
                sock = self._connect()
            except OSError:
                with self._some:
                    self.refused += 1
                return  # there is no listener any more
            with sock:
                try:
                    converse(sock)
                except (OSError, Wrong) as problem:
                    with self._some:
                        self.failures[repr(problem)] += 1

    def _ask_once(self, sock: socket.socket) -> None:
        sock.sendall(self._head + b"Connection: close\r\n\r\n")
        self._receive(sock)
        if rest := sock.recv(1):
            raise Wrong(f"{rest!r} after the answer")

    def _keep_asking(self, sock: socket.socket) -> None:
        while not self._over.is_set():
            sock.sendall(self._head + b"\r\n")
            if b"connection: close" in self._receive(sock):
                return

    def _receive(self, sock: socket.socket) -> bytes:
        """Reads one answer, which must be whole and right; returns its head in lower case."""
        head, end, body = b"", b"", b""
        while not end:
            head, end, body = self._more(sock, head).partition(b"\r\n\r\n")
        lowered = head.lower()
        length = int(lowered.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body = self._more(sock, body)
        if not head.startswith(b"HTTP/1.1 200 ") or body not in self.right:
            raise Wrong(f"{head[:60]!r}, {len(body)} bytes: {body[:60]!r}")
        with self._some:
            self.answers += 1
            self.bodies[body] += 1
            self._some.notify_all()
        self._over.wait(self._pause)
        return lowered

    def _more(self, sock: socket.socket, so_far: bytes) -> bytes:
        data = sock.recv(65536)
        if not data:
            raise Wrong(f"the end after {len(so_far)} bytes: {so_far[:60]!r}")
        return so_far + data
