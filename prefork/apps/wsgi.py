"""WSGI, PEP 3333: one call of an application, from its request to the last byte of the answer."""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BufferedReader, FileIO
from types import TracebackType
from typing import IO, Any, Final

from prefork.apps.file_slice import FileSlice
from prefork.http.composed_head import ResponseFraming, ResponseHead
from prefork.http.request import Environ, Request
from prefork.http.response_head import (
    JOINED,
    Headers,
    body_size,
    compose,
    early_hints,
    error,
    too_long,
    too_short,
)
from prefork.http.response_sink import CallOutcome, ResponseSink
from prefork.http.streamed_body import BodyError
from prefork.unpatched import Lock, RLock

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
StartResponse = Callable[..., Callable[[bytes], None]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
Failed = Callable[[Request, BaseException], None]
"""Is called with an application's exception."""

_NONE: Final = ResponseFraming.NONE
_LENGTH: Final = ResponseFraming.LENGTH
_CHUNKED: Final = ResponseFraming.CHUNKED
_CLOSE: Final = ResponseFraming.CLOSE


class FileWrapper:
    """`wsgi.file_wrapper`: a file whose bytes the kernel sends itself if it can (sendfile(2)).

    PEP 3333 wants what `read()` gives.  That is the content of the descriptor only for the classes
    that the interpreter opens a plain file with; any other (gzip, a file that decrypts, a wrapper
    that passes `fileno` on) is read.
    """

    def __init__(self, file: IO[bytes], block_size: int = 64 * 1024) -> None:
        self.file = file
        self._block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        while block := self.file.read(self._block_size):
            yield block

    def close(self) -> None:
        close = getattr(self.file, "close", None)
        if close is not None:
            close()

    def extent(self) -> tuple[int, int, int] | None:
        """(descriptor, offset, bytes to the end), or None if the file has to be read."""
        if not _is_plain(self.file):
            return None
        try:
            fd = self.file.fileno()
            status = os.fstat(fd)
            # Files of proc and sysfs are made when they are read: their size says nothing, and they
            # have no blocks.  Some other file systems have none for a small file, which is read.
            if not stat.S_ISREG(status.st_mode) or not status.st_blocks:
                return None
            # The object's own position: what it has read ahead is not sent twice.
            offset = self.file.tell()
        except (OSError, ValueError):
            return None
        return fd, offset, max(status.st_size - offset, 0)


def _is_plain(file: object) -> bool:
    """Whether a file's `read()` is known to give the bytes of its descriptor.

    By the exact classes: a subclass may change the bytes, and so may a method set on an object.
    """
    if type(file) is FileSlice:
        return True
    if type(file) is BufferedReader:
        if not vars(file).keys().isdisjoint(_READING):
            return False
        file = file.raw
    return type(file) is FileIO and file.readable() and vars(file).keys().isdisjoint(_READING)


_READING: Final = frozenset({"read", "readinto", "readall", "read1", "fileno", "tell"})


_TOO_EARLY: Final = "start_response was not called before the body began"
_TOO_LATE: Final = "write() was called after the end of the response"

_creating_lock = Lock()
"""Held while a response gets its lock."""


class MisbehavedApplication(Exception):
    """The application violated PEP 3333, in the way that the text describes."""


def _joined(pieces: Sequence[Any]) -> bytes:
    try:
        return b"".join(pieces)
    except TypeError:
        pass  # raised below: in a handler, mypyc would leave out `from None`
    wrong = next(type(piece) for piece in pieces if type(piece) is not bytes)
    raise MisbehavedApplication(f"the body must be bytes, not {wrong.__name__}")


class WsgiResponse(CallOutcome):
    """One response under way."""

    __deletable__ = ("request",)  # for mypyc

    __slots__ = (
        "_left",
        "_lock",
        "_out",
        "_over",
        "failure",
        "head",
        "headers",
        "request",
        "status",
    )

    # These have no value before they are set, since `__init__` runs with each request.

    headers: Headers
    """As `start` was given them, with the status."""
    failure: int
    """The status of the error response that was sent in its place; set by `fail`."""
    last: bool
    """The connection ends with it; set by `take` and by `fail`."""
    ended: float
    """Monotonic seconds at which the call was over; set by the caller."""
    _left: int
    """Bytes of body that the head has promised and that have not come; set with the head."""

    def __init__(self, request: Request, out: ResponseSink) -> None:
        self.request = request
        """Deleted after the call: its environ refers to this object, which would be a cycle."""
        self._out = out
        self._lock: RLock | None = None
        """Serializes the bytes of this response, if other threads may send some of them."""
        self._over = False
        """The last bytes are on their way, and no thread may add to them."""
        self.status: str | None = None
        """As `start` was given it."""
        self.head: ResponseHead | None = None
        """The head, once it is sent."""
        self.sent = 0
        """Bytes of body given to the client, without framing."""

    def start(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """The `start_response` of PEP 3333."""
        if exc_info is not None:
            try:
                if self.head is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a frame that holds its own traceback is a cycle
        elif self.status is not None:
            raise MisbehavedApplication("start_response was called twice without exc_info")
        self.status = status
        self.headers = headers
        return self.write

    def take(self, result: Any) -> None:
        """Sends the iterable that the application has returned.

        Raises any exception of the iterable, MisbehavedApplication, and ValueError or TypeError for
        a head that may not be sent.
        """
        kind = type(result)
        if (kind is not list and kind is not tuple) or self.head is not None:
            self._take_pieces(result)
            return
        # A complete body: head and body are sent in one call if they fit.
        self._over = True
        if self._lock is not None:
            self._end_writing()
            if self.head is not None:  # another thread has begun the response meanwhile
                self._take_pieces(result)
                return
        body = result[0] if len(result) == 1 else _joined(result)
        if type(body) is not bytes:
            raise MisbehavedApplication(f"the body must be bytes, not {type(body).__name__}")
        status = self.status
        if status is None:
            raise MisbehavedApplication(_TOO_EARLY)
        out, size = self._out, len(body)
        head = compose(status, self.headers, self.request, out.closing, size)
        if head.length == size:
            self.head = head
            self.sent = size
            if size <= JOINED:
                out.send(head.data + body)
            else:
                out.send(head.data)
                out.send(body)
        elif head.framing is _NONE:
            self.head = head
            out.send(head.data)
        else:
            self._add(body)
            self.end()
        self.last = not head.keep_alive

    def write(self, data: Any) -> None:
        """The `write()` of PEP 3333: sends bytes at once.

        A thread of the application's may keep it for longer than the response takes, so it raises
        MisbehavedApplication after the end: the bytes would get into the next response.
        """
        with self._serialized():
            if self._over:
                raise MisbehavedApplication(_TOO_LATE)
            self._add(data)

    def early_hints(self, headers: Headers) -> None:
        """`wsgi.early_hints`: sends 103 with these headers, such as `Link`, before the response.

        RFC 8297. Nothing is sent to a client of HTTP/1.0, once the response has begun, or after its
        end. Raises TypeError or ValueError for a header that may not be sent.
        """
        data = early_hints(headers)
        with self._serialized():
            if not self._over and self.head is None and self.request.http11:
                self._out.send_interim(data)

    def _serialized(self) -> RLock:
        """The lock of this response, made when it is first asked for.

        A thread takes it before it looks at `_over`, and `_end_writing` sets that before it looks
        for a lock: so a thread that is sending is waited for, and a later one finds the end.
        """
        with _creating_lock:
            if self._lock is None:
                self._lock = RLock()
            return self._lock

    def _end_writing(self) -> None:
        """Waits for the threads that are sending; from then on only the caller sends."""
        self._over = True
        if self._lock is not None:
            with self._lock:
                pass

    def _add(self, piece: Any) -> None:
        """Sends a piece of the body."""
        if type(piece) is not bytes:
            raise MisbehavedApplication(f"the body must be bytes, not {type(piece).__name__}")
        data: bytes = piece
        if not data:
            return
        prefix = b""
        head = self.head
        if head is None:
            head = self._begin(-1)
            prefix = head.data
        framing = head.framing
        if framing is _NONE:
            if prefix:
                self._out.send(prefix)
            return
        if framing is _CHUNKED:
            self.sent += len(data)
            self._out.send_piece(b"%b%x\r\n%b\r\n" % (prefix, len(data), data))
            return
        if framing is _LENGTH:
            if len(data) > self._left:
                # Bytes past the end would be read as the head of the next response.
                self.sent += self._left
                self._out.send(prefix + data[: self._left])
                self._left = 0
                raise MisbehavedApplication(too_long(head.length))
            self._left -= len(data)
        self.sent += len(data)
        self._out.send_piece(prefix + data if prefix else data)

    def _begin(self, known: int) -> ResponseHead:
        """Composes the head; `known`: bytes of the body, -1 if that is not known."""
        status = self.status
        if status is None:
            raise MisbehavedApplication(_TOO_EARLY)
        self.head = head = compose(status, self.headers, self.request, self._out.closing, known)
        self._left = head.length
        if head.framing is _CLOSE:
            self._out.ends_with_close()
        return head

    def file(self, wrapper: FileWrapper) -> bool:
        """Has the kernel send a file; False if it has to be read instead."""
        extent = wrapper.extent()
        if extent is None or self.head is not None:
            return False
        fd, offset, size = extent
        head = self._begin(size)
        if head.framing is _NONE:
            self._out.send(head.data)
            return True
        count = min(size, head.length)
        self.sent = count
        self._left = head.length - count
        self._out.send_file(head.data, fd, offset, count)
        self.end()  # which raises if Content-Length is larger than the file
        return True

    def end(self) -> None:
        """The iterable is at its end."""
        self._end_writing()
        head = self.head
        if head is None:
            # No item had a byte in it: an empty body of known length.
            head = self._begin(0)
            self._out.send(head.data)
        if head.framing is _CHUNKED:
            self._out.send(b"0\r\n\r\n")
        elif head.framing is _LENGTH and self._left:
            raise MisbehavedApplication(too_short(self._left, head.length))

    def _take_pieces(self, result: Any) -> None:
        kind = type(result)
        if not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
            raise MisbehavedApplication(
                f"it returned {kind.__name__}, which is no iterable of bytes"
                + (": nobody awaits it" if hasattr(kind, "__await__") else "")
            )
        try:
            if not (isinstance(result, FileWrapper) and self.file(result)):
                lock = self._serialized()
                for item in result:
                    with lock:
                        self._add(item)
                    if self._out.broken:
                        self._end_writing()
                        break
                else:
                    self.end()
        finally:
            # PEP 3333: whatever became of the request.
            close = getattr(result, "close", None)
            if close is not None:
                close()
        head = self.head
        self.last = head is None or not head.keep_alive

    def fail(self, raised: BaseException, failed: Failed) -> None:
        """The application has raised something, or its iterable, or `take`.

        The client gets an error response if nothing was sent yet.  Otherwise the connection ends in
        a way that shows that the response is not complete.
        """
        over = self._over  # the iterable was at its end before its close() failed
        self._end_writing()
        request, out = self.request, self._out
        if isinstance(raised, BodyError):  # the client's doing
            status, reason = raised.problem.status, raised.problem.reason
        else:
            failed(request, raised)
            BaseException.with_traceback(raised, None)  # whatever its class makes of it
            status, reason = 500, "the application failed"
        self.failure, self.last = status, True
        if self.head is not None:
            if not over:
                out.break_off()
        elif not out.broken:
            answer = error(status, reason, method=request.method)
            self.sent = body_size(answer)
            out.send(request.marked(answer))


def errors_stream() -> IO[str]:
    """`wsgi.errors`: standard error, beside the application's other output."""
    return sys.stderr
