"""What is aimed at, each a ratio of two medians in one run; docs/performance.md shows them."""

from dataclasses import dataclass, replace

from bench import figures
from bench.figures import Measure, Section
from bench.parts import (
    balance,
    compiled,
    frameworks,
    growth,
    hello,
    idle,
    neighbour,
    websocket,
)


@dataclass(frozen=True)
class Aim:
    """`ours` divided by `theirs`; without theirs, the figure itself."""

    text: str
    section: str
    limit: float
    theirs: str = ""
    """A server of the section, or "KEY/SERVER" for one of another."""
    measure: Measure = figures.CPU
    ours: str = "prefork"
    least: bool = True
    """The aim is not to exceed `limit`; else not to fall short of it."""
    starred: bool = False

    def value(self, sections: dict[str, Section]) -> float | None:
        """None where it was not measured, or is invalid."""
        mine = _middle(sections, f"{self.section}/{self.ours}", self.measure)
        if not self.theirs:
            return mine
        name = self.theirs if "/" in self.theirs else f"{self.section}/{self.theirs}"
        theirs = _middle(sections, name, self.measure)
        if mine is None or theirs is None or mine <= 0 or theirs <= 0:
            return None  # a difference of two figures can be lost in their noise
        return mine / theirs

    def met(self, value: float) -> bool:
        return value <= self.limit if self.least else value >= self.limit


def _middle(sections: dict[str, Section], name: str, measure: Measure) -> float | None:
    key, _, server = name.partition("/")
    section = sections.get(key)
    return None if section is None else section.middle(server, measure)


_EIGHT = "prefork, 8 threads"
_KEPT_32, _KEPT_1, _CLOSE = "keepalive-32", "keepalive-1", "close-32"

_ASGI = (
    *(
        Aim(f"ASGI, {app}, {way}: CPU ÷ {peer}'s", f"asgi-{app}-{way}", limit, peer)
        for app, limits in (
            ("raw", {"uvicorn": (0.45, 0.5, 0.4), "granian": (0.85, 0.5, 0.7)}),
            ("starlette", {"uvicorn": (0.62, 0.62), "granian": (1.05, 0.6)}),
            ("fastapi", {"uvicorn": (0.78, 0.72), "granian": (0.9, 0.65)}),
            ("asking", {"uvicorn": (0.85,), "granian": (0.9,)}),
        )
        for peer, each in limits.items()
        for way, limit in zip(("32", "1", "close"), each, strict=False)
    ),
    *(
        Aim(f"WebSocket, {key}: CPU ÷ {peer}'s", f"websocket-{key}", limit, peer, websocket.CPU)
        for peer, limits in (
            ("uvicorn", {"1k": 0.45, "64k": 0.55, "deflate-1k": 0.5, "deflate-64k": 0.5}),
            ("granian", {"1k": 0.6, "64k": 0.55}),
        )
        for key, limit in limits.items()
    ),
)
"""The same for both builds."""


def _compiled(aim: Aim) -> Aim:
    """It for the compiled build, in the part that measures that."""
    return replace(
        aim,
        text=f"compiled: {aim.text}",
        section=compiled.KEY + aim.section,
        ours=compiled.COMPILED,
    )


AIMS = (
    Aim("a browser's GET: CPU ÷ bjoern's", "browser", 1.9, "bjoern", starred=True),
    Aim("POST of 1 KB: CPU ÷ bjoern's", "post-1k", 2.3, "bjoern", starred=True),
    *(
        Aim(f"{title}: CPU ÷ granian's", key, 1.0, "granian", starred=True)
        for title, key in (
            ("a browser's GET", "browser"),
            ("POST of 1 KB", "post-1k"),
            ("GET of an API", "api"),
            ("form of 10 KB", "form-10k"),
            ("GET with 4 KB of cookies", "cookies-4k"),
            ("POST of 1 MB", "post-1m"),
            ("upload of 10 MB", "upload-10m"),
            ("hello over TLS", "tls-8"),
        )
    ),
    *(
        Aim(f"growth with {what}: power", f"growth-{key}", 1.1, measure=growth.POWER, starred=True)
        for what, key in (
            ("kept connections", "connections"),
            ("fields", "fields"),
            ("bytes of body", "body"),
            ("workers", "workers"),
        )
    ),
    Aim("keep-alive, 32 connections: CPU ÷ bjoern's", _KEPT_32, 1.0, "bjoern", starred=True),
    Aim(
        "keep-alive, 32 connections: CPU ÷ gunicorn gthread's, 8 threads",
        _KEPT_32,
        1 / 25,
        hello.GTHREADS,
        starred=True,
    ),
    # Nobody who wants threads runs it with one; it is what a request costs without rivals.
    Aim(
        "keep-alive, 32 connections: CPU ÷ gunicorn gthread's, 1 thread",
        _KEPT_32,
        1 / 25,
        hello.GTHREAD,
    ),
    Aim("keep-alive, 1 connection: CPU ÷ bjoern's", _KEPT_1, 1.1, "bjoern", starred=True),
    Aim("connection per request: CPU ÷ bjoern's", _CLOSE, 1.1, "bjoern", starred=True),
    Aim(
        "connection per request: CPU ÷ gunicorn sync's",
        _CLOSE,
        1 / 4,
        "gunicorn sync",
        starred=True,
    ),
    Aim(
        "8 threads, trivial: CPU ÷ our own 1 thread's",
        "threads-trivial",
        1.3,
        "prefork, 1 thread",
        ours=_EIGHT,
        starred=True,
    ),
    Aim(
        "8 threads, trivial: p99 ÷ our own 1 thread's",
        "threads-trivial",
        2.0,
        "prefork, 1 thread",
        figures.P99,
        _EIGHT,
        starred=True,
    ),
    Aim(
        "8 threads, application sleeps 20 ms: requests a second",
        "threads-sleep",
        0.95 * 400,
        measure=figures.RATE,
        ours=_EIGHT,
        least=False,
    ),
    *(
        Aim(
            f"neighbour sleeps: {measure.title}",
            "neighbour-sleep",
            limit,
            "",
            measure,
            starred=True,
        )
        for measure, limit in (
            (neighbour.P99, 2.0),
            (neighbour.P999, 10.0),
            (neighbour.NEW_P99, 2.0),
            (neighbour.NEW_P999, 10.0),
        )
    ),
    *(
        Aim(f"neighbour, {way}: {measure.title} ÷ {peer}'s", f"neighbour-{way}", 1.0, peer, measure)
        for way in ("python", "regex")
        for peer in ("granian", "gunicorn gthread")
        for measure in (neighbour.P999, neighbour.WORST)
    ),
    Aim(
        "balance of 4 workers: coefficient of variation",
        "balance",
        0.02,
        measure=balance.VARIATION,
        starred=True,
    ),
    Aim("static 1 KB: CPU ÷ nginx's", "static-1k", 1.15, "nginx"),
    Aim("static 100 MB: CPU ÷ nginx's", "static-100m", 1.1, "nginx"),
    Aim("POST of 1 MB: CPU ÷ gunicorn gthread's", "post-1m", 1 / 3, "gunicorn gthread"),
    Aim("Flask: CPU beyond the framework's ÷ bjoern's", "flask", 1.0, "bjoern", frameworks.BEYOND),
    Aim(
        "Django: CPU beyond the framework's ÷ bjoern's", "django", 1.0, "bjoern", frameworks.BEYOND
    ),
    *_ASGI,
    Aim(
        "ASGI, a blocked loop: p99 of others' clients, ms",
        "asgi-neighbour",
        15.0,
        measure=neighbour.P99,
    ),
    Aim("ASGI, idle connections: bytes of each", "asgi-idle-connections", 2048, measure=idle.BYTES),
    Aim("idle server: wake-ups a second", "idle-server", 2.0, measure=idle.WAKE_UPS),
    Aim(
        "memory of 4 idle workers ÷ gunicorn sync's",
        "idle-server",
        1.0,
        "gunicorn sync",
        idle.PSS,
    ),
    Aim(
        "start to first answer, 8 workers ÷ gunicorn sync's",
        "idle-server",
        1.0,
        "gunicorn sync",
        idle.START,
    ),
    *(
        _compiled(Aim(f"{title}: CPU ÷ bjoern's", key, limit, "bjoern"))
        for title, key, limit in (
            ("a browser's GET", "browser", 1.5),
            ("POST of 1 KB", "post-1k", 1.6),
            ("keep-alive, 32 connections", _KEPT_32, 1.1),
            ("keep-alive, 1 connection", _KEPT_1, 1.1),
            ("connection per request", _CLOSE, 1.15),
            ("hello of Flask", "flask", 1.05),
        )
    ),
    *map(_compiled, _ASGI),
)
