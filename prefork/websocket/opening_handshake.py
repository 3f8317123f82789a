"""The opening handshake of a WebSocket (RFC 6455 section 4.2), as a request of our reader.

The reader has found method, version, target, `Host` and field lines as they should be.  Whose
`Origin` is welcome, and which subprotocol is spoken, the application decides.
"""

import re
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Final, NamedTuple

from prefork.http.head_rules import TOKEN, Reject
from prefork.http.response_head import Headers, error, interim_lines
from prefork.websocket.message_deflate import ExtensionOffer, parse_extensions

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = "13"

_OURS: Final = frozenset(
    f"sec-websocket-{name}" for name in ("accept", "extensions", "key", "protocol", "version")
)
"""Headers of the response that an application may not set."""

_WHITE = re.compile(r"[ \t]*,[ \t]*")


class OpeningHandshake(NamedTuple):
    """A request that asks for a WebSocket, and may get it."""

    key: str
    subprotocols: tuple[str, ...]
    """That the client speaks, the one it likes best first."""
    extensions: tuple[ExtensionOffer, ...]


def _elements(value: object) -> list[str]:
    """The elements of a header that is a list (RFC 9110 section 5.6.1)."""
    return [each for each in _WHITE.split(str(value).strip(" \t")) if each]


def asks_for_websocket(environ: Mapping[str, object], *, http11: bool) -> bool:
    """Whether a request asks to go on as a WebSocket, well or badly.

    `environ`: of CGI names, as PEP 3333 has them.  RFC 9110 section 7.8: an `Upgrade` of HTTP/1.0
    is ignored, and so is one of which `Connection` says nothing.  A WebSocket begins with a GET.
    """
    if "HTTP_UPGRADE" not in environ or not http11 or environ.get("REQUEST_METHOD") != "GET":
        return False
    if "websocket" not in [each.lower() for each in _elements(environ["HTTP_UPGRADE"])]:
        return False
    connection = _elements(environ.get("HTTP_CONNECTION", ""))
    return "upgrade" in [each.lower() for each in connection]


def read_handshake(environ: Mapping[str, object]) -> OpeningHandshake:
    """Reads a request for which `asks_for_websocket` holds.

    Raises Reject: 426 for another version of the protocol (section 4.4), 400 for a request that is
    not as section 4.2.1 wants it.
    """
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != _VERSION:
        raise Reject(
            426,
            f"Sec-WebSocket-Version has to be {_VERSION}",
            ("Sec-WebSocket-Version", _VERSION),
        )
    key = str(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""))
    try:
        decoded = a2b_base64(key, strict_mode=True)
    except (Base64Error, ValueError):
        decoded = b""
    if len(decoded) != 16 or len(key) != 24:
        raise Reject(400, "Sec-WebSocket-Key is not the base64 of 16 bytes")
    if str(environ.get("CONTENT_LENGTH") or "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
        raise Reject(400, "a request for a WebSocket has a body")
    subprotocols = _elements(environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", ""))
    for each in subprotocols:
        if not TOKEN.fullmatch(each.encode("latin-1")):
            raise Reject(400, "Sec-WebSocket-Protocol is not a list of tokens")
    if len(set(subprotocols)) < len(subprotocols):
        raise Reject(400, "Sec-WebSocket-Protocol has an element twice")
    try:
        extensions = parse_extensions(str(environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS", "")))
    except ValueError as problem:
        raise Reject(400, str(problem)) from None
    return OpeningHandshake(key, tuple(subprotocols), tuple(extensions))


def accept_token(key: str) -> str:
    """`Sec-WebSocket-Accept` for a client's key (section 4.2.2)."""
    return b64encode(sha1(key.encode("ascii") + _GUID).digest()).decode("ascii")


def accepting_response(
    handshake: OpeningHandshake,
    subprotocol: str | None = None,
    headers: Headers = (),
    extensions: Sequence[str] = (),
) -> bytes:
    """The response 101, after which frames follow.

    Raises ValueError or TypeError for a subprotocol that the client does not offer (section 4.1:
    it would fail the connection), and for a header that an application may not send.
    """
    lines = [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        f"Sec-WebSocket-Accept: {accept_token(handshake.key)}\r\n".encode("ascii"),
    ]
    if subprotocol is not None:
        if subprotocol not in handshake.subprotocols:
            offered = ", ".join(handshake.subprotocols) or "none"
            raise ValueError(
                f"subprotocol {subprotocol!r} is not among those that the client offers: {offered}"
            )
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}\r\n".encode("ascii"))
    if extensions:
        lines.append(f"Sec-WebSocket-Extensions: {', '.join(extensions)}\r\n".encode("ascii"))
    for name, _ in headers:
        if name.lower() in _OURS:
            raise ValueError(f"header {name} of a WebSocket's response is the server's")
    return b"".join([*lines, interim_lines(headers), b"\r\n"])


def refusing_response(problem: Reject) -> bytes:
    """The response to a request that `read_handshake` has refused; it ends the connection."""
    answer = error(problem.status, problem.reason, headers=problem.headers)
    if problem.status != 426:
        return answer
    # RFC 9110 sections 15.5.22 and 7.8: a 426 names the protocol, as an option of the connection.
    line, rest = answer.split(b"\r\n", 1)
    return line + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + rest
