"""One ASGI application with a path for each thing that a test asks of a server."""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

PIECE = 64 * 1024


async def answer(
    send: Send, body: bytes, kind: str = "text/plain", status: int = 200, length: bool = True
) -> None:
    headers = [(b"content-type", kind.encode())]
    if length:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def whole_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client has left")
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


def query(scope: Scope, name: str, default: str) -> str:
    values: dict[str, list[str]] = parse_qs(scope["query_string"].decode())
    return values.get(name, [default])[0]


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, json.dumps({"hello": "world", "pid": os.getpid()}).encode())


async def pid(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, str(os.getpid()).encode())


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, await whole_body(receive))


async def digest(scope: Scope, receive: Receive, send: Send) -> None:
    """SHA-256 of the body, read piece by piece, and the largest piece."""
    digest, largest = hashlib.sha256(), 0
    while True:
        message = await receive()
        digest.update(message["body"])
        largest = max(largest, len(message["body"]))
        if not message["more_body"]:
            break
    await answer(send, f"{digest.hexdigest()} {largest}".encode())


async def scope_of(scope: Scope, receive: Receive, send: Send) -> None:
    """The scope as JSON; bytes as latin-1."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("latin-1")
        if isinstance(value, (list, tuple)):
            return [plain(each) for each in value]
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return value

    await answer(send, json.dumps(plain(scope)).encode(), "application/json")


async def sleep(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(float(query(scope, "s", "1")))
    await pid(scope, receive, send)


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """?n= bytes in pieces, without a length."""
    left = int(query(scope, "n", "1000000"))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while left:
        size = min(left, PIECE)
        left -= size
        body = {"type": "http.response.body", "body": b"x" * size, "more_body": True}
        await send(body)
    await send({"type": "http.response.body"})


async def big(scope: Scope, receive: Receive, send: Send) -> None:
    """?n= bytes in one piece, after a turn of the loop."""
    await asyncio.sleep(0)
    await answer(send, b"x" * int(query(scope, "n", "1000000")))


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("as the test wants it")


async def fail_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"some", "more_body": True})
    raise RuntimeError("as the test wants it")


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Ends without a response."""


async def background(scope: Scope, receive: Receive, send: Send) -> None:
    """Goes on after its response, until the file ?path= is there."""
    await pid(scope, receive, send)
    while not os.path.exists(query(scope, "path", "")):
        await asyncio.sleep(0.005)


async def trailers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    await send({"type": "http.response.body", "body": b"some"})
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})


async def hints(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    await answer(send, b"hinted")


async def path_send(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.pathsend", "path": query(scope, "path", "")})


async def zero_copy(scope: Scope, receive: Receive, send: Send) -> None:
    """The file ?path= in two parts: by ?offset= and ?count=, and from its own position on."""
    offset, count = int(query(scope, "offset", "0")), int(query(scope, "count", "0"))
    headers = []
    if length := query(scope, "length", ""):
        headers.append((b"content-length", length.encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    kind = "http.response.zerocopysend"
    with open(query(scope, "path", ""), "rb") as file:
        part = {"type": kind, "file": file, "offset": offset, "count": count, "more_body": True}
        await send(part)
        file.seek(offset + count)
        await send({"type": kind, "file": file.fileno()})


async def thread(scope: Scope, receive: Receive, send: Send) -> None:
    """Stays in a thread until the file ?path= is gone, which that makes itself."""

    def wait() -> None:
        path = Path(query(scope, "path", ""))
        path.touch()
        while path.exists():
            time.sleep(0.005)

    await asyncio.to_thread(wait)
    await pid(scope, receive, send)


_running: list[object] = []


async def at_one_time(scope: Scope, receive: Receive, send: Send) -> None:
    """How many calls of this path the worker had when this one began, itself included."""
    _running.append(scope)
    number = len(_running)
    await asyncio.sleep(0.02)
    _running.pop()
    await answer(send, f"{os.getpid()} {number}".encode())


async def mark(scope: Scope, name: str) -> None:
    """Leaves a file beside ?path=."""
    with open(query(scope, "path", "") + name, "w"):
        pass


async def events(scope: Scope, receive: Receive, send: Send) -> None:
    """A stream of events; ends when its client leaves, and marks that as .left in ?path=."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    await mark(scope, ".left")
    await send({"type": "http.response.body", "body": b"data: 2\n\n"})


async def ticks(scope: Scope, receive: Receive, send: Send) -> None:
    """A stream of events of an application that does not ask whether its client has left."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while True:
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await asyncio.sleep(0.01)


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends until the client has left, and marks that as .left in ?path=, with the bytes sent."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    sent = 0
    try:
        while True:
            await send({"type": "http.response.body", "body": b"x" * PIECE, "more_body": True})
            sent += PIECE
            with open(query(scope, "path", "") + ".sent", "w") as file:
                file.write(str(sent))
            await asyncio.sleep(0)
    except OSError:
        await mark(scope, ".left")
        raise


async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
    """Sleeps for long; marks its cancellation as .cancelled in ?path=, and may ignore that."""
    await mark(scope, ".begun")
    for _ in range(1 if query(scope, "ignore", "") == "" else 1000):
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await mark(scope, ".cancelled")
            if query(scope, "ignore", "") == "":
                raise


async def block(scope: Scope, receive: Receive, send: Send) -> None:
    """Blocks the event loop until the file ?path= is gone, which it makes itself."""
    path = Path(query(scope, "path", ""))
    path.touch()
    while path.exists():
        time.sleep(0.005)
    await pid(scope, receive, send)


async def hold(scope: Scope, receive: Receive, send: Send) -> None:
    """Stays until the file ?path= is gone, which it makes itself."""
    path = Path(query(scope, "path", ""))
    path.touch()
    while path.exists():
        await asyncio.sleep(0.005)
    await pid(scope, receive, send)


async def await_leaving(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits before the response until the client has left, and marks that as .left in ?path=."""
    await mark(scope, ".begun")
    await whole_body(receive)
    assert (await receive())["type"] == "http.disconnect"
    await mark(scope, ".left")


PATHS = {
    "/events": events,
    "/ticks": ticks,
    "/endless": endless,
    "/stuck": stuck,
    "/block": block,
    "/hold": hold,
    "/await-leaving": await_leaving,
    "/": hello,
    "/pid": pid,
    "/echo": echo,
    "/digest": digest,
    "/scope": scope_of,
    "/sleep": sleep,
    "/large": large,
    "/big": big,
    "/fail": fail,
    "/fail-late": fail_late,
    "/silent": silent,
    "/background": background,
    "/trailers": trailers,
    "/hints": hints,
    "/file": path_send,
    "/zero-copy": zero_copy,
    "/at-one-time": at_one_time,
    "/thread": thread,
}


async def echo_messages(receive: Receive, send: Send) -> None:
    """A WebSocket."""
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await echo_messages(receive, send)
        return
    if scope["type"] != "http":
        raise ValueError(f"{scope['type']} is not served here")
    found = PATHS.get(scope["path"])
    if found is None:
        await answer(send, b"not found\n", status=404)
    else:
        await found(scope, receive, send)
