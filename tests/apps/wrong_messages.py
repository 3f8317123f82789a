"""Sends the messages that its client writes down, and keeps what is said of wrong ones."""

from ast import literal_eval
from typing import Any

from prefork.http.asgi_scope import Scope

said: list[str] = []


async def app(scope: Scope, receive: Any, send: Any) -> None:
    """The query of an HTTP request, or of a WebSocket, is a list of messages; /said shows what was
    said since it was asked last."""
    messages = literal_eval(bytes.fromhex(scope["query_string"].decode()).decode() or "[]")
    if scope["path"] == "/said":
        body = repr(said).encode()
        said.clear()
        messages = [
            {"type": "http.response.start", "status": 200},
            {"type": "http.response.body", "body": body},
        ]
    for message in messages:
        try:
            await send(message)
        except (TypeError, ValueError) as problem:
            said.append(str(problem))
            raise
