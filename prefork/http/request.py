"""One request, as it is handed to an application."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from prefork.http.gathered_body import GatheredBody
from prefork.http.streamed_body import StreamedBody

Environ = dict[str, Any]


class RepeatedRequest:
    """A request that came before, byte for byte; others share it."""

    __slots__ = ("answer", "scope")

    def __init__(self) -> None:
        self.scope: dict[str, Any] | None = None
        """What its ASGI scopes have in common (prefork.http.asgi_scope), once one was made."""
        self.answer: Any = None
        """How the last response to it began (prefork.apps.asgi_response.RepeatedAnswer)."""


class Request(Struct, eq=False):
    """One request: complete, or with a body that is still coming (a `StreamedBody`)."""

    environ: Environ
    """The application's, which may change and empty it (PEP 3333): once it was called, nothing of
    the response may depend on this."""
    line: bytes
    """Method and target."""
    http11: bool
    keep_alive: bool
    body: GatheredBody | StreamedBody | None
    repeated: RepeatedRequest | None = None
    """The request that it repeats, if that is known."""
    id: str = ""
    fields: Sequence[tuple[str, str]] = ()
    """Its field lines in the order in which they came: key in the environ, and value; the key is ""
    for a field that must not reach the application."""
    id_line: bytes = b""
    """The header line with its id for the client; see `prefork.http.request_id`."""

    @property
    def method(self) -> str:
        """The method that the client has sent."""
        return self.line.partition(b" ")[0].decode("latin-1")

    def marked(self, response: bytes) -> bytes:
        """A response, or its head, with the line in it."""
        end = response.index(b"\r\n") + 2
        return response[:end] + self.id_line + response[end:]
