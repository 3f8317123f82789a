"""A request's body that the application reads while it comes (`[http] stream_body`).

`wsgi.input` is a `BodyReader` over a `StreamedBody`. When that has nothing left it asks for more,
and the connection then waits for the client, in the thread that called the application.
"""

from collections import deque
from collections.abc import Callable
from io import BufferedReader, RawIOBase
from typing import Any, final

from prefork.http.head_rules import Reject
from prefork.quantity import quantity

DRAIN = 256 * 1024
"""Bytes of a body that the application did not read, up to which the connection is kept if they are
known to come.  The length of a chunked body is not known when the response says whether the
connection is kept: all of it is drained."""

BUFFER = 64 * 1024
"""Bytes that a reader asks for at one time."""


class BodyError(OSError):
    """`wsgi.input` can't be read on: the client is gone, too slow, over a limit, or wrong.

    An application that lets it pass need not answer: the server does, with `problem`'s status.
    """

    def __init__(self, problem: Reject) -> None:
        super().__init__(problem.reason)
        self.problem = problem


@final
class StreamedBody(RawIOBase):
    """The bytes of a body that have come and were not read yet."""

    def __init__(self, limit: int, length: int, *, awaited: bool) -> None:
        """`limit`: bytes allowed, 0 for no limit.  `length`: bytes that will come, -1 if that is
        not known.  `awaited`: the client waits for 100 before it sends any.
        """
        self.size = 0
        """Bytes that have come."""
        self.since = 0.0
        """Monotonic seconds at which somebody began to look at its rate."""
        self.waited = 0.0
        """Seconds for which the application has waited for it."""
        self.more: Callable[[], None] | None = None
        """Waits for bytes, an end or a failure; set while the application has the request."""
        self.unwanted = False
        """The application has returned: bytes that still come are thrown away."""
        self.pulling = False
        """A thread waits for bytes of it."""
        self.awaited = awaited
        self._length = length
        self._limit = limit
        self._pieces: deque[memoryview] = deque()
        self._complete = False
        self._problem: Reject | None = None

    # The side of the connection.

    def write(self, data: bytes) -> None:  # type: ignore[override]  # for the parser alone
        """Adds a piece. Raises Reject(413) past the limit."""
        self.size += len(data)
        self.awaited = False
        if self._limit and self.size > self._limit:
            raise Reject(413, f"body is larger than {quantity(self._limit, 'byte')}")
        if not self.unwanted:
            self._pieces.append(memoryview(data))

    def complete(self) -> None:
        """The last piece has come."""
        self._complete = True

    def fail(self, problem: Reject) -> None:
        """No more will come."""
        self._problem = problem

    @property
    def drainable(self) -> bool:
        """The rest of it can be read and thrown away, so that the connection can go on.

        Not if the client waits for 100: it may send the body next, or another request.
        """
        return self._complete or not (self.awaited or self._length - self.size > DRAIN)

    def abandon(self) -> None:
        """The application has returned."""
        self.more = None
        self.unwanted = True
        self._pieces.clear()

    # The side of an application that awaits its body: nothing here waits.

    @property
    def unread(self) -> int:
        """Bytes that have come and were not taken."""
        return sum(map(len, self._pieces))

    @property
    def whole(self) -> bool:
        """The last byte has come."""
        return self._complete

    @property
    def problem(self) -> Reject | None:
        """Why no more will come."""
        return self._problem

    def take(self) -> bytes:
        """All that has come and was not taken yet."""
        pieces = self._pieces
        data = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return data

    # The side of the application.

    def readable(self) -> bool:
        return True

    def put_back(self, data: bytes) -> None:
        """What was read last is to be read again."""
        if data and not self.unwanted:
            self._pieces.appendleft(memoryview(data))

    def readinto(self, buffer: Any) -> int:
        """Returns 0 at the end, also if the body has a problem."""
        pieces = self._pieces
        while not pieces:
            if self._complete or self._problem is not None:
                return 0
            more = self.more  # another thread may end the request in between
            if more is None:
                self.fail(Reject(400, "the request is over"))
                return 0
            more()
        piece = pieces[0]
        size = min(len(piece), len(buffer))
        buffer[:size] = piece[:size]
        if size == len(piece):
            pieces.popleft()
        else:
            pieces[0] = piece[size:]
        return size


@final
class BodyReader(BufferedReader):
    """`wsgi.input`: a body that may break off.

    The application gets all bytes that have come before it gets the error (a plain BufferedReader
    drops what it has read when the stream below it raises).  A call that asks for a number of bytes
    or for a line returns the fewer that there are, and the next call raises BodyError.  A call that
    asks for everything raises it at once, since it can't return a part as if it were the whole; the
    bytes stay, for `read(n)`.
    """

    _body: StreamedBody

    def __init__(self, body: StreamedBody) -> None:
        super().__init__(body, BUFFER)
        self._body = body

    def _checked(self, data: bytes) -> bytes:
        """What was read; raises BodyError if that is nothing, and not because of the end."""
        if not data and self._body.problem is not None:
            raise BodyError(self._body.problem)
        return data

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            data = super().read()
            if self._body.problem is not None:
                self._body.put_back(data)
                raise BodyError(self._body.problem)
            return data
        return self._checked(super().read(size)) if size else b""

    def read1(self, size: int = -1, /) -> bytes:
        return self._checked(super().read1(size)) if size else b""

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._checked(super().readline(size)) if size != 0 else b""

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        lines: list[bytes] = []
        size = 0
        try:
            for line in self:
                lines.append(line)
                size += len(line)
                if hint is not None and 0 < hint <= size:
                    break
        except BodyError:
            self._body.put_back(b"".join(lines))
            raise
        return lines

    def readinto(self, buffer: Any, /) -> int:
        return self._counted(super().readinto(buffer), buffer)

    def readinto1(self, buffer: Any, /) -> int:
        return self._counted(super().readinto1(buffer), buffer)

    def _counted(self, count: int, buffer: Any) -> int:
        if not count and len(memoryview(buffer)):
            self._checked(b"")
        return count
