"""The reading side of a connection from a trusted proxy, which speaks for its client."""

from collections.abc import Iterable

from prefork.http import forwarded
from prefork.http.field_lines import FieldLines
from prefork.http.head_reader import Head, read_head
from prefork.http.limits import RequestLimits
from prefork.http.reader import Peer, RequestReader
from prefork.http.request import Environ


class ProxiedReader(RequestReader):
    """Takes what the proxy says of its client into each request's environ."""

    __slots__ = ("_trusts",)

    proxied = True

    def __init__(
        self,
        base: Environ,
        limits: RequestLimits,
        peer: Peer,
        trusts: forwarded.Trusts,
        lines: FieldLines,
    ) -> None:
        """lines: made with the `keys` of the fields that are believed, and shared by all such
        readers of a listener."""
        super().__init__(base, limits, peer, lines)
        self._trusts = trusts

    def _parse(self, data: bytes) -> Head:
        # A trusted gateway has seen to the security of an https resource (RFC 9110 section 7.4).
        head = read_head(data, self._base, self.peer, self._lines, self._limits, gateway=True)
        environ = head[0]
        headers = {key: environ[key] for key in self._lines.believed if key in environ}
        if headers:
            forwarded.apply(environ, forwarded.read(headers, self._trusts))
        return head


def keys(headers: Iterable[str]) -> dict[bytes, str]:
    """The environ's key of each header, by its name in lower case."""
    return {name.lower().encode(): "HTTP_" + name.upper().replace("-", "_") for name in headers}
