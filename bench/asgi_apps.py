"""ASGI applications that answer hello: a bare one, and by frameworks; and an echo of WebSockets."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from bench.hello import BODY

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]


async def raw(scope: Message, receive: Receive, send: Send) -> None:
    """Answers hello, and sends messages of a WebSocket back."""
    if scope["type"] == "websocket":
        await _echo(receive, send)
    elif scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": BODY})


async def _echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


async def asking(scope: Message, receive: Receive, send: Send) -> None:
    """Answers what another server answers, which it asks over a connection for each request.

    Its port of 127.0.0.1 is in the environment, as BACKEND; it closes the connection.
    """
    if scope["type"] != "http":
        return await raw(scope, receive, send)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["BACKEND"]))
    writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": answer.partition(b"\r\n\r\n")[2]})


async def blocking(scope: Message, receive: Receive, send: Send) -> None:
    """Answers hello; at /sleep, it blocks its loop for half a second before."""
    if scope["type"] == "http" and scope["path"] == "/sleep":
        time.sleep(0.5)  # as an application does that has overlooked it
    await raw(scope, receive, send)


def starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse(BODY)

    return Starlette(routes=[Route("/", hello)])


def fastapi() -> Any:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/", response_class=PlainTextResponse)
    async def hello() -> str:
        return BODY.decode()

    return app
