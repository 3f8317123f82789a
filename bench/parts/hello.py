"""The least that a WSGI application answers, one worker: what the server itself costs."""

from bench import peers
from bench.closed_loop import Ask, Row, compare, loop_section
from bench.figures import Section
from bench.servers import Server

APP = "bench.hello:app"
LIMIT = "C loop, keep-alive"
LIMIT_CLOSE = "C loop, closing"
GTHREAD = "gunicorn gthread, 1 thread"
GTHREADS = "gunicorn gthread, 8 threads"
UWSGI = "uWSGI, keep-alive"
UWSGI_CLOSE = "uWSGI, closing"


def servers(quick: bool) -> list[Server]:
    one = ("--workers", "1")
    first = [
        Server("prefork", peers.prefork(APP, *one)),
        Server("bjoern", peers.bjoern(APP)),
        Server("granian", peers.granian(APP, 1, *one)),
        Server(GTHREAD, peers.gthread(APP, 1, *one)),
        Server(GTHREADS, peers.gthread(APP, 8, *one)),
        Server("gunicorn sync", peers.gunicorn(APP, *one)),
        peers.nginx("nginx, return 200", r"return 200 'hello world\n';"),
        Server(LIMIT, peers.c_loop("keepalive")),
        Server(LIMIT_CLOSE, peers.c_loop("close")),
    ]
    more = [
        Server(UWSGI, peers.uwsgi(APP, "--processes", "1", kept=True)),
        Server(UWSGI_CLOSE, peers.uwsgi(APP, "--processes", "1")),
        Server("waitress", peers.waitress(APP, 1)),
        Server("uvicorn, WSGI mode", peers.uvicorn(APP)),
    ]
    return first if quick else first + more


def rows(kept: tuple[str, ...] = (), closed: tuple[str, ...] = ()) -> list[Row]:
    """The names of those that are asked over kept connections, and over others; empty: of all."""
    return [
        Row(
            loop_section(
                "keepalive-32",
                "Hello, keep-alive, 32 connections",
                "One worker. Servers without keep-alive (gunicorn sync) close after each answer, "
                "and the client connects again.",
            ),
            Ask(connections=32),
            kept,
        ),
        Row(
            loop_section(
                "keepalive-1",
                "Hello, keep-alive, 1 connection",
                "One worker, which falls asleep between two requests: what it costs to wake up "
                "is in here.",
            ),
            Ask(connections=1),
            kept,
        ),
        Row(
            loop_section(
                "close-32",
                "Hello, a connection per request",
                "One worker, 32 connections at a time, each asked once and closed by the server.",
            ),
            Ask("close", 32),
            closed,
        ),
    ]


def measure(quick: bool) -> list[Section]:
    contestants = servers(quick)
    names = tuple(server.name for server in contestants)
    kept = tuple(name for name in names if name not in (LIMIT_CLOSE, UWSGI_CLOSE))
    closed = tuple(name for name in names if name not in (LIMIT, UWSGI))
    asked = rows(kept, closed)
    compare(contestants, asked, rounds=2 if quick else 5, seconds=0.4 if quick else 0.6)
    return [row.section for row in asked]
