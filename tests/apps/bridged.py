"""The WSGI application of `basic` as an ASGI application, so that both kinds answer alike."""

import io
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tests.apps import basic

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise ValueError(f"{scope['type']} is not served here")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client has left")
        body += message["body"]
        if not message["more_body"]:
            break
    response = _Response()
    result: Iterable[bytes] = basic.app(environ_of(scope, bytes(body)), response.start)
    try:
        if isinstance(result, (list, tuple)):
            await send(response.head())
            await send(
                {"type": "http.response.body", "body": b"".join([*response.written, *result])}
            )
            return
        for piece in result:
            if not response.sent:
                await send(response.head())
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        if not response.sent:
            await send(response.head())
        await send({"type": "http.response.body"})
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()


class _Response:
    """What `start_response` was given."""

    def __init__(self) -> None:
        self.sent = False
        self.written: list[bytes] = []
        self._status = ""
        self._headers: list[tuple[str, str]] = []

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        self._status, self._headers = status, headers
        return self.written.append

    def head(self) -> dict[str, Any]:
        self.sent = True
        return {
            "type": "http.response.start",
            "status": int(self._status[:3]),
            "headers": [
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in self._headers
            ],
        }


def environ_of(scope: dict[str, Any], body: bytes) -> dict[str, Any]:
    """The environ of PEP 3333 for a scope, as far as the latter has it."""
    root = scope["root_path"]
    client, server = scope["client"] or ("", ""), scope["server"]
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root.encode().decode("latin-1"),
        "PATH_INFO": scope["path"].removeprefix(root).encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1] or ""),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.file_wrapper": lambda file, size: iter(lambda: file.read(size), b""),
    }
    if scope["scheme"] == "https":
        environ["HTTPS"] = "on"
    for name, value in scope["headers"]:
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        if key in environ:
            text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ', '}{text}"
        environ[key] = text
    return environ
