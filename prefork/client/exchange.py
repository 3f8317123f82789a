"""Requests and responses over one kept connection.

While a body is sent, both directions are served.  A server may respond early; with a server that
responds while it reads, each side would otherwise wait for the other.
"""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Self

from prefork.client.connection import (
    ClientConnection,
    ClientError,
    Deadline,
    Disconnected,
    dial,
    dial_unix,
)
from prefork.client.content import Upload
from prefork.client.request_writer import REDIRECTS, ClientRequest, redirected
from prefork.client.response_parser import Incomplete, NotHTTP, ResponseParser
from prefork.client.trace import Trace
from prefork.client.url import URL

DISCARD = 64 * 1024
"""Bytes of a redirect's body that are read to keep the connection."""


class ClientResponse:
    """The response to one request; iterating over it, once, gives the pieces of its body."""

    def __init__(self, connection: ClientConnection, request: ClientRequest) -> None:
        self.request = request
        self._connection = connection
        self._parser = ResponseParser(request.method)
        self._upload = _upload(request)
        self._broken: Disconnected | None = None
        self._ended = False

    @property
    def status(self) -> int:
        return self._parser.status

    @property
    def reason(self) -> str:
        return self._parser.reason

    @property
    def headers(self) -> list[tuple[str, str]]:
        return self._parser.headers

    @property
    def length(self) -> int | None:
        """Bytes of the body; None if the head does not say."""
        return self._parser.length

    @property
    def started(self) -> bool:
        """Whether a byte of it was received."""
        return self._parser.started

    @property
    def head(self) -> bytes:
        """Status line and headers as received, with the empty line."""
        parser = self._parser
        lines = [f"HTTP/{parser.version} {parser.status} {parser.reason}"]
        lines += [f"{name}: {value}" for name, value in parser.headers]
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")

    @property
    def location(self) -> str | None:
        """The target of a redirect; None if it is not a redirect."""
        return self._parser.header("Location") if self.status in REDIRECTS else None

    @property
    def reusable(self) -> bool:
        """Whether the connection is ready for another request."""
        return (
            self._finished
            and self._parser.keep_alive
            and not self._parser.excess
            and not self._ended
            and self._broken is None
            and self._upload is None
            and not self.request.closes
        )

    def begin(self) -> None:
        """Sends the request until the head of the response is complete; raises ClientError."""
        with self._closing():
            head, body = self.request.head(), self.request.body
            if body is not None and self._upload is None:
                head += body.data
            try:
                self._connection.sendall(head)
            except Disconnected as error:
                self._stop_sending(error)
            while not self._parser.head_complete:
                self._step()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield from self._parser.take()
            if self._finished:
                break
            with self._closing():
                self._step()
        if not self.reusable:
            self._connection.close()

    def discard(self) -> None:
        """Reads a short body, so that the connection can be used again; closes if it is long."""
        left = DISCARD
        with contextlib.suppress(Disconnected):
            for piece in self:
                left -= len(piece)
                if left < 0:
                    break
        if not self.reusable:
            self._connection.close()

    @property
    def _finished(self) -> bool:
        # After an error the rest of the body is of no use (RFC 9112 section 9.5); a server with a
        # 2xx status still reads it.
        return self._parser.complete and (self._upload is None or self.status >= 300)

    @contextlib.contextmanager
    def _closing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._connection.close()
            raise

    def _step(self) -> None:
        if self._upload is None:
            self._receive(wait=True)
            return
        upload = self._upload
        source = upload.source
        readable, writable, filled = self._connection.wait(write=source is None, source=source)
        if readable:
            self._receive(wait=False)
        if self._upload is not None and (writable or filled):
            self._send(upload)

    def _send(self, upload: Upload) -> None:
        try:
            upload.push(self._connection)
        except Disconnected as error:
            # The server may have responded before it closed: that is still to be read.
            self._stop_sending(error)
        if upload.done:
            self._upload = None

    def _stop_sending(self, error: Disconnected) -> None:
        self._broken = error
        self._upload = None

    def _receive(self, *, wait: bool) -> None:
        try:
            data = self._connection.recv(wait=wait)
        except Disconnected as error:
            if not self._parser.complete:
                raise self._broken or error from error
            data = b""
        if data:
            self._parse(data)
        elif data is not None:
            self._end()

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except NotHTTP as error:
            raise ClientError("receive", f"not HTTP: {error}") from error

    def _end(self) -> None:
        self._ended, self._upload = True, None
        try:
            self._parser.eof()
        except Incomplete as where:
            raise self._broken or Disconnected("receive", f"closed early, {where}") from where


def _upload(request: ClientRequest) -> Upload | None:
    """The upload after the head; None if a small body is sent with the head, in one segment."""
    body = request.body
    if body is None or (body.small and not request.chunked):
        return None
    return Upload(body, request.chunked)


class HttpClient:
    """Makes requests, one at a time; keeps the connection for the next one of the same origin."""

    def __init__(
        self,
        *,
        connect_timeout: float = 30.0,
        timeout: float = 0.0,
        verify: bool = True,
        trace: Trace | None = None,
    ) -> None:
        """connect_timeout: seconds for each address; 0: no limit.
        timeout: seconds for a request with its redirects and its body; 0: no limit.
        verify: check the certificate of the server, and its name.
        """
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._verify = verify
        self._trace = trace
        self._connection: ClientConnection | None = None
        self._response: ClientResponse | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the kept connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._response = None

    def request(self, request: ClientRequest, redirects: int | None = None) -> ClientResponse:
        """Sends a request and returns when the head of its response is complete.

        redirects: the largest number of redirects to follow; None: the first response is returned.

        Raises ClientError, with the connection closed.
        """
        deadline = Deadline(self._timeout)
        followed = 0
        while True:
            response = self._exchange(request, deadline)
            if redirects is None or response.location is None:
                return response
            if followed == redirects:
                self.close()
                raise ClientError("redirect", f"more than {redirects} in a row")
            followed += 1
            response.discard()
            try:
                request = redirected(request, response.status, response.location)
            except ValueError as error:
                shown = ascii(response.location)
                raise ClientError("redirect", f"to {shown}: {error}") from error

    def _exchange(self, request: ClientRequest, deadline: Deadline) -> ClientResponse:
        kept = self._kept(request.url)
        if kept is not None:
            response = self._response_on(kept, request, deadline)
            try:
                response.begin()
            except Disconnected:
                # The server has closed the idle connection at the same time.
                if response.started or not request.repeatable:
                    raise
            else:
                return response
        self.close()
        self._connection = self._connect(request.url, deadline)
        response = self._response_on(self._connection, request, deadline)
        response.begin()
        return response

    def _response_on(
        self, connection: ClientConnection, request: ClientRequest, deadline: Deadline
    ) -> ClientResponse:
        connection.deadline = deadline
        self._response = ClientResponse(connection, request)
        return self._response

    def _kept(self, url: URL) -> ClientConnection | None:
        """The connection of the last request, if it can be used for this URL."""
        last, connection = self._response, self._connection
        if last is None or connection is None or not last.reusable:
            return None
        return connection if last.request.url.origin == url.origin and connection.idle() else None

    def _connect(self, url: URL, deadline: Deadline) -> ClientConnection:
        if url.unix:
            connection = dial_unix(
                url.unix, timeout=self._connect_timeout, deadline=deadline, trace=self._trace
            )
        else:
            connection = dial(
                url.host,
                url.port,
                timeout=self._connect_timeout,
                deadline=deadline,
                trace=self._trace,
            )
        if url.scheme == "https":
            try:
                connection.start_tls(self._context(), url.host.split("%")[0])
            except BaseException:
                connection.close()
                raise
        return connection

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        # By default Python hides an end without close_notify: the body may then be truncated.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
