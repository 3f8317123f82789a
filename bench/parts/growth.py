"""How the cost of a request grows: with kept connections, fields, bytes of body and workers."""

from collections import Counter
from math import log

from bench import peers, traffic
from bench.closed_loop import Ask, Row, compare, loop_section
from bench.figures import CPU, Measure, Section
from bench.servers import Server

APP = "bench.traffic:app"
CONNECTIONS = (1, 32, 256, 1_024, 4_096)
BUSY = 32
FIELDS = (1, 4, 15, 60)
BODIES = (0, 1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 2, 4, 8)

POWER = Measure("power", 2)
"""Of the number, by which the cost grows in the last step: 0 is constant, 1 is linear.  A step is
twofold at least: the power is the logarithm of two costs divided by that of the step, and so is its
noise.  Of 40 to 60 fields three rounds gave 1.40, 1.95 and -0.18."""


def joined(key: str, title: str, about: str, axis: str, rows: list[tuple[int, Section]]) -> Section:
    """Sections of closed loops, each at a number, as one: a line for each server."""
    points = tuple(point for point, _ in rows)
    columns = tuple(Measure(f"{point:,}", 1) for point in points)
    about += (
        f" CPU a request in us, by {axis}; the power of their number with which it grows in the "
        "last step: 0 is constant, 1 is linear."
    )
    section = Section(key, title, about, (*columns, POWER), axis=axis, points=points)
    for name in rows[0][1].servers:
        parts = [each.of(name) for _, each in rows]
        problem = next((part.problem for part in parts if part.problem), "")
        section.of(name).problem = problem
        for costs in zip(*(part.values.get(CPU.title, []) for part in parts), strict=False):
            last = log(costs[-1] / costs[-2]) / log(points[-1] / points[-2])
            section.add(name, {**dict(zip(columns, costs, strict=True)), POWER: last})
        section.of(name).errors += sum((part.errors for part in parts), Counter[str]())
    return section


def with_fields(count: int) -> str:
    """A GET of so many fields, which a client has made up: none of them is known to a server."""
    fields = "".join(f"X-Field-{number}: value of {number}\r\n" for number in range(1, count))
    return f"GET /######## HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n"


def one_worker() -> list[Server]:
    keep = ("--set", "http.keepalive=300")
    app, one = APP, ("--workers", "1")
    return [
        Server("prefork", peers.prefork(app, *one, *keep)),
        Server("bjoern", peers.bjoern(app)),
        Server("granian", peers.granian(app, 1, *one, "--backpressure", peers.MANY)),
    ]


def measure(quick: bool) -> list[Section]:
    rounds, seconds = (1, 0.2) if quick else (3, 0.3)

    def row(ask: Ask, idle: int = 0) -> Row:
        return Row(loop_section("growth", "Growth", ""), ask, idle=idle)

    kept = [
        (count, row(Ask(connections=min(count, BUSY)), max(count - BUSY, 0)))
        for count in CONNECTIONS
    ]
    fields = [(count, row(Ask(request=with_fields(count)))) for count in FIELDS]
    bodies = [(size, row(Ask(connections=8, upload=size))) for size in BODIES]
    compare(one_worker(), [each for _, each in (*kept, *fields, *bodies)], rounds, seconds)
    workers = []
    for count in WORKERS:
        number = ("--workers", str(count))
        contestants = [
            Server("prefork", peers.prefork(APP, *number)),
            Server("granian", peers.granian(APP, 1, *number)),
        ]
        each = row(Ask(request=traffic.PAGE))
        compare(contestants, [each], rounds, seconds)
        workers.append((count, each))

    def lines(key: str, title: str, about: str, axis: str, given: list[tuple[int, Row]]) -> Section:
        return joined(key, title, about, axis, [(count, each.section) for count, each in given])

    return [
        lines(
            "growth-connections",
            "Kept connections",
            f"One worker, hello; {BUSY} of the connections are busy, the others are kept open.",
            "kept connections",
            kept,
        ),
        lines(
            "growth-fields",
            "Fields of a request",
            "One worker, 32 connections; none of the fields is one that servers know.",
            "fields",
            fields,
        ),
        lines(
            "growth-body",
            "Bytes of a body",
            "One worker, 8 connections; the application reads the body.",
            "bytes of body",
            bodies,
        ),
        lines(
            "growth-workers",
            "Workers",
            "A browser's GET over 32 connections.",
            "workers",
            workers,
        ),
    ]
