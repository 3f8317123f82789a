"""What browsers and clients of an API send, one worker: most of it is new in each request."""

from bench import peers, traffic
from bench.closed_loop import Ask, Row, compare, loop_section
from bench.figures import Section
from bench.servers import CERTIFICATE, KEY, BenchError, Server, certificate

APP = "bench.traffic:app"
ONE = ("--workers", "1")
UPLOAD = 10_000_000
NGINX = r"return 200 'hello world\n';"
API = traffic.API.replace("{", "{{").replace("}", "}}")
LIMITED = "nginx answers without an application."


def servers(quick: bool) -> list[Server]:
    # uWSGI has room for 4 KB of head where nothing is said.
    many = ("--processes", "1", "--buffer-size", "16384")
    return [
        Server("prefork", peers.prefork(APP, *ONE)),
        Server("bjoern", peers.bjoern(APP)),
        Server("granian", peers.granian(APP, 1, *ONE)),
        *([] if quick else [Server("uWSGI", peers.uwsgi(APP, *many, kept=True))]),
        Server("gunicorn gthread", peers.gthread(APP, 1, *ONE)),
        peers.nginx("nginx", NGINX, more=f"location /api/ {{{{ return 200 '{API}'; }}}}"),
    ]


def rows(names: tuple[str, ...]) -> list[Row]:
    """`names`: of all servers; nginx would answer a large upload before it has come."""
    reading = tuple(name for name in names if name != "nginx")

    def row(key: str, title: str, about: str, ask: Ask, takers: tuple[str, ...] = names) -> Row:
        kept = f"One worker, keep-alive, {ask.connections} connections. {about}"
        return Row(loop_section(key, title, kept), ask, takers)

    return [
        row(
            "browser",
            "A browser's GET",
            f"11 fields; path, cookie and id are new in each request. {LIMITED}",
            Ask(request=traffic.PAGE),
        ),
        row(
            "post-1k",
            "POST of 1 KB",
            f"JSON, read by the application. {LIMITED}",
            Ask(request=traffic.ORDER),
        ),
        row(
            "api",
            "GET of an API",
            f"A bearer token that is new in each request, and an answer of 2 KB. {LIMITED}",
            Ask(request=traffic.ITEMS, body=traffic.API),
        ),
        row(
            "form-10k",
            "POST of a form of 10 KB",
            f"Read by the application. {LIMITED}",
            Ask(request=traffic.FORM),
        ),
        row(
            "cookies-4k",
            "GET with 4 KB of cookies",
            f"New in each request. {LIMITED}",
            Ask(request=traffic.COOKIES),
        ),
        row(
            "upload-10m",
            "Upload of 10 MB",
            "Read by the application in pieces of 64 KiB.",
            Ask(connections=4, path="/upload", upload=UPLOAD),
            reading,
        ),
    ]


def secured(quick: bool) -> Section:
    """A kept hello over TLS."""
    row = Row(
        loop_section(
            "tls-8",
            "Hello over TLS, keep-alive, 8 connections",
            "One worker, a key of ECDSA P-256; each connection is used for a whole round, so that "
            "a handshake weighs little.",
        ),
        Ask(connections=8, tls=True),
    )
    app = "bench.hello:app"
    try:
        certificate()
    except BenchError as problem:
        row.section.of("prefork").problem = str(problem)
        return row.section
    own = ("--set", f"tls.certificate={CERTIFICATE}", "--set", f"tls.key={KEY}")
    theirs = ("--ssl-certificate", str(CERTIFICATE), "--ssl-keyfile", str(KEY))
    files = ("--certfile", str(CERTIFICATE), "--keyfile", str(KEY))
    contestants = [
        Server("prefork", peers.prefork(app, *ONE, *own), tls=True),
        Server("granian", peers.granian(app, 1, *ONE, *theirs), tls=True),
        Server("gunicorn gthread", peers.gthread(app, 1, *ONE, *files), tls=True),
        peers.nginx("nginx", NGINX, tls=True),
    ]
    seconds = 0.6 if quick else 1.0
    compare(contestants, [row], 1 if quick else 5, seconds, turn=seconds)
    return row.section


def measure(quick: bool) -> list[Section]:
    contestants = servers(quick)
    given = rows(tuple(server.name for server in contestants))
    compare(contestants, given, 1 if quick else 4, 0.3 if quick else 0.5)
    return [*(row.section for row in given), secured(quick)]
