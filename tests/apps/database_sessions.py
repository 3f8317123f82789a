"""Applications that hold a connection of the database $DATABASE (a file of SQLite) in each request.

As their documentation has it: SQLAlchemy by FastAPI's dependencies and in Starlette, with a
session for coroutines and one for threads, and Django.  `/PATH` streams row after row, and
`/PATH?wait=1` answers late, or never.  The pools have five connections and no more, so that each
that is lost is missed.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool, QueuePool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

DATABASE = os.environ["DATABASE"]
ROWS = 1_000_000
_SIZE = "abcdefgh" * 1000
QUERY = f"SELECT '{_SIZE}'"

# SQLAlchemy.

_async_engine = create_async_engine(
    f"sqlite+aiosqlite:///{DATABASE}",
    poolclass=AsyncAdaptedQueuePool,
    pool_size=5,
    max_overflow=0,
)
_engine: Engine = create_engine(
    f"sqlite:///{DATABASE}",
    connect_args={"check_same_thread": False},
    poolclass=QueuePool,
    pool_size=5,
    max_overflow=0,
)


async def _async_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession(_async_engine) as session:
        yield session


def _session() -> Iterator[Session]:
    with Session(_engine) as session:
        yield session


async def _async_rows(session: AsyncSession) -> AsyncIterator[str]:
    for _ in range(ROWS):
        yield str(await session.scalar(text(QUERY)))


def _rows(session: Session) -> Iterator[str]:
    for _ in range(ROWS):
        yield str(session.scalar(text(QUERY)))


def _pools() -> dict[str, int]:
    """How many connections of each pool are in use."""
    pools: dict[str, Pool] = {"async": _async_engine.pool, "sync": _engine.pool}
    in_use = {}
    for name, pool in pools.items():
        assert isinstance(pool, QueuePool)
        in_use[name] = pool.checkedout()
    return in_use


fastapi = FastAPI()


@fastapi.get("/async")
async def fastapi_async(
    session: Annotated[AsyncSession, Depends(_async_session)], wait: bool = False
) -> StreamingResponse:
    if wait:
        await session.scalar(text(QUERY))
        await asyncio.sleep(0.02)
    return StreamingResponse(_async_rows(session))


@fastapi.get("/sync")
def fastapi_sync(
    session: Annotated[Session, Depends(_session)], wait: bool = False
) -> StreamingResponse:
    if wait:
        session.scalar(text(QUERY))
        time.sleep(0.02)
    return StreamingResponse(_rows(session))


@fastapi.get("/pools")
async def fastapi_pools() -> dict[str, int]:
    return _pools()


async def _starlette_async(request: Request) -> StreamingResponse:
    async def rows() -> AsyncIterator[str]:
        async with AsyncSession(_async_engine) as session:
            async for row in _async_rows(session):
                yield row

    if "wait" in request.query_params:
        async with AsyncSession(_async_engine) as session:
            await session.scalar(text(QUERY))
            while not await request.is_disconnected():
                await asyncio.sleep(0.005)
    return StreamingResponse(rows())


def _starlette_sync(request: Request) -> StreamingResponse:
    def rows() -> Iterator[str]:
        with Session(_engine) as session:
            yield from _rows(session)

    if "wait" in request.query_params:
        with Session(_engine) as session:
            session.scalar(text(QUERY))
            time.sleep(0.02)
    return StreamingResponse(rows())


async def _starlette_pools(request: Request) -> JSONResponse:
    return JSONResponse(_pools())


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    await _async_engine.dispose()
    _engine.dispose()


starlette = Starlette(
    routes=[
        Route("/async", _starlette_async),
        Route("/sync", _starlette_sync),
        Route("/pools", _starlette_pools),
    ],
    lifespan=_lifespan,
)

# Django.

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="of a test",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}},
)
django.setup()


def _django_row() -> str:
    with connection.cursor() as cursor:
        cursor.execute(QUERY)
        return str(cursor.fetchone()[0])


async def _django_async(request: HttpRequest) -> StreamingHttpResponse:
    async def rows() -> AsyncIterator[str]:
        for _ in range(ROWS):
            yield await sync_to_async(_django_row)()

    if "wait" in request.GET:
        await sync_to_async(_django_row)()
        await asyncio.Event().wait()
    return StreamingHttpResponse(rows())


def _django_sync(request: HttpRequest) -> HttpResponse:
    body = _django_row()
    time.sleep(0.01)
    return HttpResponse(body * 1000)


urlpatterns = [path("async", _django_async), path("sync", _django_sync)]

django_asgi = get_asgi_application()
