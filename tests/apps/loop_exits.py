"""An ASGI application that raises SystemExit or KeyboardInterrupt outside of its calls.

/ANYTHING?way=WAY&error=ERROR does so in that way; it is answered at once. /ANYTHING?way=stop stops
the event loop, and so does the shutdown of the lifespan then. /hold?path= is answered
when that file is gone. The shutdown of its lifespan creates the file $SHUT_DOWN.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from tests.apps.async_basic import Receive, Scope, Send, hold, pid, query

ERRORS: dict[str, type[BaseException]] = {
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
}
_tasks: set[asyncio.Task[None]] = set()
_stops: list[bool] = []


def by_task(error: type[BaseException]) -> None:
    async def background() -> None:
        await asyncio.sleep(0)
        raise error("enough")

    _tasks.add(asyncio.get_running_loop().create_task(background()))


def by_callback(error: type[BaseException]) -> None:
    def callback() -> None:
        raise error("enough")

    asyncio.get_running_loop().call_soon(callback)


def by_cancelled_task(error: type[BaseException]) -> None:
    """When the worker ends, and cancels what is left."""

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise error("enough")

    _tasks.add(asyncio.get_running_loop().create_task(background()))


def by_stop(error: type[BaseException]) -> None:
    _stops.append(True)
    asyncio.get_running_loop().stop()


WAYS: dict[str, Callable[[type[BaseException]], None]] = {
    "task": by_task,
    "callback": by_callback,
    "cancelled": by_cancelled_task,
    "stop": by_stop,
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if _stops:
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0)
        Path(os.environ["SHUT_DOWN"]).touch()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/hold":
        await hold(scope, receive, send)
    else:
        if way := query(scope, "way", ""):
            WAYS[way](ERRORS[query(scope, "error", "exit")])
        await pid(scope, receive, send)
