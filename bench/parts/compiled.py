"""The compiled build beside pure Python, of the same checkout: what people send, hello and ASGI.

It is built first (setup.py), which takes minutes, a C compiler and the headers of Python.
"""

import os
import shutil
import subprocess
import sys

from bench import peers
from bench.closed_loop import Ask, Row, compare, loop_section
from bench.figures import Section
from bench.parts import asgi, frameworks
from bench.parts.traffic import APP, ONE, rows
from bench.servers import BUILD, ROOT, BenchError, Server

SITE = BUILD / "compiled"
PURE, COMPILED = "prefork, pure Python", "prefork, compiled"
NAMES = (PURE, COMPILED, "bjoern", "granian")


def build() -> None:
    """Installs the compiled build into SITE.  Raises BenchError where that fails."""
    shutil.rmtree(SITE, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(SITE),
    ]
    done = subprocess.run(
        [*command, str(ROOT)],
        env={**os.environ, "PREFORK_COMPILE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BenchError(f"the compiled build failed: {done.stderr.strip()[-2000:]}")


def prefork(name: str, pure: str, app: str, probe: str) -> Server:
    """The same files, of which the environment says how they run."""
    environ = ("env", f"PYTHONPATH={SITE}:{ROOT}", f"PREFORK_PURE={pure}")
    # -P: else the checkout, which is the working directory, would come first.
    module = (sys.executable, "-P", "-m", "prefork", "serve", app, *peers.BIND, *ONE)
    return Server(name, (*environ, *module), probe)


def servers(app: str, probe: str = "/") -> list[Server]:
    return [
        prefork(PURE, "1", app, probe),
        prefork(COMPILED, "", app, probe),
        Server("bjoern", peers.bjoern(app), probe),
        Server("granian", peers.granian(app, 1, *ONE), probe),
    ]


def asgi_servers() -> list[Server]:
    app = "bench.asgi_apps:raw"
    return [
        prefork(PURE, "1", app, "/"),
        prefork(COMPILED, "", app, "/"),
        Server("uvicorn", peers.uvicorn_asgi("raw")),
        Server("granian", peers.granian_asgi("raw")),
    ]


def hello(key: str, title: str, ask: Ask) -> Row:
    return Row(loop_section(f"compiled-{key}", f"{title}, both builds", "One worker."), ask)


def measure(quick: bool) -> list[Section]:
    build()
    kept = [
        *(row for row in rows(NAMES) if row.section.key in ("browser", "post-1k")),
        hello("hello", "Hello that repeats, 32 connections", Ask(connections=32)),
        hello("one", "Hello that repeats, 1 connection", Ask(connections=1)),
        hello("close", "Hello, a connection for each", Ask("close", 32)),
    ]
    flask = hello("flask", "Flask hello, 32 connections", Ask(path=frameworks.PATH))
    rounds, seconds = (1, 0.3) if quick else (5, 1.0)
    compare(servers(APP), kept, rounds, seconds)
    app = frameworks.APPS["flask"][1]
    compare(servers(app, frameworks.PATH), [flask], rounds, seconds)
    bare = [hello(f"asgi-{key}", f"ASGI, {text}", ask) for key, (text, ask) in asgi.WAYS.items()]
    compare(asgi_servers(), bare, rounds, seconds)
    return [row.section for row in (*kept, flask, *bare)]
