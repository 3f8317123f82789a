"""One HTTP/1.1 connection: bytes in, requests out.

`RequestReader` reads one request and no further.  What follows it is kept as bytes until the next
one is asked for, so that a pipeline takes no more memory than its bytes.  Nothing here touches a
socket or a clock: the owner feeds bytes and takes requests.

    START  -> START    a request that is whole in what has come
           -> HEAD     the beginning of a head
           -> LENGTH   a head, and not all of a body of known length
           -> CHUNKED  a head, and not all of a chunked body
    HEAD, LENGTH, CHUNKED
           -> START    the end of the request
    each   -> END      a request that asks for the end of the connection, a request that is refused,
                       or `finish()`
"""

import re
from enum import Enum
from io import BytesIO
from typing import Final

from prefork.http.chunked import ChunkedDecoder
from prefork.http.field_lines import FieldLines
from prefork.http.gathered_body import GatheredBody
from prefork.http.head_reader import Head, HeadScan, read_head
from prefork.http.head_rules import Reject
from prefork.http.limits import RequestLimits
from prefork.http.long_lines import LONG, find_empty_line
from prefork.http.request import Environ, Request
from prefork.http.streamed_body import BodyReader, StreamedBody
from prefork.http.whole_heads import WholeHeads

Peer = tuple[str, str]
"""Address and port, empty if there is none."""

# RFC 9112 section 2.2: empty lines before a request line are ignored.  A bare CR or LF is ignored
# there as well: no request line can begin with one, so that nobody finds another request behind it.
_EMPTY_LINES: Final = re.compile(rb"[\r\n]*+").match

# Longer than any that is known: of a refused request it is asked whether it is HEAD, no more.
_METHOD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}+) ").match

_LINE_MIN: Final = 8192
"""Bytes of request line that are allowed for where empty lines before it are counted."""

_NOTHING: Environ = {}

FIELD_LINES: Final = FieldLines()
"""Of all connections whose peer is no trusted proxy."""


class State(Enum):
    """What a reader waits for."""

    START = "a request"
    HEAD = "the rest of a head"
    LENGTH = "the rest of a body of known length"
    CHUNKED = "the rest of a chunked body"
    END = "nothing"


_START: Final = State.START
_HEAD: Final = State.HEAD
_LENGTH: Final = State.LENGTH
_CHUNKED: Final = State.CHUNKED
_END: Final = State.END


class _Partial:
    """A head that has no end yet."""

    __slots__ = ("data", "scan")

    def __init__(self, data: bytes, scan: HeadScan) -> None:
        self.data = bytearray(data)
        self.scan = scan


class RequestReader:
    """The reading side of a connection."""

    __slots__ = (
        "_at",
        "_base",
        "_decoder",
        "_empty",
        "_limits",
        "_line",
        "_lines",
        "_own",
        "_partial",
        "_request",
        "body",
        "error",
        "heads",
        "last",
        "left",
        "peer",
        "state",
        "surplus",
        "unread",
        "wants_continue",
    )

    proxied = False
    """The peer is a trusted proxy: its word on how a request came to it is taken."""

    def __init__(
        self,
        base: Environ,
        limits: RequestLimits,
        peer: Peer = ("", ""),
        lines: FieldLines = FIELD_LINES,
    ) -> None:
        """base: what the environ of each request begins with; others share it.  REMOTE_ADDR and
        REMOTE_PORT in it are replaced by `peer`."""
        self._base = base
        self._own: Environ = _NOTHING  # what it has beyond that of other connections
        self._limits = limits
        self._lines = lines
        self.unread = b""
        """What has come and is not read."""
        self._at = 0  # where in that
        self._partial: _Partial | None = None
        self._request: Request | None = None  # whose body is being read
        self._line = b""  # the first one of a request that was refused
        self._decoder: ChunkedDecoder | None = None
        self.left = 0
        """Bytes of a body of known length that have not come."""
        self._empty = 0  # bytes of empty lines before the next request
        self.peer = peer
        self.state = _START
        self.heads: WholeHeads | None = None
        """Where heads that come again are kept, if they are.  Not for a reader of a trusted proxy:
        they are not read alike by all readers of a listener."""
        self.body: GatheredBody | StreamedBody | None = None
        """Of the request that is being read."""
        self.error: Reject | None = None
        """Why nothing more is read; to be answered after the requests that were taken before."""
        self.last = False
        """The last request that was read to its end asked for the end of the connection."""
        self.surplus = False
        """Bytes came that nobody will answer."""
        self.wants_continue = False
        """The client waits for 100 before it sends the body."""

    @property
    def idle(self) -> bool:
        """Between two requests: nothing of the next has come, but for empty lines."""
        return self.state is _START and not self.unread

    @property
    def pending(self) -> bool:
        """Bytes have come that `next` reads."""
        return bool(self.unread)

    @property
    def rest(self) -> bytes:
        """Bytes that have come behind the last request."""
        return self.unread[self._at :]

    @property
    def in_body(self) -> bool:
        """A head is complete and its body is not."""
        return self.state is _LENGTH or self.state is _CHUNKED

    @property
    def partial(self) -> bytearray | None:
        """What has come of a head that is not complete; more of it is added to this object."""
        return None if self._partial is None else self._partial.data

    @property
    def held(self) -> int:
        """Bytes that are kept of what has come, beside those of a body.

        A `GatheredBody` counts its own in the budget; a `StreamedBody` holds what was fed while the
        application waited for it.
        """
        held = len(self.unread)
        if self._partial is not None:
            held += len(self._partial.data)
        if self._decoder is not None:
            held += self._decoder.held
        return held

    @property
    def method(self) -> str:
        """Of the request that is being read, or was refused; "GET" if that is not known."""
        match = _METHOD(self.line)
        return match[1].decode() if match is not None else "GET"

    @property
    def line(self) -> bytes:
        """The request line of what is being read or was refused, as far as it has come; it may be
        malformed."""
        request = self._request
        if request is not None:
            return request.line + (b" HTTP/1.1" if request.http11 else b" HTTP/1.0")
        return self._line if self._partial is None else _first_line(self._partial.data)

    def extend(self, more: Environ) -> None:
        """What is known now of this connection alone, for the environ of each of its requests."""
        self._base = {**self._base, **more}
        self._own = more

    def finish(self) -> None:
        """The connection ends with the response that was just sent: no request is read any more."""
        if self.last and self.state is _END:
            return
        self.surplus = self.surplus or not (self.idle or self.last)
        self._end()
        self.last = True

    def keep(self, data: bytes) -> None:
        """Takes bytes that are not to be read before `next` is called; for the owner that can't
        answer a further request yet.  Not to be called in the middle of a request."""
        if self.state is _END:
            self.surplus = True
        else:
            self.unread = self.unread[self._at :] + data
            self._at = 0

    def next(self) -> Request | None:
        """The next request of what is kept, if it is complete."""
        if self.state is not _START or not self.unread:
            return None
        data, at = self.unread, self._at
        self.unread, self._at = b"", 0
        return self._start(data, at)

    def feed(self, data: bytes) -> Request | None:
        """Reads bytes as they came, cut anywhere; never raises for what a client sent.

        Returns a request that is complete now, or that has a body to be read while it comes.  There
        may be more: see `next`.
        """
        state = self.state
        if state is _START:
            if self.unread:
                self.keep(data)
                return self.next()
            heads = self.heads
            if (
                heads is not None
                and len(data) in heads.sizes
                and (known := heads.get(data)) is not None
            ):
                environ = known.environ.copy()
                environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.peer
                if self._own:
                    environ.update(self._own)
                environ["wsgi.input"] = BytesIO()
                if not known.keep_alive:
                    self.state = _END
                    self.last = True
                # Arguments in a tuple or with names would take longer than all of this.
                return Request(
                    environ,
                    known.line,
                    known.http11,
                    known.keep_alive,
                    None,
                    known,
                    "",
                    known.fields,
                )
            if len(data) >= LONG and data.endswith(
                b"\r\n\r\n"
            ):  # a head without a body, most likely
                end = find_empty_line(data)
            else:
                end = data.find(b"\r\n\r\n")
            if end > 0 and data[0] > 32:
                return self._read_head(data, 0, end)
            return self._start(data, 0)
        if state is _HEAD:
            return self._continue(data)
        if state is _END:
            self.surplus = True
            return None
        self.wants_continue = False
        return self._read_body(data, 0)

    # Heads.

    def _start(self, data: bytes, at: int) -> Request | None:
        """Reads what begins with a request, or with empty lines."""
        if data[at : at + 1] in b"\r\n":
            begin = at
            match = _EMPTY_LINES(data, at)
            at = match.end() if match is not None else at
            self._empty += at - begin
            limits = self._limits
            size = limits.header_size
            if size and self._empty > size + max(limits.request_line, _LINE_MIN):
                self._refuse(Reject(414, "there is no request line"))
                return None
            if at == len(data):
                return None
        end = data.find(b"\r\n\r\n", at)
        if end >= 0:
            return self._read_head(data, at, end)
        partial = _Partial(data[at:], HeadScan(self._lines, self._limits))
        try:
            partial.scan.look(partial.data)
        except Reject as problem:
            self._refuse(problem, partial.data)
            return None
        self._partial = partial
        self.state = _HEAD
        return None

    def _continue(self, data: bytes) -> Request | None:
        """Reads the rest of a head."""
        partial = self._partial
        assert partial is not None
        head = partial.data
        head += data
        try:
            end = partial.scan.look(head)
        except Reject as problem:
            self._refuse(problem, head)
            return None
        if end < 0:
            return None
        self._partial = None
        return self._read_head(bytes(head), 0, end)

    def _read_head(self, data: bytes, at: int, end: int) -> Request | None:
        """Reads a whole head, and of its body what has come."""
        limits = self._limits
        problem: Reject | None = None
        lines = data[at:end]
        try:
            head = self._parse(lines)
        except Reject as refused:
            refused.__traceback__ = None
            problem = refused
        if problem is not None:
            self._refuse(self._first_problem(data[at : end + 4]) or problem, lines)
            return None
        environ, line, http11, keep_alive, length, expects, fields = head
        self._empty = 0
        after = end + 4
        if not length:
            if self.heads is not None and not at and after == len(data):
                self.heads.note(data, head, self._lines, self._own)
            environ["wsgi.input"] = BytesIO()
            if not keep_alive or after != len(data):
                self._complete(data, after, keep_alive=keep_alive)
            else:
                self.state = _START
            return Request(environ, line, http11, keep_alive, None, fields=fields)
        if length > 0:
            stop = after + length
            if stop <= len(data) and (length <= limits.body_memory or not limits.body_memory):
                # It is whole, and needs no more room than was taken to receive it.
                environ["wsgi.input"] = BytesIO(data[after:stop])
                if not keep_alive or stop != len(data):
                    self._complete(data, stop, keep_alive=keep_alive)
                else:
                    self.state = _START
                return Request(environ, line, http11, keep_alive, None, fields=fields)
            self.left = length
            self.state = _LENGTH
        else:
            self._decoder = ChunkedDecoder(self._lines, limits)
            self.state = _CHUNKED
        request = Request(environ, line, http11, keep_alive, None, fields=fields)
        self._request = request
        self.wants_continue = expects and after == len(data)
        if not limits.stream:
            return self._read_body(data, after)
        stream = StreamedBody(limits.body, length, awaited=self.wants_continue)
        self.body = request.body = stream
        environ["wsgi.input"] = BodyReader(stream)
        if after < len(data):
            self._read_body(data, after)
        return request

    def _first_problem(self, data: bytes) -> Reject | None:
        """The problem that would have been found first if the bytes had come one by one."""
        try:
            HeadScan(self._lines, self._limits).look(data)
        except Reject as problem:
            return problem
        return None

    def _parse(self, data: bytes) -> Head:
        """Reads a head that is whole.  Raises Reject."""
        return read_head(data, self._base, self.peer, self._lines, self._limits)

    # Bodies.

    def room(self) -> memoryview | None:
        """Where the next bytes of a body belong in memory; None if they are to be fed.

        The caller puts bytes there, calls `received`, and lets go of the memory.
        """
        body = self.body
        if self.state is _LENGTH and type(body) is GatheredBody:
            return body.room()
        return None

    def received(self, size: int) -> Request | None:
        """So many bytes were put into the `room`: as `feed`."""
        body = self.body
        assert type(body) is GatheredBody
        body.received(size)
        self.left -= size
        self.wants_continue = False
        return None if self.left else self._read_body(b"", 0)

    def _read_body(self, data: bytes, at: int) -> Request | None:
        """Reads more of a body; returns a request whose body was gathered and is complete."""
        request, decoder = self._request, self._decoder
        assert request is not None
        problem = None
        if decoder is None:
            end = at + self.left
            if end > len(data):
                self.left = end - len(data)
                piece, end = data[at:], -1
            else:
                self.left = 0
                piece = data[at:end]
        else:
            pieces = decoder.feed(data, at)
            piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            end, problem = decoder.end, decoder.problem
        body = self.body
        memory = self._limits.body_memory
        if body is None and (end < 0 or (memory and len(piece) > memory)):
            # It comes in pieces, or is too large to stay in memory.
            limits = self._limits
            length = len(piece) + self.left if decoder is None else -1
            body = self.body = request.body = GatheredBody(
                *(memory, limits.body, limits.budget, limits.disk), length
            )
        file = None
        if body is not None:
            try:
                if piece:
                    body.write(piece)
                if end >= 0 and type(body) is GatheredBody:
                    file = body.whole()
            except Reject as refused:
                refused.__traceback__ = None  # it refers to this frame, and so to the body
                problem = refused
            except OSError as full:
                problem = Reject(507, f"the body can't be kept: {full.strerror}")
        if problem is not None:
            if type(body) is StreamedBody:
                # The application has this request: it, or the answer to it, tells the client.
                body.fail(problem)
                self._end()
                self.last = self.surplus = True
            else:
                self._refuse(problem)
            return None
        if end < 0:
            return None
        self.body = self._request = self._decoder = None
        self.wants_continue = False
        self._complete(data, end, keep_alive=request.keep_alive)
        if type(body) is StreamedBody:
            body.complete()
            return None
        environ = request.environ
        environ["wsgi.input"] = BytesIO(piece) if file is None else file
        if decoder is not None:
            # The coding is undone: the application sees a plain body of known length.
            del environ["HTTP_TRANSFER_ENCODING"]
            environ["CONTENT_LENGTH"] = str(decoder.size)
        return request

    # Ends.

    def _complete(self, data: bytes, at: int, *, keep_alive: bool) -> None:
        """A request ends at `at`."""
        if keep_alive:
            self.state = _START
            if at < len(data):
                self.unread, self._at = data, at
        else:
            self.state = _END
            self.last = True
            self.surplus = at < len(data)

    def _refuse(self, problem: Reject, head: bytes | bytearray = b"") -> None:
        problem.__traceback__ = None  # it refers to frames, and so to what they hold
        self._line = _first_line(head) if head else self.line
        self.error = problem
        self._end()

    def _end(self) -> None:
        self.state = _END
        self.unread, self._at = b"", 0
        self._partial = self._request = self._decoder = None
        self.body = None
        self.wants_continue = False


def _first_line(head: bytes | bytearray) -> bytes:
    return bytes(head).partition(b"\n")[0].rstrip(b"\r")
