"""How long a server is away whose only worker is killed: from SIGKILL to the next answer.

    python -m bench.respawn [--kills 20] [--write]

The client connects at once and waits in the listen queue, which belongs to the master; what it
waits for is that the master notices, that a worker is forked and loads the application, and its
answer.  Where the dying worker still accepted it (accept(2) looks at the queue before it looks for
signals), it is reset, and tries again.
"""

import argparse
import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from statistics import median
from time import perf_counter

from bench.apps import PROBE
from bench.report import machine
from bench.run import count, write
from bench.servers import BenchError, Server, gunicorn, prefork, prepare, started

APPS = {"lone": "A trivial application", "django": "A Django application with its admin"}
REFERENCE = "gunicorn"
TIMEOUT = 20.0
WARM_UP = 2
"""Kills that are not counted."""

Table = dict[str, list[float]]


def servers(app: str) -> list[Server]:
    ours = (*prefork(f"bench.apps:{app}()"), "--workers", "1")
    theirs = (*gunicorn(f"bench.apps:{app}()"), "--workers", "1")
    return [
        Server("prefork", ours, PROBE),
        Server("prefork, preload", (*ours, "--set", "workers.preload=true"), PROBE),
        Server(REFERENCE, theirs, PROBE),
        Server("gunicorn --preload", (*theirs, "--preload"), PROBE),
    ]


def ask(port: int) -> int:
    """The worker that answers.  Raises OSError, and ValueError for another answer."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
        host = f"Host: 127.0.0.1:{port}\r\n"
        sock.sendall(f"GET / HTTP/1.1\r\n{host}Connection: close\r\n\r\n".encode())
        answer = b""
        while data := sock.recv(65536):
            answer += data
    found = re.search(rb"Worker (\d+) answers", answer)
    if not answer.startswith(b"HTTP/1.1 200 ") or found is None:
        raise ValueError(f"answered {answer[:100]!r}")
    return int(found[1])


def ask_again(port: int) -> int:
    while True:
        with contextlib.suppress(ConnectionResetError):
            return ask(port)


def away(port: int, kills: int) -> Iterator[float]:
    """Milliseconds, for each kill."""
    worker = ask(port)
    for _ in range(kills):
        os.kill(worker, signal.SIGKILL)
        begun = perf_counter()
        successor = ask_again(port)
        yield (perf_counter() - begun) * 1e3
        if successor == worker:
            raise ValueError(f"worker {worker} answers after its death")
        worker = successor


def measure(server: Server, kills: int) -> list[float]:
    """Raises BenchError where a kill was not followed by an answer of another worker."""
    with started(server) as running:
        try:
            return list(away(running.port, kills + WARM_UP))[WARM_UP:]
        except (OSError, ValueError) as problem:
            raise BenchError(f"{server.name}: {problem}") from None


def section(title: str, table: Table) -> str:
    reference = median(table[REFERENCE])
    lines = [f"## {title}", "", f"| server | away, ms | ÷ {REFERENCE} |", "|---|---|---|"]
    for name, times in table.items():
        middle, least, most = median(times), min(times), max(times)
        cell = f"{middle:,.1f} ({least:,.1f}–{most:,.1f})"
        lines.append(f"| {name} | {cell} | {middle / reference:.3f} |")
    return "\n".join(lines)


def document(tables: dict[str, Table]) -> str:
    kills = len(next(iter(tables.values()))[REFERENCE])
    intro = (
        f"One worker, killed {kills} times: from SIGKILL to the next answer, median (least–most)."
    )
    sections = [section(APPS[app], table) for app, table in tables.items()]
    return "\n\n".join(("# Respawn", intro, machine(), *sections)) + "\n"


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.respawn", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kills", type=count(1000), default=20, help="of each server (20)")
    parser.add_argument("--write", action="store_true", help="keep the result in bench/results/")
    options = parser.parse_args(given)
    tables: dict[str, Table] = {}
    try:
        prepare()
        for app in APPS:
            tables[app] = {}
            for server in servers(app):
                times = measure(server, options.kills)
                tables[app][server.name] = times
                print(f"{app}: {server.name}: {median(times):.1f} ms", file=sys.stderr)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    text = document(tables)
    print(text)
    if options.write:
        print(f"written to {write(text, 'respawn')}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
