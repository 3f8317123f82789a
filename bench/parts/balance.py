"""Who gets the next connection: four workers, asked one connection after the other."""

import sys
from collections import Counter
from statistics import fmean, pstdev
from time import monotonic

from bench import peers
from bench.figures import Measure, Section, attempt
from bench.parts.respawn import ask
from bench.servers import BenchError, Server, started

WORKERS = 4
PATIENCE = 2.0
VARIATION = Measure("coefficient of variation", 3)
LEAST = Measure("least", least=False)
MOST = Measure("most")


def servers() -> list[Server]:
    app, four = "bench.apps:worker", ("--workers", str(WORKERS))
    probe = "/hello"
    return [
        Server("prefork", peers.prefork(app, *four), probe),
        Server("granian", peers.granian(app, 1, *four), probe),
        Server("gunicorn gthread", peers.gthread(app, 1, *four), probe),
        Server("gunicorn sync", peers.gunicorn(app, *four), probe),
        Server("uWSGI", peers.uwsgi(app, "--processes", str(WORKERS)), probe),
    ]


def shares(port: int, connections: int) -> list[int]:
    """Connections that each worker got; raises OSError and ValueError for a wrong answer."""
    got = Counter(ask(port) for _ in range(connections))
    return sorted([*got.values(), *[0] * (WORKERS - len(got))])


def wait_for_all(port: int) -> None:
    """Asks until each worker has answered: one that is still starting is no matter of balance.

    Where some never get a connection it goes on without them.
    """
    seen: set[int] = set()
    until = monotonic() + PATIENCE
    while len(seen) < WORKERS and monotonic() < until:
        seen.add(ask(port))


def measure(quick: bool) -> list[Section]:
    connections = 400
    section = Section(
        "balance",
        "Balance of four workers",
        f"{connections} connections, one after the other, each asked once, when all workers have "
        "answered before: how many each worker got, and the coefficient of variation (standard "
        "deviation over mean).",
        (VARIATION, LEAST, MOST),
    )
    for _ in range(1 if quick else 3):
        for server in servers():

            def once(server: Server = server) -> None:
                with started(server) as running:
                    try:
                        wait_for_all(running.port)
                        got = shares(running.port, connections)
                    except (OSError, ValueError) as problem:
                        raise BenchError(f"{server.name}: {problem}") from None
                section.add(
                    server.name,
                    {VARIATION: pstdev(got) / fmean(got), LEAST: got[0], MOST: got[-1]},
                )
                print(f"balance: {server.name}: {got}", file=sys.stderr)

            attempt([section], server.name, once)
    return [section]
