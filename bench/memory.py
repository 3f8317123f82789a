"""Memory of a pool: what eight workers take that hold the same 100 MB of small objects.

    python -m bench.memory [--rounds 3] [--requests 1000] [--write]

PSS of the whole process tree after the requests (proc_pid_smaps(5)): each page counts once, divided
among those that share it.  A page is shared until somebody writes to it, and to look at a Python
object is to write to its reference count.
"""

import argparse
import sys
from collections import Counter
from statistics import median

import psutil

from bench.apps import MEGABYTES, PROBE, TOUCHED
from bench.report import machine, wrong
from bench.run import count, load, write
from bench.servers import BenchError, Running, Server, gunicorn, prefork, prepare, started

WORKERS = 8
REFERENCE = "gunicorn"


def servers() -> list[Server]:
    workers = ("--workers", str(WORKERS))
    ours = (*prefork("bench.apps:objects()"), *workers)
    theirs = (*gunicorn("bench.apps:objects()"), *workers)
    return [
        Server("prefork", ours, PROBE),
        Server("prefork, preload", (*ours, "--set", "workers.preload=true"), PROBE),
        Server(REFERENCE, theirs, PROBE),
        Server("gunicorn --preload", (*theirs, "--preload"), PROBE),
    ]


def pss(running: Running) -> float:
    """Megabytes (10^6 bytes) of the whole tree.

    Raises BenchError where one of its processes has gone.
    """
    try:
        tree = running.tree()
        if len(tree) <= WORKERS:
            raise BenchError(f"{running.name}: only {len(tree)} processes")
        return sum(process.memory_full_info().pss for process in tree) / 1e6
    except psutil.NoSuchProcess:
        raise BenchError(f"{running.name}: a process of it ended meanwhile") from None


def measure(server: Server, requests: int) -> float:
    with started(server) as running:
        told = load("close", running.port, WORKERS, requests)
        if errors := wrong(+Counter(told["errors"])):
            raise BenchError(f"{server.name}: {errors}")
        return pss(running)


def document(table: dict[str, list[float]], requests: int) -> str:
    reference = median(table[REFERENCE])
    rounds = len(table[REFERENCE])
    lines = [
        "# Memory",
        "",
        f"{WORKERS} workers, {MEGABYTES} MB of small objects made at import, {requests:,} requests "
        f"that each look at {TOUCHED} records; PSS of the tree, median of {rounds} (least–most).",
        "",
        machine(),
        "",
        f"| server | PSS, MB | ÷ {REFERENCE} |",
        "|---|---|---|",
    ]
    for name, sizes in table.items():
        middle, least, most = median(sizes), min(sizes), max(sizes)
        cell = f"{middle:,.0f} ({least:,.0f}–{most:,.0f})"
        lines.append(f"| {name} | {cell} | {middle / reference:.2f} |")
    return "\n".join(lines) + "\n"


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.memory", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=count(20), default=3, help="of each server (3)")
    parser.add_argument("--requests", type=count(100_000), default=1000, help="a round (1000)")
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results/")
    options = parser.parse_args(given)
    table: dict[str, list[float]] = {server.name: [] for server in servers()}
    try:
        prepare()
        for number in range(1, options.rounds + 1):
            for server in servers():
                size = measure(server, options.requests)
                table[server.name].append(size)
                print(f"round {number}: {server.name}: {size:,.0f} MB", file=sys.stderr)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    text = document(table, options.requests)
    print(text)
    if options.write:
        print(f"written to {write(text, 'memory')}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
