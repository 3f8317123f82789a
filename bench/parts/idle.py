"""What a server costs that has nothing to do: idle connections, wake-ups, memory, its start."""

import re
import socket
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

from bench import peers
from bench.apps import PROBE
from bench.closed_loop import Ask, kept_open, load
from bench.figures import Measure, Section, attempt
from bench.parts.balance import wait_for_all
from bench.servers import BenchError, Running, Server, started

APP = "bench.hello:app"

BYTES = Measure("bytes a connection")
P50, P99 = Measure("another's p50, us"), Measure("another's p99, us")
CPU = Measure("another's CPU a request, us", 1)

PSS = Measure("memory of 4 workers, MB", 1)
WAKE_UPS = Measure("wake-ups a second", 2)
START = Measure("start to first answer with 8 workers, ms")


def pss(running: Running) -> float:
    """Bytes of the whole tree (proc_pid_smaps(5)): what is shared is divided among the sharers."""
    try:
        return float(sum(process.memory_full_info().pss for process in running.tree()))
    except psutil.NoSuchProcess:
        raise BenchError(f"{running.name}: a process of it ended meanwhile") from None


def switches(running: Running) -> int:
    """Times that a thread of the tree has slept and woken up (proc_pid_status(5))."""
    total = 0
    for process in running.tree():
        for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
            found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status.read_text(), re.M)
            total += int(found[1]) if found else 0
    return total


def still_open(socks: list[socket.socket]) -> int:
    alive = 0
    for sock in socks:
        sock.setblocking(False)  # with a time limit, recv(2) waits for that long
        try:
            alive += sock.recv(1) != b""
        except BlockingIOError:
            alive += 1
        except OSError:
            pass
    return alive


def connections(quick: bool) -> Section:
    count = 1_000 if quick else 10_000
    section = Section(
        "idle-connections",
        f"{count:,} idle connections in one worker",
        "Each has had one answer and is kept; the memory is that of the server's processes (PSS), "
        "without the kernel's. Meanwhile one more connection asks for hello. The peers are set "
        "to keep that many, for that long.",
        (BYTES, P50, P99, CPU),
    )
    keep = ("--set", "http.keepalive=300", "--set", f"http.max_connections={peers.MANY}")
    hold = ("--worker-connections", peers.MANY, "--keep-alive", "300")
    one = ("--workers", "1")
    contestants = [
        Server("prefork", peers.prefork(APP, *one, *keep)),
        Server("bjoern", peers.bjoern(APP)),
        Server("granian", peers.granian(APP, 1, *one, "--backpressure", peers.MANY)),
        Server("gunicorn gthread", peers.gthread(APP, 1, *one, *hold)),
        peers.nginx("nginx, return 200", r"keepalive_timeout 300; return 200 'hello world\n';"),
    ]
    for server in contestants:

        def once(server: Server = server) -> None:
            with started(server) as running:
                load(Ask(), running.port, requests=2000)
                before = pss(running)
                try:
                    with kept_open(running.port, count) as socks:
                        used = pss(running) - before
                        cpu = running.cpu()
                        told = load(Ask(connections=1), running.port, requests=2000)
                        cpu = running.cpu() - cpu
                        alive = still_open(socks)
                except OSError as problem:
                    raise BenchError(f"{server.name}: {problem}") from None
            if alive < count:
                raise BenchError(f"kept only {alive:,} of {count:,} connections")
            section.add(
                server.name,
                {
                    BYTES: used / count,
                    P50: told["p50_us"],
                    P99: told["p99_us"],
                    CPU: cpu * 1e6 / max(told["ok"], 1),
                },
                Counter(told["errors"]),
            )
            print(f"idle: {server.name}: {used / count:.0f} bytes", file=sys.stderr)

        attempt([section], server.name, once)
    return section


def first_answer(server: Server) -> float:
    """Milliseconds from the start of the command to a right answer."""
    begun = time.perf_counter()
    with started(server):
        return (time.perf_counter() - begun) * 1e3


def nothing_to_do(quick: bool) -> Section:
    section = Section(
        "idle-server",
        "An idle server",
        "Memory of the whole tree (PSS) with 4 workers, once each of them has answered: a process "
        "has pages of its own for the code that it has run; how often any of its threads wakes up; "
        "and how long it takes from the command to the first answer with 8 workers (looked for "
        "every 5 ms).",
        (PSS, WAKE_UPS, START),
    )

    def contestants(app: str, probe: str, workers: int) -> list[Server]:
        number = ("--workers", str(workers))
        return [
            Server("prefork", peers.prefork(app, *number), probe),
            Server("granian", peers.granian(app, 1, *number), probe),
            Server("gunicorn gthread", peers.gthread(app, 1, *number), probe),
            Server("gunicorn sync", peers.gunicorn(app, *number), probe),
            Server("uWSGI", peers.uwsgi(app, "--processes", str(workers)), probe),
        ]

    watched = 2.0 if quick else 3.0
    for _ in range(1 if quick else 2):
        fours, eights = contestants("bench.apps:worker", PROBE, 4), contestants(APP, "/", 8)
        for four, eight in zip(fours, eights, strict=True):

            def once(four: Server = four, eight: Server = eight) -> None:
                start = first_answer(eight)
                with started(four) as running:
                    try:
                        wait_for_all(running.port)
                    except (OSError, ValueError) as problem:
                        raise BenchError(f"{four.name}: {problem}") from None
                    load(Ask("close", path=PROBE), running.port, requests=400)
                    time.sleep(1.0)  # what the start and the load have left to do is not idle
                    before, begun = switches(running), time.monotonic()
                    time.sleep(watched)
                    woken = (switches(running) - before) / (time.monotonic() - begun)
                    memory = pss(running) / 1e6
                section.add(four.name, {PSS: memory, WAKE_UPS: woken, START: start})
                print(
                    f"idle: {four.name}: {memory:.1f} MB, {woken:.2f} wake-ups a second, first "
                    f"answer after {start:.0f} ms",
                    file=sys.stderr,
                )

            attempt([section], four.name, once)
    return section


def measure(quick: bool) -> list[Section]:
    return [connections(quick), nothing_to_do(quick)]
