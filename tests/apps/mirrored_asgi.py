"""An ASGI application that tells what it was called with, for two servers side by side."""

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

_KEPT = ("type", "http_version", "method", "path", "root_path", "scheme")


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])  # no lifespan
    digest, size, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    seen = {key: scope[key] for key in _KEPT}
    seen |= {
        "raw_path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "client": scope["client"] and scope["client"][0],
        "x": {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name.startswith(b"x-") and not name.startswith(b"x-forwarded-")
        },
        "size": size,
        "digest": digest.hexdigest(),
        "variable": os.environ.get("MIRRORED"),
    }
    body = json.dumps(seen, sort_keys=True).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
