"""A function without `async` as an endpoint: Starlette calls it in a thread."""

import asyncio
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route


def wait(request: Request) -> PlainTextResponse:
    """Stays until the file ?path= is gone, which it makes itself."""
    file = Path(request.query_params["path"])
    file.touch()
    while file.exists():
        time.sleep(0.005)
    return PlainTextResponse("over")


def idle(request: Request) -> PlainTextResponse:
    return PlainTextResponse("its thread waits for work from now on")


async def stuck(request: Request) -> PlainTextResponse:
    await asyncio.sleep(1000)
    return PlainTextResponse("over")


app = Starlette(routes=[Route("/thread", wait), Route("/idle", idle), Route("/stuck", stuck)])
