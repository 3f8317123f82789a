"""Clients that check every byte, for tests that break things meanwhile.

*Failed* is a connection that was made and did not get its whole right answer.  Refused, or never
connected, is not failed.
"""

import socket
import threading
from collections import Counter
from collections.abc import Callable

from tests.system.server import PATIENCE, read_all

ONE_SHOT = b"GET /big?n=3000 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
KEPT = b"GET /big?n=3000 HTTP/1.1\r\nHost: test\r\n\r\n"
BODY = b"x" * 3000

Connect = Callable[[], socket.socket]


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


class Load:
    """Client threads, until `end` is called or the server takes no more connections."""

    def __init__(
        self,
        connect: Connect,
        *,
        one_shot: int,
        kept: int = 0,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        """`begin` is called first in each thread."""
        self._begin = begin
        self.answers = 0
        self.failures: Counter[str] = Counter()
        self._connect = connect
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._some = threading.Condition(self._lock)
        self._threads = [
            threading.Thread(target=target, daemon=True)
            for target, number in ((self._one_shot, one_shot), (self._keep, kept))
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
        self._over.set()
        self.join()

    def join(self) -> None:
        """Waits until every client has stopped by itself."""
        for thread in self._threads:
            thread.join(PATIENCE * 2)
            assert not thread.is_alive()

    def _answered(self) -> None:
        with self._some:
            self.answers += 1
            self._some.notify_all()

    def _failed(self, why: str) -> None:
        with self._lock:
            self.failures[why] += 1

    def _one_shot(self) -> None:
        self._begin()
        while not self._over.is_set():
            try:
                sock = self._connect()
            except OSError:
                return  # nobody listens any more
            with sock:
                try:
                    sock.sendall(ONE_SHOT)
                    answer = read_all(sock)
                except OSError as error:
                    self._failed(repr(error))
                    continue
                head, _, body = answer.partition(b"\r\n\r\n")
                if head.startswith(b"HTTP/1.1 200 ") and body == BODY:
                    self._answered()
                else:
                    self._failed(f"{len(answer)} bytes: {answer[:60]!r}")

    def _keep(self) -> None:
        self._begin()
        while not self._over.is_set():
            try:
                sock = self._connect()
            except OSError:
                return
            with sock:
                try:
                    self._converse(sock)
                except OSError as error:
                    self._failed(f"kept: {error!r}")

    def _converse(self, sock: socket.socket) -> None:
        while not self._over.is_set():
            sock.sendall(KEPT)
            answer = b""
            while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < len(BODY):
                data = sock.recv(65536)
                if not data:
                    self._failed(f"kept: {len(answer)} bytes")
                    return
                answer += data
            head, _, body = answer.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 ") or body != BODY:
                self._failed(f"kept: {answer[:60]!r}")
                return
            self._answered()
            if b"connection: close" in head.lower():
                return
