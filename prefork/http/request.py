"""One request, as it is handed to an application."""

from typing import Any

from prefork.http.body import Body
from prefork.http.stream import Stream

Environ = dict[str, Any]


class Request:
    """One request: complete, or with a body that is still coming (a `Stream`)."""

    __slots__ = ("body", "environ", "http11", "id", "id_line", "keep_alive", "line")

    def __init__(
        self,
        environ: Environ,
        line: bytes,
        http11: bool,
        keep_alive: bool,
        body: Body | Stream | None,
    ) -> None:
        self.environ = environ
        self.line = line
        self.http11 = http11
        self.keep_alive = keep_alive
        self.body = body
        self.id = ""
        self.id_line = b""
        """The header line that tells the client its id; see `prefork.http.request_id`."""

    def marked(self, response: bytes) -> bytes:
        """A response, or its head, with the line in it."""
        end = response.index(b"\r\n") + 2
        return response[:end] + self.id_line + response[end:]
