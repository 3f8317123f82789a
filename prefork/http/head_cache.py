"""Heads that come again: what the parser made of one is kept, and found by its bytes.

A client sends the same headers with request after request, and only the target differs.  So the
two parts of a head are kept apart: the request line, and the section from the end of that line to
the end of the head.  There is still one reading of HTTP, the parser's: both parts were read by it,
and what is kept is what it said and what our rules then passed.  llhttp carries nothing from the
line into the section but the version, which is HTTP/1.1 here, and the method, which matters to it
in CONNECT alone.

Only a request without a body, and without a word about one, is kept, of a head that came in one
piece with nothing before it and nothing behind.
"""

import httptools

from prefork.http.head_rules import Reject, path_of
from prefork.http.request import Environ, RepeatedRequest, Request

_SECTIONS_KEPT = 128
_SECTION_SIZE = 2048
_HEADS_KEPT = 256
_LINES_KEPT = 1024
_LINE_SIZE = 128
_MARKS_KEPT = 1024

# Clients whose headers differ each time are not to pay for those that repeat them: after so many
# looks in vain, one in so many is taken.
_TRIES = 64
_PAUSE = 15

# With these the end of a message is not the end of its head, or what follows it is not HTTP/1.
_FRAMING = frozenset({"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE", "HTTP_EXPECT"})


class CachedRequestLine:
    """A request line of HTTP/1.1 whose target is a path."""

    __slots__ = ("line", "method", "target")

    def __init__(self, line: bytes, method: str, target: tuple[str, str, str]) -> None:
        self.line = line
        """Method and target."""
        self.method = method
        self.target = target
        """PATH_INFO, QUERY_STRING, RAW_URI."""


class CachedSection:
    """The rest of a head, from the end of the request line on."""

    __slots__ = ("data", "environ", "keep_alive", "size")

    def __init__(self, data: bytes, environ: Environ, *, keep_alive: bool) -> None:
        self.data = data
        self.size = len(data)
        self.environ = environ
        """Of a request with it: what differs between two of them is to be put in its place."""
        self.keep_alive = keep_alive


class CachedHead(RepeatedRequest):
    """A whole head."""

    __slots__ = ("environ", "keep_alive", "line")

    def __init__(self, line: CachedRequestLine, section: CachedSection) -> None:
        super().__init__()
        self.line = line.line
        self.keep_alive = section.keep_alive
        self.environ = environ = section.environ.copy()
        environ["REQUEST_METHOD"] = line.method
        environ["PATH_INFO"], environ["QUERY_STRING"], environ["RAW_URI"] = line.target


class HeadCache:
    """What is kept of the heads at one listener, all with the same limits.

    The environ of each of its connections begins alike, but for REMOTE_ADDR and REMOTE_PORT.
    """

    def __init__(self) -> None:
        # Clients choose what is in here, so each has a bound, and begins anew when it is full.
        self.sections: dict[bytes, CachedSection] = {}
        """By their bytes."""
        self.heads: dict[bytes, CachedHead] = {}
        """By their bytes."""
        self.lines: dict[bytes, CachedRequestLine] = {}
        """By their bytes, without the end of the line."""
        self._marks: set[int] = set()
        self._readers: list[_LineReader] = []
        self._tries = _TRIES

    def tail(self, data: bytes) -> bytes:
        """What came, without its first line; empty where a look for it is hardly worth it."""
        if self._tries < 1:
            self._tries += 1
            return b""
        self._tries -= 1
        if not self._tries:
            self._tries = -_PAUSE
        return data[data.find(b"\r\n") :]

    def succeed(self) -> None:
        """What the tail was looked for was there."""
        self._tries = _TRIES

    def head(self, data: bytes, section: CachedSection, limit: int) -> CachedHead | None:
        """The whole of one that ends in a section; None where it has to be read.

        `limit`: on the size of its request line in bytes; 0 for none.
        """
        first = data[: -section.size]
        line = self.lines.get(first)
        if line is not None:  # so that a target that is asked for once takes no room
            if len(self.heads) >= _HEADS_KEPT:
                self.heads.clear()
            head = self.heads[data] = CachedHead(line, section)
            return head
        if not limit or len(first) <= limit:
            line = self._read(first)
        return None if line is None else CachedHead(line, section)

    def _read(self, line: bytes) -> CachedRequestLine | None:
        """Reads a request line; None for one that has to be looked at in the whole head."""
        try:
            reader = self._readers.pop()  # one step: two threads never share one
        except IndexError:
            reader = _LineReader()
        known = reader.read(line)
        if known is None:
            return None
        self._readers.append(reader)
        if len(line) <= _LINE_SIZE:
            if len(self.lines) >= _LINES_KEPT:
                self.lines.clear()
            self.lines[line] = known
        return known

    def note(self, data: bytes, section: bytes, request: Request) -> None:
        """A request was read: its section is kept if it comes again.

        data: all that came.  section: of that, what is behind the end of the first line.
        """
        if len(section) > _SECTION_SIZE:
            return
        mark = hash(section)
        if mark not in self._marks:
            # Most that differ from the last are never seen again.
            if len(self._marks) >= _MARKS_KEPT:
                self._marks.clear()
            self._marks.add(mark)
            return
        environ = request.environ
        if (
            data == request.line + b" HTTP/1.1" + section
            and section.find(b"\r\n\r\n") + 4 == len(section)
            and environ["RAW_URI"].startswith("/")  # an absolute one names the host, too
            and _FRAMING.isdisjoint(environ)
        ):
            if len(self.sections) >= _SECTIONS_KEPT:
                self.sections.clear()
            kept = {**environ, "wsgi.input": None}
            self.sections[section] = CachedSection(section, kept, keep_alive=request.keep_alive)


class _LineReader:
    """Reads request lines alone, each as the head of a message without headers."""

    def __init__(self) -> None:
        self._url = b""
        self._parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def read(self, line: bytes) -> CachedRequestLine | None:
        """None for a line that is not one, or not a usual one; the reader is used up then."""
        self._url = b""
        try:
            self._parser.feed_data(line + b"\r\n\r\n")
            method = self._parser.get_method()
            target = path_of(self._url)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, Reject):
            return None
        asked = method + b" " + self._url
        # What it read is the whole of the line, and what it says of it: no second line, no space
        # beside those two, another version or protocol. (CONNECT ends in HttpParserUpgrade.)
        if line != asked + b" HTTP/1.1" or target is None:
            return None
        return CachedRequestLine(asked, method.decode("latin-1"), target)
