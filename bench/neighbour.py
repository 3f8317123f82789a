"""The slow neighbour: how long fast requests take while another one keeps a worker busy.

    python -m bench.neighbour [--rounds 3] [--seconds 4]

Two workers.  One client asks for what takes half a second, again and again; 16 kept connections
and 4 clients with a connection per request ask for what takes nothing, each a few milliseconds
after its last answer.  The half second is slept, or computed in Python, or spent in C code that
does not let go of the interpreter.  Prints what the fast ones saw: medians of the rounds, with the
least and the most.
"""

import argparse
import heapq
import random
import selectors
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from statistics import median, quantiles

from bench.hello import BODY
from bench.run import count
from bench.servers import PEERS, BenchError, Server, gunicorn, prefork, started

KEPT = 16
ONE_SHOT = 4
PAUSE = 0.004
"""Seconds between an answer and the next request, on average."""

APP = "bench.works:neighbour"
WORKS = {"sleeps": "/sleep", "computes in Python": "/compute", "keeps the GIL in C": "/hold"}


@dataclass(frozen=True)
class Round:
    """What the fast clients saw, in milliseconds."""

    p50: float
    p99: float
    p999: float
    most: float
    answers: int
    wrong: Counter[str]


class Client:
    """One fast client; never waits."""

    def __init__(self, port: int, *, kept: bool) -> None:
        self._address = ("127.0.0.1", port)
        self._kept = kept
        self._data = b""
        self.sock: socket.socket | None = None
        self.began = 0.0
        last = b"" if kept else b"Connection: close\r\n"
        self._request = b"GET / HTTP/1.1\r\nHost: bench\r\n%b\r\n" % last

    def ask(self) -> socket.socket:
        """Sends a request, over a new connection where there is none."""
        self.began = time.perf_counter()
        self._data = b""
        if self.sock is None:
            self.sock = socket.create_connection(self._address, 10)
            self.sock.setblocking(False)
        self.sock.send(self._request)
        return self.sock

    def hear(self) -> str | None:
        """Reads on; how it ended, None while it has not."""
        assert self.sock is not None
        try:
            data = self.sock.recv(65536)
        except OSError:
            self.close()
            return "reset"
        self._data += data
        head, _, body = self._data.partition(b"\r\n\r\n")
        if self._kept and data and len(body) < len(BODY):
            return None
        if not self._kept and data:
            return None  # the end is part of the answer
        if not self._kept or not data or b"close" in head.lower():
            self.close()
        return "ok" if head.split()[1:2] == [b"200"] and body == BODY else "wrong"

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


def fast(port: int, seconds: float) -> tuple[list[float], Counter[str]]:
    """All fast clients, in one thread: (latencies in seconds, what was not right)."""
    clients = [Client(port, kept=number < KEPT) for number in range(KEPT + ONE_SHOT)]
    latencies: list[float] = []
    wrong: Counter[str] = Counter()
    begin = time.perf_counter()
    due = [(begin + random.random() * PAUSE, number) for number in range(len(clients))]
    heapq.heapify(due)
    under_way = 0
    with selectors.EpollSelector() as selector:
        while due or under_way:
            now = time.perf_counter()
            if now > begin + seconds:
                due.clear()
            while due and due[0][0] <= now:
                number = heapq.heappop(due)[1]
                sock = clients[number].ask()
                selector.register(sock, selectors.EVENT_READ, number)
                under_way += 1
            ready = selector.select(max(due[0][0] - now, 0) if due else 10)
            if not ready and not due:
                wrong["no answer"] += under_way
                break
            for key, _ in ready:
                client = clients[key.data]
                outcome = client.hear()
                if outcome is None:
                    continue
                selector.unregister(key.fileobj)
                under_way -= 1
                now = time.perf_counter()
                if outcome == "ok":
                    latencies.append(now - client.began)
                else:
                    wrong[outcome] += 1
                heapq.heappush(due, (now + PAUSE * random.uniform(0.5, 1.5), key.data))
    for client in clients:
        client.close()
    return latencies, wrong


def slow(port: int, path: str, over: threading.Event) -> None:
    """The neighbour: the same request again and again, over a connection each."""
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
    while not over.is_set():
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(request)
            while sock.recv(65536):
                pass


def play(server: Server, path: str, seconds: float) -> Round:
    """One round of one server."""
    with started(server) as running:
        fast(running.port, 0.3)  # warm
        over = threading.Event()
        neighbour = threading.Thread(target=slow, args=(running.port, path, over))
        neighbour.start()
        try:
            latencies, wrong = fast(running.port, seconds)
        finally:
            over.set()
            neighbour.join()
    if len(latencies) < 100:
        raise BenchError(f"{server.name}: only {len(latencies)} answers")
    cuts = quantiles(latencies, n=1000)
    return Round(
        *(cuts[499] * 1e3, cuts[989] * 1e3, cuts[998] * 1e3, max(latencies) * 1e3),
        *(len(latencies), wrong),
    )


def servers() -> list[Server]:
    """Two workers of one thread each, as far as a server has threads."""
    ours = (*prefork(APP), "--workers", "2")
    found = [
        Server("prefork", ours),
        Server("prefork, handover = false", (*ours, "--set", "workers.handover=false")),
    ]
    if (PEERS / "gunicorn").exists():
        theirs = (*gunicorn(APP), "--workers", "2", "-k", "gthread", "--threads", "1")
        found.append(Server("gunicorn gthread", theirs))
    if (PEERS / "granian").exists():
        options = ("--interface", "wsgi", "--workers", "2", "--blocking-threads", "1")
        where = ("--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning")
        found.append(Server("granian", (str(PEERS / "granian"), *options, *where, APP)))
    return found


def cell(values: list[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def lines(work: str, table: dict[str, list[Round]]) -> list[str]:
    rows = []
    for name, rounds in table.items():
        wrong = sum((one.wrong for one in rounds), Counter())
        figures = [[getattr(one, key) for one in rounds] for key in ("p50", "p99", "p999", "most")]
        told = f"invalid: {dict(wrong)}" if wrong else "none"
        rows.append(f"| {work} | {name} | {' | '.join(map(cell, figures))} | {told} |")
    return rows


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.neighbour")
    parser.add_argument("--rounds", type=count(100), default=3, help="of each server (3)")
    parser.add_argument("--seconds", type=count(60), default=4, help="of each round (4)")
    options = parser.parse_args(given)
    print("| the neighbour | server | p50, ms | p99, ms | p99.9, ms | most, ms | failures |")
    print("|---|---|---|---|---|---|---|")
    failed = False
    try:
        for work, path in WORKS.items():
            table: dict[str, list[Round]] = {server.name: [] for server in servers()}
            for _ in range(options.rounds):
                for server in servers():
                    result = play(server, path, options.seconds)
                    table[server.name].append(result)
                    failed = failed or bool(result.wrong)
                    print(f"{work}: {server.name}: {result}", file=sys.stderr)
            for line in lines(work, table):
                print(line)
    except (BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
