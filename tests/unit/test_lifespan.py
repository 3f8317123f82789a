"""Messages of the lifespan protocol that are wrong: the start fails with an error that says so."""

import asyncio
from typing import Any

import pytest

from prefork.worker.service.lifespan import Lifespan

UNKNOWN = "is unknown, or not one of a lifespan"


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (None, "TypeError: a message must be a dict with a type, not None"),
        ({}, "TypeError: a message must be a dict with a type, not {}"),
        ({"type": None}, f"None {UNKNOWN}"),
        ({"type": b"lifespan.startup.complete"}, f"b'lifespan.startup.complete' {UNKNOWN}"),
        ({"type": "http.response.start"}, f"'http.response.start' {UNKNOWN}"),
        ({"type": "lifespan.startup.failed"}, "LoadError: the application cannot start"),
        (
            {"type": "lifespan.startup.failed", "message": None},
            "LoadError: the application cannot start",
        ),
    ],
)
def test_a_wrong_message(message: Any, wanted: str) -> None:
    async def application(_: object, receive: Any, send: Any) -> None:
        await receive()
        await send(message)

    async def start() -> str:
        try:
            await Lifespan(application, asyncio.get_running_loop(), "auto").start()
        except Exception as problem:
            return f"{type(problem).__name__}: {problem}"
        return ""

    assert asyncio.run(start()).endswith(wanted)
