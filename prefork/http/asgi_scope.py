"""The scope of an ASGI application, from the same request that a WSGI application gets.

The HTTP specification of ASGI 3, version 2.5.  A scope is made of the environ of the request and of
its field lines: what a proxy was believed, or refused, is the same for both kinds of application.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from prefork.http.request import Environ, Request

Scope = dict[str, Any]
Pair = tuple[bytes, bytes]

SPEC_VERSION = "2.5"

_ASGI = {"version": "3.0", "spec_version": SPEC_VERSION}

_EXTENSIONS: dict[str, dict[str, Any]] = {
    "http.response.early_hint": {},
    "http.response.trailers": {},
    "http.response.pathsend": {},
    "http.response.zerocopysend": {},
}
"""Messages that an application may send, too; what each of them allows is empty, and shared."""

_ADDRESSES_KEPT = 4096
_NAMES_KEPT = 512
_NAME_SIZE = 64

_TLS_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


class _Addresses(dict[tuple[str, str], tuple[str, int]]):
    """Addresses as a scope has them, by address and port of the environ."""

    def __missing__(self, named: tuple[str, str]) -> tuple[str, int]:
        host, port = named
        found = host, int(port) if port.isdecimal() else 0
        if len(self) >= _ADDRESSES_KEPT:
            self.clear()
        self[named] = found
        return found


class _Names(dict[str, bytes]):
    """Names of headers in lower case, by their key in the environ."""

    def __missing__(self, key: str) -> bytes:
        name = key.removeprefix("HTTP_").lower().replace("_", "-").encode()
        if len(key) <= _NAME_SIZE:
            if len(self) >= _NAMES_KEPT:  # clients choose names
                self.clear()
            self[key] = name
        return name


_addresses = _Addresses()
_names = _Names()


def header_pairs(request: Request) -> list[Pair]:
    """The headers of a request in the order in which they came, each with its name in lower case.

    Headers that the environ does not have are left out, and a host that a proxy or an absolute
    target gives takes the place of the client's.
    """
    pairs = [(_names[key], value.encode("latin-1")) for key, value in request.fields if key]
    host = request.environ.get("HTTP_HOST")
    if host is not None:
        given = (b"host", host.encode("latin-1"))
        if given not in pairs:
            pairs = [given, *(pair for pair in pairs if pair[0] != b"host")]
    return pairs


def http_scope(
    request: Request,
    unix: str | None = None,
    state: Mapping[str, Any] | None = None,
) -> Scope:
    """The scope of a request (`type` is "http").

    `unix`: the path of the Unix socket at which it came, "" for an abstract one.  `state`: what the
    lifespan has left there; each request gets a copy.
    """
    environ, repeated = request.environ, request.repeated
    if repeated is None:
        scope = _scope(request, unix)
    else:
        model = repeated.scope
        if model is None:
            model = repeated.scope = _scope(request, unix)
        scope = model.copy()
        scope["headers"] = model["headers"].copy()
    scope["asgi"] = _ASGI.copy()
    client = environ["REMOTE_ADDR"]
    scope["client"] = _addresses[client, environ["REMOTE_PORT"]] if client else None
    scope["extensions"] = found = _EXTENSIONS.copy()
    if "SSL_PROTOCOL" in environ:
        found["tls"] = _tls(environ)
    if state is not None:
        scope["state"] = dict(state)
    return scope


def _scope(request: Request, unix: str | None) -> Scope:
    """What the scopes of requests with the same head at the same listener have in common; with
    what differs, and what is made anew since an application may change it, left to be filled in."""
    environ = request.environ
    root, path = environ["SCRIPT_NAME"], environ["PATH_INFO"]
    raw = raw_path(environ["RAW_URI"])
    if root:
        path, raw = root + path, root.encode("latin-1") + raw
    return {
        "type": "http",
        "asgi": None,
        "http_version": "1.1" if request.http11 else "1.0",
        "method": environ["REQUEST_METHOD"],
        "scheme": environ["wsgi.url_scheme"],
        "path": path if path.isascii() else _decoded(path),
        "raw_path": raw,
        "query_string": environ["QUERY_STRING"].encode("latin-1"),
        "root_path": _decoded(root),
        "headers": header_pairs(request),
        "client": None,
        "server": _addresses[environ["SERVER_NAME"], environ["SERVER_PORT"]]
        if unix is None
        else (unix, None),
        "extensions": None,
    }


def websocket_scope(
    request: Request,
    subprotocols: Sequence[str],
    unix: str | None = None,
    state: Mapping[str, Any] | None = None,
) -> Scope:
    """The scope of a request for a WebSocket; `subprotocols`: those that the client offers.

    For the rest see `http_scope`.
    """
    scope = http_scope(request, unix, state)
    del scope["method"]
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
    scope["subprotocols"] = list(subprotocols)
    found: dict[str, dict[str, Any]] = {"websocket.http.response": {}}
    tls = scope["extensions"].get("tls")
    scope["extensions"] = found if tls is None else found | {"tls": tls}
    return scope


def raw_path(target: str) -> bytes:
    """The path of a request target as it came, without the query."""
    path = target.partition("?")[0]
    if not path.startswith("/"):  # the absolute form, or "*" (RFC 9112 section 3.2)
        _, _, rest = path.partition("://")
        slash = rest.find("/")
        path = rest[slash:] if slash >= 0 else "/"
    return path.encode("latin-1")


def _decoded(path: str) -> str:
    """A path of the environ, which has each byte as a character; as UTF-8."""
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")


def _tls(environ: Environ) -> dict[str, Any]:
    """The extension `tls`; values that are not known here are None, as it allows."""
    certificate = environ.get("SSL_CLIENT_CERT")
    return {
        "server_cert": None,
        "client_cert_chain": [certificate] if certificate else [],
        "client_cert_name": environ.get("SSL_CLIENT_S_DN"),
        "client_cert_error": None,
        "tls_version": _TLS_VERSIONS.get(environ["SSL_PROTOCOL"]),
        "cipher_suite": None,
    }
