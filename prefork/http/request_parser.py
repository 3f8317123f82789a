"""One HTTP/1.1 connection: bytes in, requests out.

The parser calls back for each piece of a message, and the pieces go straight into the environ of
PEP 3333: a copy of the listener's base, so that what is the same for each request is written
once.  Nothing here touches a socket; the connection feeds bytes and takes requests.
"""

from io import BufferedReader, BytesIO
from typing import Any

import httptools

from prefork.http.body_framing import CHUNKED, ChunkedFraming, body_length
from prefork.http.gathered_body import GatheredBody
from prefork.http.head_cache import CachedHead, CachedSection, HeadCache
from prefork.http.head_rules import (
    Reject,
    cgi_name,
    check_authority,
    check_size,
    foreign_targets,
    known_authorities,
    path_of,
    rejection,
    split_target,
)
from prefork.http.limits import RequestLimits as RequestLimits
from prefork.http.request import Environ, Request
from prefork.http.streamed_body import BUFFER, StreamedBody
from prefork.http.untrusted_proxy import untrusted_proxies

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Lists that a client may send on several lines are joined by a comma (RFC 9110 section 5.3);
# cookies by a semicolon (RFC 9113 section 8.2.3 has the same case).
_SINGULAR = frozenset({"CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_HOST"})

Peer = tuple[str, str]
"""Address and port, empty if there is none."""

_START = 16 * 1024
"""Bytes kept of a head that comes in pieces, to look at its first line."""


class RequestParser:
    """The reading side of a connection; also what httptools calls back."""

    __slots__ = (
        "_base",
        "_begun",
        "_chunk",
        "_environ",
        "_fed",
        "_foreign",
        "_foreign_in",
        "_framing",
        "_host",
        "_keep_alive",
        "_limits",
        "_line",
        "_parser",
        "_repeated",
        "_section",
        "_start",
        "_url",
        "body",
        "error",
        "idle",
        "in_body",
        "last",
        "peer",
        "recall",
        "requests",
        "surplus",
        "wants_continue",
    )

    proxied = False
    """The peer is a trusted proxy: its word on how a request came to it is taken."""

    def __init__(self, base: Environ, limits: RequestLimits, peer: Peer = ("", "")) -> None:
        """`base`: what the environ of each request begins with; others share it.  It has
        REMOTE_ADDR and REMOTE_PORT, in whose place `peer` is put."""
        self._base = base
        self.peer = peer
        self._limits = limits
        self._parser: Any = None  # made for the first head that has to be read
        self._environ: Environ | None = None
        self._url = b""
        self._line = b""
        self._begun = False
        self._fed = 0
        self.idle = True
        """Between two requests: nothing of the next has come."""
        self._chunk = 0
        self._repeated = 0
        self._start = b""
        self._foreign_in = b""
        self._foreign: frozenset[bytes] = frozenset()
        self._framing: ChunkedFraming | None = None  # there while a body comes in chunks
        self._keep_alive = False
        self._section: CachedSection | None = None
        self.recall: HeadCache | None = None
        """Where heads that come again are found, if they are looked for."""
        self.body: GatheredBody | StreamedBody | None = None
        """Of the request that is being read."""
        self.requests: list[Request] = []
        """Complete requests, oldest first (pipelining).

        A list: an empty deque has 0.6 KB, for each of many idle connections."""
        self.error: Reject | None = None
        """Why nothing more is read; to be answered after `requests`."""
        self.in_body = False
        """A head is complete and its body is not."""
        self.last = False
        """The last complete request asked for the end of the connection."""
        self.surplus = False
        """Bytes came that nobody will answer."""
        self.wants_continue = False
        """The client waits for 100 before it sends the body."""

    def close(self) -> None:
        """Drops the parser, which refers to this object: a cycle for each connection."""
        self._parser = None

    def extend(self, more: Environ) -> None:
        """What is known now of this connection alone, for the environ of each of its requests."""
        self._base = {**self._base, **more}

    @property
    def method(self) -> str:
        """Of the request that is being read; "GET" if that is not known yet."""
        return "GET" if self._environ is None else self._parser.get_method().decode("latin-1")

    def finish(self) -> None:
        """The connection ends with the response that was just sent: no request is read any more."""
        self.surplus = self.surplus or bool(self.requests) or not self.idle
        self.requests.clear()
        self.last = True

    def feed(self, data: bytes) -> None:
        """Reads bytes as they came, cut anywhere; never raises for what a client sent.

        Raises OSError if a body can't be kept (disk full).
        """
        request = self.read(data)
        if request is not None:
            self.requests.append(request)

    def again(self, head: CachedHead) -> Request:
        """A request of this connection's with a head that was read before."""
        environ = head.environ.copy()
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.peer
        environ["wsgi.input"] = BytesIO()
        return Request(environ, head.line, True, head.keep_alive, None, head)

    def read(self, data: bytes) -> Request | None:
        """The same; a request whose head was read before is returned, and not among `requests`."""
        if self.error is not None or self.last:
            self.surplus = True
            return None
        tail = b""
        recall = self.recall
        if recall is not None and self.idle:
            head = recall.heads.get(data)
            if head is None:
                head, tail = self._put_together(data, recall)
            if head is not None:
                self.last = not head.keep_alive
                return self.again(head)
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        complete = len(self.requests)
        body = self.body
        size = 0 if body is None else body.size
        # What came since this request began, at least; only its first line is of interest.
        if self._fed == 0:
            # One that began in the packet of another is never the first in `_start`.
            self._start = b"\n" + self._start + data if self._begun else data
        elif not self.in_body and len(self._start) < _START:
            self._start += data
        try:
            while True:
                try:
                    self._fed += len(data)
                    self.idle = False
                    self._chunk = len(data)
                    self._parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    # We upgrade to nothing: what follows is the next request.
                    data = self._start = data[upgrade.args[0] :]
                    if not data:
                        break
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, Reject):
                raise (cause or error) from None
            self.error = cause
            # It has this frame in it, which has it: a cycle that would keep the body, and its file,
            # until garbage is collected.
            cause.__traceback__ = None
        except httptools.HttpParserError as error:
            # Bytes after a request that said `Connection: close` are nobody's.
            if self.last:
                self.surplus = True
            else:
                # Where a message ends is not told: behind one, what was read last is not known.
                self.error = rejection(error, data if len(self.requests) == complete else b"")
        if self.error is not None and isinstance(self.body, StreamedBody):
            # The application has this request: it, or the answer to it, tells the client.
            self.body.fail(self.error)
            self.error = None
            self.last = self.surplus = True
        elif self._fed and self.error is None:
            if not self.in_body:
                self._check_unfinished_head()
            elif body is not None and body is self.body and self._framing is not None:
                self.error = self._framing.problem(len(data), body.size - size)
        elif self._environ is None:
            self._start = b""  # what is idle keeps nothing of what it was sent
            if tail and recall is not None and len(self.requests) == complete + 1:
                recall.note(data, tail, self.requests[-1])
        return None

    def _put_together(self, data: bytes, recall: HeadCache) -> tuple[CachedHead | None, bytes]:
        """A head of two parts that were read before, or the part that may be worth to be kept."""
        section = self._section
        if section is None or not data.endswith(section.data):
            tail = recall.tail(data)
            section = recall.sections.get(tail)
            if section is None:
                return None, tail
            self._section = section
            recall.succeed()
        return recall.head(data, section, self._limits.request_line), b""

    def _check_unfinished_head(self) -> None:
        # All of `_fed` belongs to a head that has no end yet, so this is no guess.
        limits = self._limits
        if limits.request_line and len(self._url) > limits.request_line:
            self.error = Reject(414, f"request line is longer than {limits.request_line} bytes")
        elif limits.header_size and self._fed > limits.header_size + max(limits.request_line, 8192):
            status = 431 if self._environ and len(self._environ) > len(self._base) else 414
            self.error = Reject(status, f"head is longer than {limits.header_size} bytes")

    # What httptools calls.

    def on_message_begin(self) -> None:
        # Behind another request in its packet, the first letters of a method show nowhere else.
        self._begun = True
        self.idle = False

    def on_url(self, url: bytes) -> None:
        if self._environ is None:
            self._environ = environ = self._base.copy()
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = self.peer
            self._url = url
        else:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        environ = self._environ
        if environ is None or self.in_body:
            if self._framing is not None:
                self._framing.add_trailer(name, value)
            return
        key = cgi_name(name)
        # Space around a value is no part of it (RFC 9112 section 5.1); llhttp leaves what trails.
        text = value.decode("latin-1").rstrip(" \t")
        if key not in environ:
            environ[key] = text
        else:
            self._repeat(environ, key, text)

    def _repeat(self, environ: Environ, key: str, value: str) -> None:
        if key in _SINGULAR:
            raise Reject(400, f"{key.removeprefix('HTTP_')} given more than once")
        # Counted here, since a repeated name does not grow the environ.
        self._repeated += 1
        limit = self._limits.header_count
        if limit and self._repeated > limit:
            raise Reject(431, f"more than {limit} headers")
        if key:
            environ[key] += ("; " if key == "HTTP_COOKIE" else ", ") + value

    def on_headers_complete(self) -> None:
        parser = self._parser
        environ = self._environ
        assert environ is not None
        limits = self._limits
        method = parser.get_method()
        # Ask now: the parser answers otherwise once the message is complete.
        self._keep_alive = parser.should_keep_alive()
        url = self._url
        line = self._line = method + b" " + url
        if self._fed and self._start.startswith(line + b" HTTP/1.1"):
            version = "1.1"  # as the parser would say, which formats it anew each time
        else:
            version = parser.get_http_version()
            if version != "1.1" and version != "1.0":
                raise Reject(505, "this server speaks HTTP/1.0 and HTTP/1.1")
            # llhttp reads the request lines of RTSP and ICE, too, and does not tell.
            if not self._fed or not self._start.startswith(line + b" HTTP/"):
                self._check_protocol(url)
        if limits.request_line and len(line) + 9 > limits.request_line:
            raise Reject(414, f"request line is longer than {limits.request_line} bytes")
        headers = len(environ) - len(self._base) + self._repeated
        if environ.pop("", None) is not None and not self.proxied:
            untrusted_proxies.inspect(self.peer[0], self._start)
        if limits.header_count and headers > limits.header_count:
            raise Reject(431, f"more than {limits.header_count} headers")
        if limits.header_size and self._fed + self._chunk > limits.header_size:
            check_size(environ, self._base, limits.header_size)
        if method == b"CONNECT":  # its target is of a form of its own
            raise Reject(501, "CONNECT is for proxies")
        host = None
        usual = path_of(url)
        if usual is not None:
            environ["PATH_INFO"], environ["QUERY_STRING"], environ["RAW_URI"] = usual
        else:
            environ["PATH_INFO"], environ["QUERY_STRING"], host = split_target(url, method)
            environ["RAW_URI"] = url.decode("latin-1")
            if host is not None and url[:6].lower() == b"https:":
                self._check_secured(environ)
        environ["REQUEST_METHOD"] = method.decode("latin-1")
        if version == "1.1":
            environ["SERVER_PROTOCOL"] = "HTTP/1.1"
            if "HTTP_HOST" not in environ:
                raise Reject(400, "Host is missing")
        else:
            environ["SERVER_PROTOCOL"] = "HTTP/1.0"
        authority = environ.get("HTTP_HOST")
        if authority is not None and authority not in known_authorities:
            check_authority(authority)
        if host is not None:
            environ["HTTP_HOST"] = host  # RFC 9112 section 3.2.2
        if "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ:
            self._expect_body(environ)
        elif "HTTP_EXPECT" in environ and environ["HTTP_EXPECT"].lower() != "100-continue":
            raise Reject(417, "unknown expectation")

    def _check_protocol(self, url: bytes) -> None:
        """For a request that was not the first in its packet, came in pieces, or is odd."""
        if self._foreign_in is not self._start:  # once for all that a packet holds
            self._foreign_in = self._start
            self._foreign = foreign_targets(self._start)
        if url in self._foreign:
            raise Reject(505, "this server speaks HTTP/1.0 and HTTP/1.1")

    def _check_secured(self, environ: Environ) -> None:
        # RFC 9110 section 7.4: an https resource is not served over a connection in the clear.
        if environ.get("wsgi.url_scheme") == "http":
            raise Reject(421, "an https URL was asked for over a connection without TLS")

    def _expect_body(self, environ: Environ) -> None:
        limits = self._limits
        length = body_length(environ, limits.body)
        if not length:
            return
        if "HTTP_UPGRADE" in environ and self._parser.should_upgrade():
            # llhttp leaves the body of such a request unread: it would be taken for the next.
            raise Reject(400, "a request with a body can't ask for an upgrade")
        expectation = environ.get("HTTP_EXPECT")
        if expectation is not None:
            if expectation.lower() != "100-continue":
                raise Reject(417, "unknown expectation")
            self.wants_continue = environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        self.in_body = True
        if length == CHUNKED:
            self._framing = ChunkedFraming(limits.header_count, limits.header_size)
        if limits.stream:
            self.body = StreamedBody(limits.body, length, awaited=self.wants_continue)
            environ["wsgi.input"] = BufferedReader(self.body, BUFFER)
            self._hand_out(environ, self.body)
        else:
            self.body = GatheredBody(limits.body_memory, limits.body, limits.budget, limits.disk)

    def _hand_out(self, environ: Environ, body: GatheredBody | StreamedBody | None) -> None:
        http11 = environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        self.requests.append(Request(environ, self._line, http11, self._keep_alive, body))

    def on_body(self, data: bytes) -> None:
        assert self.body is not None
        self.wants_continue = False
        self.body.write(data)

    def on_message_complete(self) -> None:
        environ = self._environ
        assert environ is not None
        body = self.body
        if type(body) is StreamedBody:
            body.complete()
        else:
            if body is None:
                environ["wsgi.input"] = BytesIO()
            else:
                environ["wsgi.input"] = body.whole()
                if environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
                    # The coding is undone: the application sees a plain body of known length.
                    environ["CONTENT_LENGTH"] = str(body.size)
            self._hand_out(environ, body)
        if body is not None:
            self.body = None
            self.in_body = False
            self.wants_continue = False
            self._framing = None
        self.last = not self._keep_alive
        self._environ = None
        self._begun = False
        self._fed = 0
        self.idle = True
        self._repeated = 0
