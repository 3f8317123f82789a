"""The compiled build beside pure Python, of the same checkout: what people send, and hello.

It is built first (setup.py), which takes minutes, a C compiler and the headers of Python.
"""

import os
import shutil
import subprocess
import sys

from bench import peers
from bench.closed_loop import Ask, Row, compare, loop_section
from bench.figures import Section
from bench.parts.traffic import APP, ONE, rows
from bench.servers import BUILD, ROOT, BenchError, Server

SITE = BUILD / "compiled"
PURE, COMPILED = "prefork, pure Python", "prefork, compiled"
NAMES = (PURE, COMPILED, "bjoern")


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


def prefork(name: str, pure: str) -> Server:
    """The same files, of which the environment says how they run."""
    environ = ("env", f"PYTHONPATH={SITE}:{ROOT}", f"PREFORK_PURE={pure}")
    # -P: else the checkout, which is the working directory, would come first.
    module = (sys.executable, "-P", "-m", "prefork", "serve", APP, *peers.BIND, *ONE)
    return Server(name, (*environ, *module))


def measure(quick: bool) -> list[Section]:
    build()
    about = "One worker, keep-alive, 32 connections; the same request byte for byte."
    title = "Hello that repeats, both builds"
    hello = Row(loop_section("compiled-hello", title, about), Ask(connections=32), NAMES)
    given = [*(row for row in rows(NAMES) if row.section.key in ("browser", "post-1k")), hello]
    servers = [prefork(PURE, "1"), prefork(COMPILED, ""), Server("bjoern", peers.bjoern(APP))]
    compare(servers, given, 1 if quick else 5, 0.3 if quick else 1.0)
    return [row.section for row in given]
