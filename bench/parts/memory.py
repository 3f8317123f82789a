"""Memory of a pool: what eight workers take that hold the same 100 MB of small objects.

PSS of the whole process tree after the requests (proc_pid_smaps(5)): each page counts once, divided
among those that share it.  A page is shared until somebody writes to it, and to look at a Python
object is to write to its reference count.
"""

import sys
from collections import Counter
from time import monotonic, sleep

from bench import peers
from bench.apps import MEGABYTES, PROBE, TOUCHED
from bench.closed_loop import Ask, load
from bench.figures import Measure, Section, attempt
from bench.parts.idle import pss
from bench.servers import BenchError, Running, Server, started

WORKERS = 8
REFERENCE = "gunicorn"
REQUESTS = 1000
PATIENCE = 30.0
"""Seconds for all workers to be there."""

PSS = Measure("memory of the tree, MB")


def servers() -> list[Server]:
    workers = ("--workers", str(WORKERS))
    ours = peers.prefork("bench.apps:objects()", *workers)
    theirs = peers.gunicorn("bench.apps:objects()", *workers)
    return [
        Server("prefork", ours, PROBE),
        Server("prefork, preload", (*ours, "--set", "workers.preload=true"), PROBE),
        Server(REFERENCE, theirs, PROBE),
        Server("gunicorn --preload", (*theirs, "--preload"), PROBE),
    ]


def wait_for_workers(running: Running) -> None:
    """The first one answers before the last is forked.  Raises BenchError."""
    until = monotonic() + PATIENCE
    while len(running.tree()) <= WORKERS:
        if monotonic() > until:
            raise BenchError(f"only {len(running.tree())} processes")
        sleep(0.05)


def measure(quick: bool) -> list[Section]:
    section = Section(
        "memory",
        "Memory of a large application",
        f"{WORKERS} workers, {MEGABYTES} MB of small objects made at import, {REQUESTS:,} requests "
        f"that each look at {TOUCHED} records; PSS of the tree.",
        (PSS,),
        reference=REFERENCE,
    )
    for server in servers():

        def once(server: Server = server) -> None:
            with started(server) as running:
                wait_for_workers(running)
                told = load(Ask("close", WORKERS), running.port, requests=REQUESTS)
                size = pss(running) / 1e6
            section.add(server.name, {PSS: size}, Counter(told["errors"]))
            print(f"memory: {server.name}: {size:,.0f} MB", file=sys.stderr)

        attempt([section], server.name, once)
    return [section]
