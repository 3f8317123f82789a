"""The parser of a response: from bytes to status, headers and pieces of the body.

It is based on llhttp.  One parser reads one response.  It needs the method of the request, since a
response to HEAD has the headers of a body, but no body.
"""

import httptools

LIMIT = 256 * 1024
"""The most bytes in a row that are not part of a body: heads, trailers, chunk extensions."""


class NotHTTP(Exception):
    """The bytes are not a response; the text is the reason."""


class Incomplete(Exception):
    """The connection ended before the response did; the text says where."""


class ResponseParser:
    """`feed` takes bytes, `eof` the end of the connection; `take` returns pieces of the body."""

    def __init__(self, method: str = "GET") -> None:
        self.status = 0
        self.reason = ""
        self.version = ""
        self.headers: list[tuple[str, str]] = []
        self.started = False
        self.head_complete = False
        self.complete = False
        self.keep_alive = False
        self.excess = False
        self.received = 0
        self._method = method
        self._until_close = False
        self._idle = 0
        self._body: list[bytes] = []
        self._reason = b""
        self._parser = httptools.HttpResponseParser(self)

    @property
    def length(self) -> int | None:
        """Bytes of the body by the head; None if it does not say."""
        value = self.header("Content-Length")
        return int(value) if value is not None and self._method != "HEAD" else None

    def header(self, name: str) -> str | None:
        """The first header of this name."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    def feed(self, data: bytes) -> None:
        """Parses received bytes; raises NotHTTP."""
        if self.complete:
            self.excess = True
            return
        self.started = True
        before = self.received
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise NotHTTP(
                "the server switched to another protocol without a request for it"
            ) from None
        except httptools.HttpParserError as error:
            # Bytes after the end of the response are unexpected: there is no further request.
            if not self.complete:
                raise NotHTTP(str(error)) from None
            self.excess = True
        if self.head_complete and not self.version.startswith("1."):
            raise NotHTTP(f"the response has version HTTP/{self.version}")
        self._idle = 0 if self.received > before else self._idle + len(data)
        if self._idle > LIMIT:
            where = "between pieces of body" if self.head_complete else "of head"
            raise NotHTTP(f"more than {LIMIT} bytes {where}")

    def eof(self) -> None:
        """The server has closed, which is the end of some bodies; else raises Incomplete."""
        if not self.started:
            raise Incomplete("before the first byte of a response")
        if not self.head_complete:
            raise Incomplete("in the head of the response")
        if not self.complete and not self._until_close:
            of = "" if self.length is None else f" of {self.length}"
            raise Incomplete(f"after {self.received}{of} bytes of the body")
        self.complete = True

    def take(self) -> list[bytes]:
        """The pieces of the body since the last call."""
        pieces, self._body = self._body, []
        return pieces

    # Callbacks of httptools.

    def on_message_begin(self) -> None:
        if self.complete:
            self.excess = True

    def on_status(self, status: bytes) -> None:
        if not self.complete:
            self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        # Later ones are trailers, or belong to unexpected bytes.
        if not self.head_complete:
            self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            # An interim response (RFC 9110 section 15.2): the final one follows.
            return
        self.status = status
        self.reason = self._reason.decode("latin-1")
        self.version = self._parser.get_http_version()
        # Read here, since the value changes later.
        self.keep_alive = self._parser.should_keep_alive()
        coded = (self.header("Transfer-Encoding") or "").lower().endswith("chunked")
        self._until_close = not coded and self.header("Content-Length") is None
        self.head_complete = True
        if self._method == "HEAD":
            self.complete = True

    def on_body(self, body: bytes) -> None:
        if self.complete:
            self.excess = True
            return
        self.received += len(body)
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self.head_complete:
            self.complete = True
        else:
            self.headers, self._reason = [], b""
