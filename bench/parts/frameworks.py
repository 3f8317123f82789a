"""Hello from Flask and Django: what the server adds to what the framework takes.

The framework's own part is measured by calling the application in a loop, without a server.
"""

import subprocess
import sys

from bench import peers
from bench.closed_loop import Ask, Row, compare
from bench.figures import CLOSED_LOOP, CPU, Measure, Section
from bench.servers import ROOT, BenchError, Server

OWN = "no server, called in a loop"
BEYOND = Measure("CPU beyond the framework's, us", 1)
APPS = {
    "flask": ("Flask hello", "bench.flask_app:app"),
    "django": ("Django hello", "bench.django_app:application"),
}
PATH = "/hello"

# Printed: microseconds of CPU a call.
_LOOP = """
import io, sys, time
from importlib import import_module
module, _, name = sys.argv[1].partition(":")
app = getattr(import_module(module), name)
base = {
    "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8000", "SCRIPT_NAME": "", "QUERY_STRING": "",
    "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr,
    "wsgi.multithread": False, "wsgi.multiprocess": True, "wsgi.run_once": False,
    "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "1", "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1", "PATH_INFO": sys.argv[2], "HTTP_HOST": "127.0.0.1:8000",
    "HTTP_USER_AGENT": "load", "HTTP_ACCEPT": "*/*",
}
def call():
    environ = base.copy()
    environ["wsgi.input"] = io.BytesIO()
    answer = app(environ, lambda status, headers, exc_info=None: None)
    b"".join(answer)
    if hasattr(answer, "close"):
        answer.close()
def turn(calls):
    begun = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - begun) * 1e6 / calls
turn(500)
print(turn(3000))
"""


def own(app: str) -> float:
    """Microseconds of CPU for a call of the application alone."""
    command = [sys.executable, "-c", _LOOP, app, PATH]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
        )
    except subprocess.SubprocessError as problem:
        raise BenchError(f"{app} can't be called in a loop: {problem}") from None
    return float(done.stdout)


def compared(key: str, rounds: int, seconds: float) -> Section:
    title, app = APPS[key]
    section = Section(
        key,
        title,
        "One worker, keep-alive, 32 connections. The first line is the framework's own part: the "
        "application called in a loop, without a server.",
        (BEYOND, *CLOSED_LOOP),
    )
    one = ("--workers", "1")
    contestants = [
        Server("prefork", peers.prefork(app, *one), PATH),
        Server("bjoern", peers.bjoern(app), PATH),
        Server("granian", peers.granian(app, 1, *one), PATH),
        Server("gunicorn gthread", peers.gthread(app, 1, *one), PATH),
    ]
    row = Row(section, Ask(path=PATH))
    for _ in range(rounds):
        alone = own(app)
        section.add(OWN, {BEYOND: 0.0, CPU: alone})
        compare(contestants, [row], 1, seconds)
        for server in contestants:
            values = section.of(server.name).values
            if values.get(CPU.title):
                section.add(server.name, {BEYOND: values[CPU.title][-1] - alone})
    return section


def measure(quick: bool) -> list[Section]:
    return [compared(key, 1 if quick else 3, 0.5) for key in APPS]
