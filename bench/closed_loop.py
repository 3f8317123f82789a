"""The load generator in rounds: servers that are started in turn, and rows that each is asked.

Each round starts every server once, and asks it every row: warmed up, then for a fixed time.  So
what drifts on the machine drifts for all of them.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.figures import CLOSED_LOOP, CPU, P50, P99, RATE, Section, attempt
from bench.hello import BODY
from bench.servers import BUILD, BenchError, Running, Server, started

WARM_UP = 0.2
"""Part of a round's time that is asked before, and not counted."""

MOST = 10_000_000


@dataclass(frozen=True)
class Ask:
    """How the load generator asks."""

    mode: str = "keepalive"
    connections: int = 32
    path: str = "/"
    upload: int = 0
    """Bytes of body; 0 asks with GET."""
    body: str = BODY.decode()
    """What must come back: a text, or "@" and the path of a file."""


@dataclass(frozen=True)
class Row:
    """One section of the result, and how its figures come about."""

    section: Section
    ask: Ask
    servers: tuple[str, ...] = ()
    """Names of those that take part; empty: all of the group."""


def load_command(ask: Ask, port: int, seconds: float = 0.0, requests: int = MOST) -> list[str]:
    command = [str(BUILD / "load"), "-p", ask.path, "-u", str(ask.upload), "-t", str(seconds)]
    return [*command, ask.mode, "127.0.0.1", str(port), *map(str, (ask.connections, requests)),
            ask.body]  # fmt: skip


def told(output: str, errors: str, code: int) -> dict[str, Any]:
    """The load generator's JSON object; raises BenchError where it failed itself."""
    if code:
        raise BenchError(f"bench/load failed: {errors.strip()}")
    return dict(json.loads(output))


def load(ask: Ask, port: int, seconds: float = 0.0, requests: int = MOST) -> dict[str, Any]:
    """Runs the load generator once, for a time or a number of requests.

    Raises BenchError where it fails itself or takes more than 10 minutes.
    """
    command = load_command(ask, port, seconds, requests)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        raise BenchError("the load took more than 10 minutes: try fewer requests") from None
    return told(done.stdout, done.stderr, done.returncode)


def play(row: Row, running: Running, seconds: float) -> None:
    """One row of one running server: warmed up, then measured."""
    warm = load(row.ask, running.port, seconds * WARM_UP)
    before = running.cpu()
    found = load(row.ask, running.port, seconds)
    cpu = running.cpu() - before
    values = {
        CPU: cpu * 1e6 / max(found["ok"], 1),
        RATE: found["ok"] / found["seconds"],
        P50: found["p50_us"],
        P99: found["p99_us"],
    }
    errors = Counter(warm["errors"]) + Counter(found["errors"])
    row.section.add(running.name, values, errors)
    print(
        f"{row.section.key}: {running.name}: {values[CPU]:.1f} us CPU, {values[RATE]:.0f} a second"
        f"{', WRONG: ' + str(dict(errors)) if errors else ''}",
        file=sys.stderr,
    )


def compare(servers: list[Server], rows: list[Row], rounds: int, seconds: float) -> None:
    """All rounds of a group of servers: A B C, A B C, and so on."""
    for _ in range(rounds):
        for server in servers:
            mine = [row for row in rows if not row.servers or server.name in row.servers]

            def once(server: Server = server, mine: list[Row] = mine) -> None:
                with started(server) as running:
                    for row in mine:
                        play(row, running, seconds)

            attempt([row.section for row in mine], server.name, once)


def loop_section(key: str, title: str, about: str) -> Section:
    return Section(key, title, about, CLOSED_LOOP)


Part = Callable[[bool], list[Section]]
"""What a module of the bench measures; the argument: in the quick way."""
