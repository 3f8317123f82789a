"""The parser for a connection from a trusted proxy, whose headers describe its client."""

from collections.abc import Iterable

from prefork.http import forwarded
from prefork.http.request import Environ
from prefork.http.request_parser import Peer, RequestLimits, RequestParser


class ProxiedRequestParser(RequestParser):
    """Puts the proxy's description of its client into each request's environ."""

    __slots__ = ("_names", "_trusts")

    proxied = True

    def __init__(
        self,
        base: Environ,
        limits: RequestLimits,
        peer: Peer,
        trusts: forwarded.Trusts,
        names: dict[bytes, str],
    ) -> None:
        """`names`: the headers that are believed, as `keys` has them."""
        super().__init__(base, limits, peer)
        self._trusts = trusts
        self._names = names

    def on_header(self, name: bytes, value: bytes) -> None:
        key = self._names.get(name.lower())
        environ = self._environ
        if key is None or environ is None or self.in_body:
            super().on_header(name, value)
            return
        text = value.decode("latin-1").rstrip(" \t")
        if key in environ:
            self._repeat(environ, key, text)
        else:
            environ[key] = text

    def _check_secured(self, environ: Environ) -> None:
        """A trusted gateway has seen to it (RFC 9110 section 7.4)."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        environ = self._environ
        assert environ is not None
        headers = {key: environ[key] for key in self._names.values() if key in environ}
        if headers:
            forwarded.apply(environ, forwarded.read(headers, self._trusts))


def keys(headers: Iterable[str]) -> dict[bytes, str]:
    """The environ's key of each header, by its name in lower case."""
    return {name.lower().encode(): "HTTP_" + name.upper().replace("-", "_") for name in headers}
