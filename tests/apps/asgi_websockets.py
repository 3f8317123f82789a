"""WebSockets of a plain ASGI application, one path for each behaviour."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

Scope = dict[str, Any]

gate = asyncio.Event()
"""Set by a request for /gate: `/held` goes on."""

ended: list[Any] = []
"""What ended WebSockets: their last message, or an exception."""


async def app(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    if scope["type"] == "http":
        await http(scope, receive, send)
        return
    assert (await receive())["type"] == "websocket.connect"
    await PATHS[scope["path"]](scope, receive, send)


async def http(scope: Scope, receive: Any, send: Any) -> None:
    if scope["path"] == "/gate":
        gate.set()
    body = json.dumps(ended).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        with contextlib.suppress(OSError):
            await send({**message, "type": "websocket.send"})
    ended.append(message)


async def describe(scope: Scope, receive: Any, send: Any) -> None:
    subprotocol = next(iter(scope["subprotocols"]), None)
    headers = [(b"x-own", b"1"), (b"set-cookie", b"a=b")]
    await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
    shown = {key: value for key, value in scope.items() if key != "state"}
    await send({"type": "websocket.send", "text": json.dumps(shown, default=bytes.decode)})


async def deny(scope: Scope, receive: Any, send: Any) -> None:
    start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-a", b"b")]}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"entry"})
    ended.append(await receive())


async def deny_at_length(scope: Scope, receive: Any, send: Any) -> None:
    """Denies with a response that ends when the client is gone."""
    await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    piece = {"type": "websocket.http.response.body", "body": bytes(100_000), "more_body": True}
    try:
        while True:
            await send(piece)
    except OSError as problem:
        ended.append(type(problem).__name__)


async def refuse(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "websocket.close"})


async def close(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4321, "reason": "enough"})
    ended.append(await receive())
    try:
        await send({"type": "websocket.send", "text": "late"})
    except OSError as problem:
        ended.append(type(problem).__name__)


async def fails(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept"})
    await receive()
    raise RuntimeError("the handler has failed")


async def fails_early(scope: Scope, receive: Any, send: Any) -> None:
    raise RuntimeError("the handler has failed")


async def forgets(scope: Scope, receive: Any, send: Any) -> None:
    """Ends without an answer."""


async def wrong(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept", "subprotocol": "unknown"})


async def number(scope: Scope, receive: Any, send: Any) -> None:
    """Sends a number for bytes."""
    await send({"type": "websocket.accept"})
    await receive()
    await send({"type": "websocket.send", "bytes": 7})


async def deny_by_number(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    await send({"type": "websocket.http.response.body", "body": 7})


async def hesitates(scope: Scope, receive: Any, send: Any) -> None:
    """Accepts only once its client has left."""
    ended.append(await receive())
    try:
        await send({"type": "websocket.accept"})
    except OSError as problem:
        ended.append(type(problem).__name__)


async def late(scope: Scope, receive: Any, send: Any) -> None:
    """Accepts once the FIFO of the query has been written to."""
    await asyncio.to_thread(Path(scope["query_string"].decode()).read_bytes)
    await send({"type": "websocket.accept"})
    ended.append(await receive())


async def held(scope: Scope, receive: Any, send: Any) -> None:
    """Receives nothing until the gate is open, then counts what comes."""
    await send({"type": "websocket.accept"})
    await gate.wait()
    size = 0
    while (message := await receive())["type"] == "websocket.receive":
        size += len(message["bytes"])
        if not message["bytes"]:
            await send({"type": "websocket.send", "text": str(size)})
    ended.append(message)


async def push(scope: Scope, receive: Any, send: Any) -> None:
    """Sends until the client is gone."""
    await send({"type": "websocket.accept"})
    count = 0
    try:
        while True:
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
            count += 1
    except OSError as problem:
        ended.append(type(problem).__name__)


async def crowd(scope: Scope, receive: Any, send: Any) -> None:
    """Many tasks send at a time."""
    await send({"type": "websocket.accept"})
    texts = [str(number) * 50_000 for number in range(10)]
    await asyncio.gather(*(send({"type": "websocket.send", "text": each}) for each in texts))


async def impatient(scope: Scope, receive: Any, send: Any) -> None:
    """Gives up a `receive` at the moment at which a message comes for it, and then receives."""
    await send({"type": "websocket.accept"})
    waiting = asyncio.ensure_future(receive())
    while not waiting.done():
        await asyncio.sleep(0)
        waiter = waiting._fut_waiter
        if waiter is not None and waiter.done():
            waiting.cancel()
    texts = ["cancelled" if waiting.cancelled() else "too late"]
    texts += [(await receive())["text"] for _ in range(2)]
    await send({"type": "websocket.send", "text": " ".join(texts)})


async def several(scope: Scope, receive: Any, send: Any) -> None:
    """Two tasks receive at a time."""
    await send({"type": "websocket.accept"})
    found = await asyncio.gather(receive(), receive())
    await send({"type": "websocket.send", "text": " ".join(each["text"] for each in found)})
    ended.append(await asyncio.gather(receive(), receive()))


PATHS = {
    "/echo": echo,
    "/describe": describe,
    "/deny": deny,
    "/deny-at-length": deny_at_length,
    "/refuse": refuse,
    "/close": close,
    "/fails": fails,
    "/fails-early": fails_early,
    "/forgets": forgets,
    "/wrong": wrong,
    "/number": number,
    "/deny-by-number": deny_by_number,
    "/hesitates": hesitates,
    "/late": late,
    "/held": held,
    "/push": push,
    "/crowd": crowd,
    "/impatient": impatient,
    "/several": several,
}
