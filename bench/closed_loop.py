"""The load generator in rounds: servers that are up at the same time, and rows that each is asked.

Each round starts every server once, and asks it every row, in short turns.  So what the machine
does to one of them, for a tenth of a second or for minutes, it does to all.
"""

import contextlib
import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from bench.figures import CLOSED_LOOP, CPU, P50, P99, RATE, Measure, Section, attempt
from bench.hello import BODY
from bench.servers import BUILD, BenchError, Running, Server, started

WARM_UP = 0.2
"""Part of a round's time that is asked before, and not counted."""

TURN = 0.1
"""Seconds that one server is asked at one time, until it is the next one's turn."""

MOST = 10_000_000

_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


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
    request: str = ""
    """What is sent in place of a plain GET or POST: head and body.  Each run of four # or more is
    another number in each request."""
    tls: bool = False


@dataclass(frozen=True)
class Row:
    """One section of the result, and how its figures come about."""

    section: Section
    ask: Ask
    servers: tuple[str, ...] = ()
    """Names of those that take part; empty: all of the group."""
    idle: int = 0
    """Connections to each server that are open besides, and do nothing."""

    def asks(self, server: str) -> bool:
        return not self.servers or server in self.servers


def load_command(ask: Ask, port: int, seconds: float = 0.0, requests: int = MOST) -> list[str]:
    command = [str(BUILD / "load"), "-p", ask.path, "-u", str(ask.upload), "-t", str(seconds)]
    if ask.request:
        command += ["-r", ask.request]
    if ask.tls:
        command.append("-s")
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


@contextlib.contextmanager
def kept_open(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that have each had one answer, and wait.

    Raises OSError where one can't be made, BenchError where one is answered wrongly.
    """
    with contextlib.ExitStack() as stack:
        opened: list[socket.socket] = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            sock.sendall(_REQUEST)
            answer = b""
            while not answer.endswith(b"hello world\n"):
                piece = sock.recv(4096)
                if not piece:
                    raise BenchError(f"a connection was closed after {answer[:60]!r}")
                answer += piece
            opened.append(sock)
        yield opened


class _Tally:
    """What the turns of one server come to, in one round of one row."""

    def __init__(self, running: Running, ask: Ask) -> None:
        self.name = running.name
        self.errors: Counter[str] = Counter()
        self._running = running
        self._ask = ask
        self._cpu = self._seconds = 0.0
        self._ok = 0
        self._p50s: list[float] = []
        self._p99s: list[float] = []

    def keep(self, idle: int, stack: contextlib.ExitStack) -> None:
        """Opens connections that stay until the end of `stack`."""
        try:
            stack.enter_context(kept_open(self._running.port, idle))
        except OSError as problem:
            raise BenchError(f"{self.name}: {problem}") from None

    def warm_up(self, seconds: float) -> None:
        self.errors += Counter(load(self._ask, self._running.port, seconds)["errors"])

    def turn(self, seconds: float) -> None:
        before = self._running.cpu()
        found = load(self._ask, self._running.port, seconds)
        self._cpu += self._running.cpu() - before
        self._seconds += found["seconds"]
        self._ok += found["ok"]
        self._p50s.append(found["p50_us"])
        self._p99s.append(found["p99_us"])
        self.errors += Counter(found["errors"])

    def values(self) -> dict[Measure, float]:
        """Of the turns together; a percentile is the middle one of theirs."""
        return {
            CPU: self._cpu * 1e6 / max(self._ok, 1),
            RATE: self._ok / self._seconds,
            P50: median(self._p50s),
            P99: median(self._p99s),
        }


def play(row: Row, running: list[Running], seconds: float, turn: float) -> None:
    """One row of one round: all servers warmed up, and then asked in turns."""
    section = row.section
    tallies = [_Tally(each, row.ask) for each in running if row.asks(each.name)]
    turns = max(round(seconds / turn), 1)
    with contextlib.ExitStack() as stack:
        for tally in tallies:
            if row.idle:
                attempt([section], tally.name, partial(tally.keep, row.idle, stack))
            attempt([section], tally.name, partial(tally.warm_up, seconds * WARM_UP))
        for number in range(turns):
            first = number % max(len(tallies), 1)
            for tally in tallies[first:] + tallies[:first]:
                attempt([section], tally.name, partial(tally.turn, seconds / turns))
    for tally in tallies:
        if section.of(tally.name).problem:
            continue
        values = tally.values()
        section.add(tally.name, values, tally.errors)
        print(
            f"{section.key}: {tally.name}: {values[CPU]:.1f} us CPU, {values[RATE]:.0f} a second"
            f"{', WRONG: ' + str(dict(tally.errors)) if tally.errors else ''}",
            file=sys.stderr,
        )


def _start(server: Server, running: list[Running], stack: contextlib.ExitStack) -> None:
    running.append(stack.enter_context(started(server)))


def compare(
    servers: list[Server], rows: list[Row], rounds: int, seconds: float, turn: float = TURN
) -> None:
    """All rounds of a group of servers: they are started anew in each, and up at the same time.

    For each row, every server is asked for `seconds`, `turn` of them at one time: A B C, B C A,
    and so on.
    """
    for _ in range(rounds):
        with contextlib.ExitStack() as stack:
            running: list[Running] = []
            for server in servers:
                sections = [row.section for row in rows if row.asks(server.name)]
                attempt(sections, server.name, partial(_start, server, running, stack))
            for row in rows:
                play(row, running, seconds, turn)


def loop_section(key: str, title: str, about: str) -> Section:
    return Section(key, title, about, CLOSED_LOOP)


Part = Callable[[bool], list[Section]]
"""What a module of the bench measures; the argument: in the quick way."""
