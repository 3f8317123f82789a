"""The compiled build beside pure Python, of the same checkout, on each row that has an aim.

It is built first (setup.py), which takes minutes, a C compiler and the headers of Python.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

from bench import peers
from bench.closed_loop import Ask, Row, compare, loop_section
from bench.figures import Section
from bench.parts import asgi, frameworks, hello, traffic, websocket
from bench.servers import BUILD, ROOT, BenchError, Server

SITE = BUILD / "compiled"
KEY = "compiled-"
"""With which the keys of the sections begin: what follows is that of the same in another part."""
PURE, COMPILED = "prefork, pure Python", "prefork, compiled"


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
    module = (sys.executable, "-P", "-m", "prefork", "serve", app, *peers.BIND, *traffic.ONE)
    return Server(name, (*environ, *module), probe)


def wsgi_servers(app: str, probe: str = "/") -> list[Server]:
    return [
        prefork(PURE, "1", app, probe),
        prefork(COMPILED, "", app, probe),
        Server("bjoern", peers.bjoern(app), probe),
        Server("granian", peers.granian(app, 1, *traffic.ONE), probe),
    ]


def asgi_servers(app: str) -> list[Server]:
    ours = f"bench.asgi_apps:{app}"
    others = [server for server in asgi.servers(app) if server.name in ("uvicorn", "granian")]
    return [prefork(PURE, "1", ours, "/"), prefork(COMPILED, "", ours, "/"), *others]


def own(section: Section) -> Section:
    """A section of another part as one of this part."""
    return replace(section, key=KEY + section.key, reference=COMPILED)


def measure(quick: bool) -> list[Section]:
    build()
    sent = [row for row in traffic.rows(()) if row.section.key in ("browser", "post-1k")]
    title, flask = frameworks.APPS["flask"]
    kept = loop_section("flask", title, "One worker, keep-alive, 32 connections.")
    groups = [
        (wsgi_servers(traffic.APP), [*sent, *hello.rows()]),
        (wsgi_servers(flask, frameworks.PATH), [Row(kept, Ask(path=frameworks.PATH))]),
        *((asgi_servers(app), asgi.rows(key)) for key, app in asgi.APPS.items()),
    ]
    sections: list[Section] = []
    for servers, theirs in groups:
        rows = [replace(row, section=own(row.section)) for row in theirs]
        with asgi.backend():
            compare(servers, rows, 1 if quick else 3, 0.3 if quick else 0.5)
        sections += [row.section for row in rows]
    messages = {key: own(section) for key, section in websocket.sections().items()}
    websocket.compare(asgi_servers("raw"), messages, 1 if quick else 3)
    return [*sections, *messages.values()]
