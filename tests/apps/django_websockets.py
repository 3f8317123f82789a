"""Django's ASGI application, which knows no WebSocket, and one beside it that does."""

from typing import Any

from django.core.asgi import get_asgi_application

from examples import django_app  # noqa: F401  it configures Django

django = get_asgi_application()


async def both(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        await django(scope, receive, send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
