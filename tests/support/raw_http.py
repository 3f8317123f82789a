"""HTTP by hand: requests are sent byte for byte, and answers are read strictly."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.server import Server
from tests.support.waiting import PATIENCE

_STATUS = re.compile(r"HTTP/1\.1 ([1-5][0-9]{2}) (.*)")


@dataclass
class Answer:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str | None:
        """The only header of that name, None if there is none."""
        found = self.all(name)
        assert len(found) <= 1, f"{name} is there {len(found)} times: {found}"
        return found[0] if found else None

    @property
    def closes(self) -> bool:
        return (self["Connection"] or "").lower() == "close"


class Raw:
    """One connection to a server."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._kept = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        self.send(data)
        return self.answer(method)

    def _more(self) -> bool:
        data = self.sock.recv(256 * 1024)
        self._kept += data
        return bool(data)

    def line(self) -> str:
        """The next line, without its CRLF."""
        while b"\r\n" not in self._kept:
            assert self._more(), f"closed in the middle of a line: {self._kept!r}"
        line, _, self._kept = self._kept.partition(b"\r\n")
        return line.decode("latin-1")

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes; raises AssertionError if the server closes before."""
        parts, had = [self._kept], len(self._kept)
        while had < size:
            data = self.sock.recv(256 * 1024)
            assert data, f"closed after {had} bytes of {size}"
            parts.append(data)
            had += len(data)
        whole = b"".join(parts)
        self._kept = whole[size:]
        return whole[:size]

    def rest(self) -> bytes:
        """Everything until the server closes."""
        parts = [self._kept]
        while data := self.sock.recv(256 * 1024):
            parts.append(data)
        self._kept = b""
        return b"".join(parts)

    def rest_until_reset(self) -> bytes:
        """Everything until the server resets the connection; fails if it closes it properly."""
        parts = [self._kept]
        self._kept = b""
        try:
            while data := self.sock.recv(256 * 1024):
                parts.append(data)
        except ConnectionResetError:
            return b"".join(parts)
        raise AssertionError(f"closed properly after {b''.join(parts)!r}")

    def head(self) -> Answer:
        """Reads status and headers, and nothing of the body."""
        first = self.line()
        status = _STATUS.fullmatch(first)
        assert status is not None, f"no status line: {first!r}"
        headers = []
        while line := self.line():
            name, colon, value = line.partition(": ")
            assert colon, f"no header: {line!r}"
            headers.append((name, value))
        return Answer(int(status[1]), status[2], headers)

    def answer(self, method: str = "GET") -> Answer:
        """One whole answer, by RFC 9112 section 6.3."""
        answer = self.head()
        length, coding = answer["Content-Length"], answer["Transfer-Encoding"]
        assert length is None or coding is None
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        if coding is not None:
            assert coding == "chunked"
            answer.body = b"".join(self.chunks())
        elif length is not None:
            answer.body = self.exactly(int(length))
        else:
            assert answer.closes
            answer.body = self.rest()
        return answer

    def chunks(self) -> Iterator[bytes]:
        """The chunks of a body, which must end with a last chunk and have no trailer."""
        while size := int(self.line(), 16):
            yield self.exactly(size)
            assert self.line() == ""
        assert self.line() == "", "a trailer"

    def at_end(self) -> bool:
        """The server has closed properly, and has sent nothing more."""
        return not self._kept and not self._more()


@contextmanager
def talk(server: Server, *, receive_buffer: int = 0) -> Iterator[Raw]:
    """A connection.  `receive_buffer`: SO_RCVBUF in bytes, 0 for the kernel's default."""
    with socket.socket() as sock:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", server.port))
        yield Raw(sock)


def request(
    target: str = "/",
    *headers: str,
    method: str = "GET",
    version: str = "HTTP/1.1",
    body: bytes | None = None,
) -> bytes:
    """A request; it has a Content-Length if it has a body."""
    lines = [f"{method} {target} {version}", "Host: test", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(*pieces: bytes, trailer: bytes = b"") -> bytes:
    """A chunked body."""
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"
