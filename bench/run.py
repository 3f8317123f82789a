"""Side by side: prefork, gunicorn and a C loop, one worker each, in interleaved rounds.

    python -m bench.run [--rounds 5] [--requests 20000] [--connections 32] [--write]

Each round starts every server in turn, warms it up, and asks it a fixed number of requests; so what
drifts on the machine drifts for all.  A round in which an answer was wrong or missing is not a
figure: the server's line says "invalid", and the run exits with 1.
"""

import argparse
import datetime
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.hello import BODY
from bench.report import ROWS, Round, Table, document
from bench.servers import BUILD, ROOT, BenchError, Server, prepare, servers, started

RESULTS = ROOT / "bench/results"
WARM_UP = 10
"""One part in so many of the requests is asked before, and not counted."""


def load(row: str, port: int, connections: int, requests: int) -> dict[str, Any]:
    """Runs the load generator once; its JSON object.

    Raises BenchError where it fails itself or takes more than 10 minutes.
    """
    command = [BUILD / "load", row, "127.0.0.1", port, connections, requests, BODY.decode()]
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=600
        )
    except subprocess.TimeoutExpired:
        raise BenchError("the load took more than 10 minutes: try fewer --requests") from None
    if done.returncode:
        raise BenchError(f"bench/load failed: {done.stderr.strip()}")
    return dict(json.loads(done.stdout))


def play(row: str, server: Server, connections: int, requests: int) -> Round:
    """One round of one server: started, warmed up, measured, stopped."""
    with started(server) as running:
        warm = load(row, running.port, connections, max(requests // WARM_UP, connections))
        before = running.cpu()
        told = load(row, running.port, connections, requests)
        cpu = running.cpu() - before
    return Round(
        cpu_us=cpu * 1e6 / requests,
        per_second=told["ok"] / told["seconds"],
        p50_us=told["p50_us"],
        p99_us=told["p99_us"],
        client_us=told["client_us"],
        connections=told["connections"],
        errors=Counter(warm["errors"]) + Counter(told["errors"]),
    )


def compare(row: str, rounds: int, connections: int, requests: int) -> Table:
    """All the rounds of one row: A B C, A B C, and so on."""
    table: Table = {server.name: [] for server in servers(row)}
    for number in range(1, rounds + 1):
        for server in servers(row):
            result = play(row, server, connections, requests)
            table[server.name].append(result)
            print(f"{ROWS[row].title}, round {number}: {server.name}: {result}", file=sys.stderr)
    return table


def write(text: str, what: str = "requests") -> Path:
    """Keeps a result under the name of its time (UTC) and of what was measured."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d-%H%M%S}-{what}.md"
    path.write_text(text)
    return path


def count(most: int) -> Callable[[str], int]:
    """An argument that is a number from 1 to `most`."""

    def convert(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}")
        return int(text)

    return convert


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=count(100), default=5, help="of each server (5)")
    parser.add_argument("--requests", type=count(10_000_000), default=20_000, help="a round")
    parser.add_argument("--connections", type=count(1000), default=32, help="at a time (32)")
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results/")
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    options = arguments(given)
    try:
        prepare()
        tables = {
            row: compare(row, options.rounds, options.connections, options.requests) for row in ROWS
        }
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    text = document(tables, options.rounds, options.connections, options.requests)
    print(text)
    if options.write:
        print(f"written to {write(text)}", file=sys.stderr)
    rounds = (result for table in tables.values() for played in table.values() for result in played)
    return 1 if any(result.errors for result in rounds) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
