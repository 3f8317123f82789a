"""The same few pages in frameworks that speak ASGI."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from litestar import Litestar, get, post
from litestar import Request as LitestarRequest
from quart import Quart
from quart import request as quart_request
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

DONE: list[str] = []
"""Names of background tasks that have run."""


async def _page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def _sum(request: Request) -> PlainTextResponse:
    digest = hashlib.sha256()
    async for piece in request.stream():
        digest.update(piece)
    return PlainTextResponse(digest.hexdigest())


async def _form(request: Request) -> JSONResponse:
    async with request.form() as form:
        return JSONResponse({name: str(value) for name, value in form.items()})


async def _events() -> AsyncIterator[str]:
    for number in range(3):
        yield f"data: {number}\n\n"
        await asyncio.sleep(0)


async def _stream(request: Request) -> StreamingResponse:
    return StreamingResponse(_events(), media_type="text/event-stream")


async def _later(request: Request) -> PlainTextResponse:
    return PlainTextResponse("soon", background=BackgroundTask(DONE.append, "later"))


async def _done(request: Request) -> JSONResponse:
    return JSONResponse(DONE)


starlette = Starlette(
    routes=[
        Route("/", _page),
        Route("/sum", _sum, methods=["POST"]),
        Route("/form", _form, methods=["POST"]),
        Route("/events", _stream),
        Route("/later", _later),
        Route("/done", _done),
    ]
)

fastapi = FastAPI()


@fastapi.get("/", response_class=PlainTextResponse)
async def fastapi_page() -> str:
    return "hello"


@fastapi.get("/threads")
def fastapi_threads() -> dict[str, str]:
    """In a thread of anyio's."""
    return {"hello": "thread"}


fastapi.add_route("/sum", _sum, methods=["POST"])
fastapi.add_route("/form", _form, methods=["POST"])
fastapi.add_route("/events", _stream)
fastapi.add_route("/later", _later)
fastapi.add_route("/done", _done)

quart = Quart(__name__)


@quart.get("/")
async def quart_page() -> str:
    return "hello"


@quart.post("/sum")
async def quart_sum() -> str:
    digest = hashlib.sha256()
    async for piece in quart_request.body:
        digest.update(piece)
    return digest.hexdigest()


@quart.post("/form")
async def quart_form() -> dict[str, Any]:
    return dict(await quart_request.form)


@quart.get("/events")
async def quart_events() -> Any:
    return _events(), 200, {"Content-Type": "text/event-stream"}


@get("/", media_type="text/plain")
async def litestar_page() -> str:
    return "hello"


@post("/sum", media_type="text/plain")
async def litestar_sum(request: LitestarRequest[Any, Any, Any]) -> str:
    digest = hashlib.sha256()
    async for piece in request.stream():
        digest.update(piece)
    return digest.hexdigest()


@post("/form")
async def litestar_form(request: LitestarRequest[Any, Any, Any]) -> dict[str, Any]:
    return dict(await request.form())


@get("/events")
async def litestar_events() -> Any:
    from litestar.response import Stream

    return Stream(_events(), media_type="text/event-stream")


litestar = Litestar([litestar_page, litestar_sum, litestar_form, litestar_events])
