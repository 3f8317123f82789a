"""Hello from ASGI applications, one worker: a bare one, and what frameworks leave of the gain."""

from bench import peers
from bench.closed_loop import Ask, Row, compare, loop_section
from bench.figures import Section
from bench.servers import Server

APPS = {"raw": "raw", "starlette": "starlette()", "fastapi": "fastapi()"}
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


def rows(key: str) -> list[Row]:
    """Each way of asking the application of that key."""
    return [
        Row(
            loop_section(
                f"asgi-{key}-{way}",
                f"ASGI, {'a bare application' if key == 'raw' else key}, {text}",
                "One worker, on uvloop where the server can have it.",
            ),
            ask,
        )
        for way, (text, ask) in WAYS.items()
    ]


def measure(quick: bool) -> list[Section]:
    sections = []
    for key, app in APPS.items():
        contestants, asked = servers(app)[:3] if quick else servers(app), rows(key)
        compare(contestants, asked, rounds=1 if quick else 3, seconds=0.4 if quick else 0.6)
        sections += [row.section for row in asked]
    return sections
