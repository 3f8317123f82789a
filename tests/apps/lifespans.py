"""An ASGI application whose lifespan does what the file $LIFESPAN says, and notes it there."""

import asyncio
import atexit
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

atexit.register(lambda: note("exit"))


def note(text: str) -> None:
    with Path(os.environ["LIFESPAN"] + ".notes").open("a") as file:
        file.write(f"{text}\n")


async def lifespan(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    mode = Path(os.environ["LIFESPAN"]).read_text().strip()
    if mode == "unsupported":
        raise ValueError("only http is served here")
    if mode == "return":
        return
    assert (await receive())["type"] == "lifespan.startup"
    if mode == "raise":
        raise RuntimeError("no database")
    if mode == "leave":
        return
    if mode == "hang":
        await asyncio.Event().wait()
    if mode == "fail":
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    scope["state"]["number"] = 7
    scope["state"]["list"] = []
    note("startup")
    await send({"type": "lifespan.startup.complete"})
    if mode == "die":
        raise RuntimeError("while it serves")
    assert (await receive())["type"] == "lifespan.shutdown"
    note("shutdown")
    if mode == "hang shutdown":
        await asyncio.Event().wait()
    if mode == "fail shutdown":
        await send({"type": "lifespan.shutdown.failed", "message": "not flushed"})
    else:
        await send({"type": "lifespan.shutdown.complete"})


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    state = scope.get("state")
    if scope["path"] == "/sleep":
        note("begun")
        await asyncio.sleep(0.1)
        note("ended")
    if scope["path"] == "/stay":
        note("begun")
        try:
            await asyncio.Event().wait()
        finally:
            note("cancelled")
    if scope["path"] == "/block":
        note("begun")
        time.sleep(1000)
    if scope["path"] == "/fail":
        await send({"type": "http.response.start", "status": 500, "headers": []})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(state).encode()})
    if state is not None:
        state["number"] = 8  # of this request alone
