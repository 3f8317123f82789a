"""Hello from ASGI applications, one worker: a bare one, and what frameworks leave of the gain."""

import contextlib
import os
from collections.abc import Iterator

from bench import peers
from bench.closed_loop import Ask, Row, compare, loop_section
from bench.figures import Section
from bench.servers import Server, started

APPS = {"raw": "raw", "starlette": "starlette()", "fastapi": "fastapi()", "asking": "asking"}
TITLES = {"raw": "a bare application", "asking": "an application that asks another server"}
WAYS = {
    "32": ("keep-alive, 32 connections", Ask(connections=32)),
    "1": ("keep-alive, 1 connection", Ask(connections=1)),
    "close": ("a connection per request", Ask("close", 32)),
}


def servers(app: str) -> list[Server]:
    return [
        Server("prefork", peers.prefork(f"bench.asgi_apps:{app}", "--workers", "1")),
        Server("uvicorn", peers.uvicorn_asgi(app)),
        Server("granian", peers.granian_asgi(app)),
        Server("gunicorn asgi", peers.gunicorn_asgi(app)),
        Server("hypercorn", peers.hypercorn(app)),
    ]


@contextlib.contextmanager
def backend() -> Iterator[None]:
    """The server that `asking` asks; its CPU is nobody's."""
    with started(Server("C loop", peers.c_loop("close"))) as running:
        os.environ["BACKEND"] = str(running.port)
        yield


def rows(key: str) -> list[Row]:
    """Each way of asking the application of that key."""
    return [
        Row(
            loop_section(
                f"asgi-{key}-{way}",
                f"ASGI, {TITLES.get(key, key)}, {text}",
                "One worker, on uvloop where the server can have it.",
            ),
            ask,
        )
        for way, (text, ask) in WAYS.items()
        if key != "asking" or way == "32"  # a connection of its own hides how it is asked
    ]


def measure(quick: bool) -> list[Section]:
    sections = []
    for key, app in APPS.items():
        contestants, asked = servers(app)[:3] if quick else servers(app), rows(key)
        with backend():
            compare(contestants, asked, rounds=1 if quick else 3, seconds=0.4 if quick else 0.6)
        sections += [row.section for row in asked]
    return sections
