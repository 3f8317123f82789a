"""How long a server is away whose only worker is killed: from SIGKILL to the next answer.

The client connects at once and waits in the listen queue, which belongs to the master; what it
waits for is that the master notices, that a worker is forked and loads the application, and its
answer.  Where the dying worker still accepted it (accept(2) looks at the queue before it looks for
signals), it is reset, and tries again.
"""

import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from time import perf_counter

from bench import peers
from bench.apps import PROBE
from bench.figures import Measure, Section, attempt
from bench.servers import BenchError, Server, started

APPS = {"lone": "a trivial application", "django": "a Django application with its admin"}
REFERENCE = "gunicorn"
TIMEOUT = 5.0
KILLS = 10
WARM_UP = 2
"""Kills that are not counted."""
AWAY = Measure("away, ms", 1)


def servers(app: str) -> list[Server]:
    ours = peers.prefork(f"bench.apps:{app}()", "--workers", "1")
    theirs = peers.gunicorn(f"bench.apps:{app}()", "--workers", "1")
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
        until = perf_counter() + TIMEOUT
        while data := sock.recv(65536):
            answer += data
            sock.settimeout(max(until - perf_counter(), 0.001))
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


def measure(quick: bool) -> list[Section]:
    sections = []
    for app, text in APPS.items():
        section = Section(
            f"respawn-{app}",
            f"Respawn: {text}",
            f"One worker, killed {KILLS} times: from SIGKILL to the next answer.",
            (AWAY,),
            reference=REFERENCE,
        )
        for server in servers(app):

            def once(server: Server = server, section: Section = section) -> None:
                with started(server) as running:
                    try:
                        times = list(away(running.port, KILLS + WARM_UP))[WARM_UP:]
                    except (OSError, ValueError) as problem:
                        raise BenchError(f"{server.name}: {problem}") from None
                for each in times:
                    section.add(server.name, {AWAY: each})
                print(f"{section.key}: {server.name}: {max(times):.1f} ms at most", file=sys.stderr)

            attempt([section], server.name, once)
        sections.append(section)
    return sections
