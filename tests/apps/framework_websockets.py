"""The same echo over WebSocket in frameworks that speak ASGI, as their documentation has it.

No handler looks at the end of the client: what its framework raises then is no failure.
"""

from typing import Any

from fastapi import FastAPI, WebSocket
from litestar import Litestar
from litestar import WebSocket as LitestarWebSocket
from litestar import websocket as litestar_websocket
from litestar.handlers import websocket_listener
from quart import Quart
from quart import websocket as quart_websocket
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket


async def _echo(websocket: StarletteWebSocket) -> None:
    await websocket.accept()
    while True:
        await websocket.send_text(await websocket.receive_text())


starlette = Starlette(routes=[WebSocketRoute("/echo", _echo)])

fastapi = FastAPI()


@fastapi.websocket("/echo")
async def fastapi_echo(websocket: WebSocket) -> None:
    await websocket.accept()
    while True:
        await websocket.send_text(await websocket.receive_text())


quart = Quart(__name__)


@quart.websocket("/echo")
async def quart_echo() -> None:
    while True:
        await quart_websocket.send(await quart_websocket.receive())


@litestar_websocket("/echo")
async def litestar_echo(socket: LitestarWebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    while True:
        await socket.send_text(await socket.receive_text())


@websocket_listener("/listener")
async def litestar_listener(data: str) -> str:
    return data


litestar = Litestar([litestar_echo, litestar_listener])
