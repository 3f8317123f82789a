"""Requests to an ASGI application inside a new worker before it is ready."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from prefork.apps.asgi_response import (
    AsgiResponse,
    Message,
    MisusedProtocol,
    as_bytes,
    kind_of,
)
from prefork.apps.asgi_response_state import ResponseState
from prefork.http.asgi_scope import http_scope
from prefork.http.request import Environ, Request
from prefork.worker.boot.warmup import check_answer, naming, warmup_request
from prefork.worker.service.asgi_call import AsgiApplication


async def warm_up_asgi(
    application: AsgiApplication,
    paths: Iterable[str],
    base: Environ,
    state: Mapping[str, Any] | None,
) -> None:
    """As `warm_up`; `state`: of the lifespan."""
    for path in paths:
        request, host = warmup_request(path, base)
        call = _WarmupCall(request)
        scope = http_scope(request, state=state)
        with naming(path):
            await application(scope, call.receive, call.send)
        check_answer(path, host, call.status)


class _WarmupCall:
    """Takes the answer, and drops it."""

    def __init__(self, request: Request) -> None:
        self._response = AsgiResponse(request)
        self._asked = False
        self._over = asyncio.Event()

    @property
    def status(self) -> int:
        head = self._response.head
        if head is None or not self._response.complete:
            raise MisusedProtocol("the application ended before its response did")
        return head.code

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        kind, response = kind_of(message), self._response
        response.must_take(kind)
        if kind == "http.response.start":
            response.start(message)
        elif kind == "http.response.trailers":
            response.trailers(message)
        elif kind != "http.response.early_hint":
            more = bool(message.get("more_body", False))
            if kind == "http.response.body":
                response.body(as_bytes(message), more=more, closing=True)
            else:  # a file
                if response.head is None:
                    response.begin(-1, closing=True)
                response.response_state = ResponseState.BODY if more else response.after_body
        if response.complete:
            self._over.set()
