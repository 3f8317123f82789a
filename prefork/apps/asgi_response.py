"""The response of an ASGI application: its messages to bytes.

Nothing here waits or sends.  The framing is that of WSGI (prefork.apps.wsgi): a body that is
complete with its first message has a length, another one is chunked, and for a client of HTTP/1.0
the end of the connection ends it.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from prefork.apps.asgi_response_state import TABLE, ResponseState
from prefork.compiled import native
from prefork.http.composed_head import ResponseFraming, ResponseHead
from prefork.http.request import Request
from prefork.http.response_head import (
    compose,
    early_hints,
    field_line,
    second_ends,
    too_long,
    too_short,
)

Message = Mapping[str, Any]

_NOT_STARTED: Final = ResponseState.NOT_STARTED
_STARTED: Final = ResponseState.STARTED
_BODY: Final = ResponseState.BODY
_TRAILERS: Final = ResponseState.TRAILERS
_COMPLETE: Final = ResponseState.COMPLETE

_NONE: Final = ResponseFraming.NONE
_LENGTH: Final = ResponseFraming.LENGTH
_CHUNKED: Final = ResponseFraming.CHUNKED
_CLOSE: Final = ResponseFraming.CLOSE

_STATUSES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}

# Not in trailers: framing, routing, and what controls the request or the response (RFC 9110
# section 6.5.1).
_NO_TRAILERS: Final = frozenset(
    {
        *("transfer-encoding", "content-length", "host", "trailer", "te", "connection"),
        *("content-encoding", "content-type", "content-range", "set-cookie", "authorization"),
    }
)


@native(native_class=False)
class MisusedProtocol(RuntimeError):
    """The application violated the specification of ASGI, in the way that the text describes."""


class RepeatedAnswer:
    """How the last response to a repeated request began: the next one is most often the same."""

    __slots__ = ("head", "headers", "size", "status", "status_text", "texts", "until")

    def __init__(
        self, status: int, headers: list[Any], status_text: str, texts: list[tuple[str, str]]
    ) -> None:
        """`headers`: as the application gave them; `texts`: the same as text."""
        self.status = status
        self.headers = headers
        self.status_text = status_text
        self.texts = texts
        self.head: ResponseHead | None = None
        """Composed for a body of `size` bytes that is complete at once, on a connection that is
        kept; None if there was no such response."""
        self.size = -1
        self.until = 0.0
        """Monotonic seconds at which the second of its `Date` is over."""


class AsgiResponse:
    """One response under way."""

    __slots__ = (
        *("_left", "after_body", "answer", "head", "headers", "request", "response_state", "sent"),
        *("status_text",),
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        self.response_state = _NOT_STARTED
        self.status_text = ""
        """Status and reason, once it is started."""
        self.headers: list[tuple[str, str]] = []
        self.answer: RepeatedAnswer | None = None
        """The last one to the same request, if this one began as that did."""
        self.head: ResponseHead | None = None
        """The head, once it was composed."""
        self.sent = 0
        """Bytes of body given to the client, without framing."""
        self._left = 0
        self.after_body = _COMPLETE
        """The state that follows the body: TRAILERS if the start has announced them."""

    def must_take(self, kind: object) -> None:
        """Raises MisusedProtocol if a message of this type may not be sent now."""
        row = TABLE[self.response_state]
        refusal = row.refusals.get(kind) if isinstance(kind, str) else None
        if refusal is None:
            refusal = row.other
        if refusal:
            raise MisusedProtocol(refusal.format(kind))

    @property
    def complete(self) -> bool:
        """All of it was given out, and it is not over yet."""
        return self.response_state is _COMPLETE

    def start(self, message: Message) -> None:
        """`http.response.start`: nothing is sent before the first message of the body.

        Raises MisusedProtocol, TypeError or ValueError.
        """
        if self.response_state is not _NOT_STARTED:
            self.must_take("http.response.start")
        status = message.get("status")
        if type(status) is not int and not isinstance(status, int):
            raise wrong_field(message, "status", "int")
        if "trailers" in message and field(message, "trailers", bool, int):
            self.after_body = _TRAILERS
        headers, repeated = message.get("headers"), self.request.repeated
        if repeated is not None:
            answer = repeated.answer
            if answer is not None and headers == answer.headers and status == answer.status:
                self.answer = answer
                self.headers, self.status_text = answer.texts, answer.status_text
                self.response_state = _STARTED
                return
        self.headers = [] if headers is None else text_pairs(message)
        self.status_text = _STATUSES.get(status) or f"{int(status)} "
        if repeated is not None and type(headers) is list and _are_constant(headers):
            repeated.answer = RepeatedAnswer(status, headers.copy(), self.status_text, self.headers)
        self.response_state = _STARTED

    def whole_head(self, size: int, now: float, *, closing: bool) -> ResponseHead | None:
        """The head of a response whose body, of so many bytes, is complete with its first message.

        It is started.  None if that is not all of its framing: then it is up to `body`.  `now`:
        monotonic seconds.
        """
        if self.after_body is _TRAILERS:
            return None
        answer = self.answer
        if answer is not None and answer.size == size and now < answer.until and not closing:
            return answer.head
        head = self._composed(size, closing)
        if head.length != size:
            return None
        if answer is not None and not (closing or self.request.id_line):
            answer.head, answer.size, answer.until = head, size, second_ends()
        return head

    def body(self, data: bytes, *, more: bool, closing: bool) -> bytes:
        """The bytes to send for a piece of the body: see `framing`."""
        before, after = self.framing(len(data), more=more, closing=closing)
        return before + data + after if self.has_body else before

    def framing(self, size: int, *, more: bool, closing: bool) -> tuple[bytes, bytes]:
        """What is sent before and behind a piece of the body, if the response `has_body`.

        `closing`: the connection ends with this response.  Raises MisusedProtocol if the body is
        longer or shorter than its Content-Length, or has ended.
        """
        before, head = b"", self.head
        if self.response_state is _STARTED:
            head = self.begin(-1 if more or self.after_body is _TRAILERS else size, closing=closing)
            before = head.data
        elif self.response_state is not _BODY:
            self.must_take("http.response.body")
        assert head is not None
        framing = head.framing
        if framing is _LENGTH:
            self._take(size, more=more)
        self.response_state = _BODY if more else self.after_body
        if framing is _NONE:
            return before, b""
        self.sent += size
        if framing is not _CHUNKED:
            return before, b""
        after = b"\r\n" if size else b""
        if size:
            before = b"%b%x\r\n" % (before, size)
        if not more:
            after += b"0\r\n" if self.after_body is _TRAILERS else b"0\r\n\r\n"
        return before, after

    def begin(self, known: int, *, closing: bool) -> ResponseHead:
        """Composes the head; `known`: bytes of the body, -1 if that is not known."""
        # A body with trailers is chunked (RFC 9112 section 7.1.2).
        self.head = self._composed(known, closing)
        self._left = self.head.length
        return self.head

    def _composed(self, known: int, closing: bool) -> ResponseHead:
        try:
            return compose(self.status_text, self.headers, self.request, closing, known)
        except ValueError as problem:  # of a message before the one that is sent now
            raise ValueError(f"http.response.start: {problem}") from None

    @property
    def ends_with_close(self) -> bool:
        """Only the end of the connection shows the end of the body."""
        return self.head is not None and self.head.framing is _CLOSE

    def _take(self, size: int, *, more: bool) -> None:
        """Counts a piece of a body whose length was promised."""
        assert self.head is not None
        left = self._left - size
        if left < 0:
            raise MisusedProtocol(too_long(self.head.length))
        if left and not more:
            raise MisusedProtocol(too_short(left, self.head.length))
        self._left = left

    def file(self, size: int, *, more: bool, closing: bool) -> bytes | None:
        """As `body`, for that many bytes of a file; the caller sends them behind what this returns.

        None if the bytes have to be framed (`body`).
        """
        prefix, head = b"", self.head
        if self.response_state is _STARTED:
            head = self.begin(-1 if more or self.after_body is _TRAILERS else size, closing=closing)
            prefix = head.data
        elif self.response_state is not _BODY:
            self.must_take("http.response.pathsend")
        assert head is not None
        if head.framing is _CHUNKED:
            return None  # the head goes with the first chunk
        if head.framing is _LENGTH:
            self._take(size, more=more)
        self.response_state = _BODY if more else self.after_body
        if head.framing is not _NONE:
            self.sent += size
        return prefix

    @property
    def has_body(self) -> bool:
        """Bytes of the body reach the client; not with HEAD, 204 or 304."""
        return self.head is None or self.head.framing is not _NONE

    def trailers(self, message: Message) -> bytes:
        """`http.response.trailers`; they reach a client that takes them (RFC 9110 section 6.5)."""
        if self.response_state is not _TRAILERS:
            self.must_take("http.response.trailers")
        assert self.head is not None
        chunked = self.head.framing is _CHUNKED
        pairs, more = text_pairs(message), field(message, "more_trailers", bool, int)
        lines = b""
        try:
            for pair in pairs:
                if pair[0].lower() in _NO_TRAILERS:
                    raise ValueError(f"{pair[0]} can not be a trailer")
                lines += field_line(pair)
        except ValueError as problem:
            raise wrong_value(message, problem) from None
        if not more:
            self.response_state = _COMPLETE
        if not chunked:
            return b""
        if not self._takes_trailers():
            lines = b""
        return lines if more else lines + b"\r\n"

    def _takes_trailers(self) -> bool:
        accepted = self.request.environ.get("HTTP_TE", "")
        return any(part.split(";")[0].strip().lower() == "trailers" for part in accepted.split(","))


def early_hint(message: Message) -> bytes:
    """`http.response.early_hint`: an interim response 103 (RFC 8297) with the links.

    Raises TypeError or ValueError.
    """
    try:
        links = [("Link", link.decode("latin-1")) for link in message["links"]]
    except (AttributeError, KeyError, TypeError):
        raise TypeError(f"{message['type']}: links must be a list of bytes") from None
    try:
        return early_hints(links)
    except ValueError as problem:
        raise wrong_value(message, problem) from None


def _are_constant(headers: list[Any]) -> bool:
    """The list is all that the application can change of these pairs."""
    return all(type(pair) is tuple and type(pair[0]) is type(pair[1]) is bytes for pair in headers)


def text_pairs(message: Message) -> list[tuple[str, str]]:
    """The headers of a message.  Raises TypeError if they are no pairs of bytes."""
    headers: Iterable[Any] = message.get("headers") or ()
    try:
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    except (AttributeError, ValueError, TypeError):
        what = "headers must be pairs of bytes, (name, value)"
        raise TypeError(f"{message['type']}: {what}") from None


def as_bytes(message: Message, key: str = "body") -> bytes:
    """A body, or the bytes of a message.  Raises TypeError for what is no bytes: bytes(7) are seven
    zeros."""
    data = message.get(key, b"")
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise wrong_field(message, key, "bytes")


def kind_of(message: Message) -> Any:
    """The type of a message.  Raises TypeError if it has none."""
    try:
        return message["type"]
    except (KeyError, TypeError):
        raise TypeError(f"a message must be a dict with a type, not {message!r:.80}") from None


def field(message: Message, key: str, *kinds: type) -> Any:
    """A field of a message, None if it is not there.

    Raises TypeError unless it is of one of these types; the first is what the specification says.
    """
    value = message.get(key)
    if value is None or isinstance(value, kinds):
        return value
    raise wrong_field(message, key, kinds[0].__name__)


def wrong_field(message: Message, key: str, wanted: str) -> TypeError:
    """The error that says what a field has to be."""
    return TypeError(
        f"{message['type']}: {key} must be {wanted}, not {type(message.get(key)).__name__}"
    )


def wrong_value(message: Message, problem: object) -> ValueError:
    """The error that says what is wrong with a value of a message."""
    return ValueError(f"{message['type']}: {problem}")
