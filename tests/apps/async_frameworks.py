"""The same few pages in frameworks that speak ASGI."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from fastapi import FastAPI
from litestar import Litestar, get, post
from litestar import Request as LitestarRequest
from litestar import Response as LitestarResponse
from litestar.background_tasks import BackgroundTask as LitestarTask
from litestar.response import Stream as LitestarStream
from quart import Quart
from quart import request as quart_request
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

LARGEST = 64 * 1024 * 1024
"""Bytes of a body that frameworks with a limit of their own are to take."""

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


async def _file(request: Request) -> JSONResponse:
    async with request.form() as form:
        file = form["file"]
        assert isinstance(file, UploadFile)
        digest = hashlib.sha256(await file.read()).hexdigest()
        return JSONResponse({"name": file.filename, "sha256": digest})


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
        Route("/file", _file, methods=["POST"]),
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
fastapi.add_route("/file", _file, methods=["POST"])
fastapi.add_route("/events", _stream)
fastapi.add_route("/later", _later)
fastapi.add_route("/done", _done)

quart = Quart(__name__)
quart.config["MAX_CONTENT_LENGTH"] = LARGEST


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


@quart.post("/file")
async def quart_file() -> dict[str, str]:
    file = (await quart_request.files)["file"]
    digest = hashlib.sha256(file.read()).hexdigest()
    return {"name": str(file.filename), "sha256": digest}


@quart.get("/later")
async def quart_later() -> str:
    async def later() -> None:
        DONE.append("later")

    quart.add_background_task(later)
    return "soon"


@quart.get("/done")
async def quart_done() -> list[str]:
    return DONE


@quart.get("/events")
async def quart_events() -> Any:
    return _events(), 200, {"Content-Type": "text/event-stream"}


@get("/", media_type="text/plain")
async def litestar_page() -> str:
    return "hello"


@post("/sum", media_type="text/plain", status_code=200)
async def litestar_sum(request: LitestarRequest[Any, Any, Any]) -> str:
    digest = hashlib.sha256()
    async for piece in request.stream():
        digest.update(piece)
    return digest.hexdigest()


@post("/form")
async def litestar_form(request: LitestarRequest[Any, Any, Any]) -> dict[str, Any]:
    return dict(await request.form())


@get("/events", media_type="text/event-stream")
async def litestar_events() -> Any:
    return LitestarStream(_events(), media_type="text/event-stream")


@post("/file")
async def litestar_file(request: LitestarRequest[Any, Any, Any]) -> dict[str, str]:
    file = (await request.form())["file"]
    return {"name": file.filename, "sha256": hashlib.sha256(await file.read()).hexdigest()}


@get("/later", media_type="text/plain")
async def litestar_later() -> LitestarResponse[str]:
    return LitestarResponse("soon", background=LitestarTask(DONE.append, "later"))


@get("/done")
async def litestar_done() -> list[str]:
    return DONE


litestar = Litestar(
    [
        *(litestar_page, litestar_sum, litestar_form, litestar_file, litestar_events),
        *(litestar_later, litestar_done),
    ],
    request_max_body_size=LARGEST,
)

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a test",
)
django.setup()


def _django_sum(request: HttpRequest) -> HttpResponse:
    digest = hashlib.sha256()
    while piece := request.read(64 * 1024):
        digest.update(piece)
    return HttpResponse(digest.hexdigest())


def _django_file(request: HttpRequest) -> JsonResponse:
    file = request.FILES["file"]
    digest = hashlib.sha256(file.read()).hexdigest()
    return JsonResponse({"name": file.name, "sha256": digest})


async def _django_events(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_events(), content_type="text/event-stream")


urlpatterns = [
    path("", lambda request: HttpResponse("hello")),
    path("sum", _django_sum),
    path("form", lambda request: JsonResponse(request.POST.dict())),
    path("file", _django_file),
    path("events", _django_events),
]

django_asgi = get_asgi_application()
