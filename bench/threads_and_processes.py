"""A pool of threads against a pool of processes: one worker of N threads beside N workers.

    python -m bench.threads_and_processes [--rounds 5] [--count 4]

Both serve three applications (bench/works.py) in interleaved rounds, each started anew, warmed up,
and asked by bench/load over 16 kept connections.  A single worker with a single thread stands
beside them.  Prints a table of medians with the least and the most.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from bench.closed_loop import Ask, load
from bench.servers import BenchError, Running, Server, compile_programs, started

ASK = Ask(connections=16)


def count(most: int) -> Callable[[str], int]:
    """An argument that is a number from 1 to `most`."""

    def convert(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}")
        return int(text)

    return convert


@dataclass(frozen=True)
class Work:
    """An application and how often it is asked in a round."""

    name: str
    app: str
    requests: int


WORKS = (
    Work("answers at once", "bench.works:nothing", 20_000),
    Work("computes for 1 ms", "bench.works:compute", 2_000),
    Work("waits for 10 ms", "bench.works:wait", 2_000),
)


@dataclass(frozen=True)
class Round:
    """One server, one work, one round."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """User and system time of the whole server, a request."""
    memory_mib: float
    """Of the whole server at the end: what it shares is counted once (PSS, proc(5))."""


def pools(work: Work, number: int) -> list[Server]:
    """Those that are compared."""

    def server(name: str, workers: int, threads: int) -> Server:
        serve = (str(Path(sys.executable).with_name("prefork")), "serve", work.app)
        size = ("--workers", str(workers), "--threads", str(threads))
        return Server(name, (*serve, "--bind", "127.0.0.1:{port}", *size))

    return [
        server("1 worker, 1 thread", 1, 1),
        server(f"1 worker, {number} threads", 1, number),
        server(f"{number} workers, 1 thread", number, 1),
    ]


def play(work: Work, server: Server) -> Round:
    """One round; raises BenchError, also where an answer was wrong."""
    with started(server) as running:
        warm = load(ASK, running.port, requests=work.requests // 10)
        before = running.cpu()
        told = load(ASK, running.port, requests=work.requests)
        cpu = running.cpu() - before
        memory = pss(running)
    errors = Counter(warm["errors"]) + Counter(told["errors"])
    if errors:
        raise BenchError(f"{server.name}: wrong answers: {dict(errors)}")
    return Round(
        per_second=told["ok"] / told["seconds"],
        p50_ms=told["p50_us"] / 1e3,
        p99_ms=told["p99_us"] / 1e3,
        cpu_us=cpu * 1e6 / work.requests,
        memory_mib=memory / 2**20,
    )


def pss(running: Running) -> int:
    """Bytes; raises BenchError where a process of the server has gone."""
    try:
        return sum(int(process.memory_full_info().pss) for process in running.tree())
    except psutil.Error:
        raise BenchError(f"{running.name}: it or a process of it ended during a round") from None


def compare(work: Work, rounds: int, number: int) -> dict[str, list[Round]]:
    """All rounds of one work: A B C, A B C, and so on."""
    table: dict[str, list[Round]] = {server.name: [] for server in pools(work, number)}
    for turn in range(1, rounds + 1):
        for server in pools(work, number):
            result = play(work, server)
            table[server.name].append(result)
            print(f"{work.name}, round {turn}: {server.name}: {result}", file=sys.stderr)
    return table


def spread(values: list[float], digits: int) -> str:
    middle, least, most = (
        f"{value:,.{digits}f}" for value in (median(values), min(values), max(values))
    )
    return f"{middle} ({least}–{most})"


HEADER = (
    "| the application | pool | requests a second | p50, ms | p99, ms | CPU a request, us "
    "| memory, MiB |"
)


def lines(work: Work, table: dict[str, list[Round]]) -> list[str]:
    return [
        f"| {work.name} | {name} "
        f"| {spread([one.per_second for one in rounds], 0)} "
        f"| {spread([one.p50_ms for one in rounds], 1)} "
        f"| {spread([one.p99_ms for one in rounds], 1)} "
        f"| {spread([one.cpu_us for one in rounds], 0)} "
        f"| {spread([one.memory_mib for one in rounds], 0)} |"
        for name, rounds in table.items()
    ]


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.threads_and_processes")
    parser.add_argument("--rounds", type=count(100), default=5, help="of each pool (5)")
    parser.add_argument("--count", type=count(64), default=4, help="threads, and workers (4)")
    options = parser.parse_args(given)
    print(HEADER)
    print("|---" * (HEADER.count("|") - 1) + "|")
    try:
        compile_programs()
        for work in WORKS:
            for line in lines(work, compare(work, options.rounds, options.count)):
                print(line)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    cpus = len(os.sched_getaffinity(0))
    print(f"\n{options.rounds} rounds on {cpus} CPUs; medians (least–most).")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
