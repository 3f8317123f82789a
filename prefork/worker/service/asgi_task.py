"""What the task of a call and that of a WebSocket have in common: how it runs, and how it waits.

These are coroutines, and stay those of Python in each build.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import MethodType
from typing import Any

from prefork.http.asgi_scope import Scope
from prefork.worker.service.asgi_call import AsgiApplication, AsgiCall
from prefork.worker.service.asgi_websocket import AsgiWebsocket

Exchange = AsgiCall | AsgiWebsocket


async def run(
    exchange: Exchange,
    application: AsgiApplication,
    scope: Scope,
    receive: Callable[[Any], Awaitable[Any]],
    send: Callable[[Any, Any], Awaitable[None]],
) -> None:
    """The task: calls the application, and sees to it that the client gets an answer.

    `receive` and `send`: functions of the exchange, whose methods they are for the application.
    """
    try:
        await application(scope, MethodType(receive, exchange), MethodType(send, exchange))
    except BaseException as problem:  # SystemExit too: it ends the exchange, not the worker
        exchange.fail(problem)
    else:
        exchange.returned()
    finally:
        exchange.owner.ended(exchange)  # type: ignore[arg-type]  # an owner of both


async def wait_for_event(exchange: Exchange, waiters: "list[asyncio.Future[None]]") -> None:
    """Waits as one of these until the connection wakes them."""
    owner = exchange.owner
    waiter = owner.loop.create_future()
    waiters.append(waiter)
    try:
        owner.settle(exchange.connection)
        await waiter
    finally:
        if waiter in waiters:
            waiters.remove(waiter)
