"""Chaos: a server under load, faults by a seeded schedule, and an account of every connection.

    python -m tests.faults.chaos --seconds 60 --seed 1

The same seed gives the same schedule: which fault comes when, and at what it is aimed.  Each client
checks every byte.  A connection may be cut off only where it was held by a worker that a fault
killed, and that is looked up, not guessed: the victim is stopped first (SIGSTOP), from then on it
can neither accept nor answer, and the kernel shows whose connections it has.  Whatever else goes
wrong for a client is a failure, and the exit status 1.

A row of the table is a method of `Faults` with a weight in ROWS.
"""

import argparse
import contextlib
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

from prefork.control import ControlError
from tests.support.changing_app import rewrite
from tests.support.closed_descriptors import serve_once
from tests.support.commands import ROOT
from tests.support.load import Connection, Cut, Killed, Load, ask, explained
from tests.support.processes import peers_of, stopped
from tests.support.server import Server
from tests.support.waiting import until

DOWNLOAD, SLICE, PAUSE = 24_000_000, 65536, 0.02
"""A slow download: its bytes, of which the kernel keeps some 4 MB, those taken at one time, and the
seconds until the next time."""

INTERVAL = 0.4
"""Seconds from one fault to the next, in the mean."""

EXPECTED = {"worker died", "reload failed", "zygote died", "spawn failed", "upgrade failed"}
"""Errors that a server may log under these faults."""


@dataclass(frozen=True)
class Fault:
    """When it is due, in seconds from the start; `pick`, from 0 to 1, chooses its target."""

    at: float
    name: str
    pick: float


def schedule(seed: int, seconds: float) -> list[Fault]:
    """The faults of a run."""
    rng = random.Random(seed)
    faults = []
    at = rng.expovariate(1 / INTERVAL)
    while at < seconds:
        (name,) = rng.choices(list(ROWS), list(ROWS.values()))
        faults.append(Fault(at, name, rng.random()))
        at += rng.expovariate(1 / INTERVAL)
    return faults


@dataclass
class Row:
    """What happened from a fault to the next, over all its times."""

    times: int = 0
    slowest: float = 0.0
    answers: int = 0
    cut: int = 0
    failures: int = 0


@dataclass
class Clients(Load):
    """A load that knows which of its connections may have been cut off."""

    port: int = 0
    killed: list[Killed] = field(default_factory=list)
    cut: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def keep_alive(self, rng: random.Random) -> None:
        self._connection(rng, rng.randint(1, 30), close=False)

    def one_shot(self, rng: random.Random) -> None:
        self._connection(rng, 1, close=True)

    def slow_download(self, rng: random.Random) -> None:
        """One that takes longer than `graceful_timeout`, so that reloads come in its middle."""
        self._talk(self._download)

    def _download(self, connection: Connection) -> None:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLICE)
        connection.send(f"/big?n={DOWNLOAD}", close=True)
        got = bytearray()
        try:
            while data := connection.sock.recv(SLICE):
                got += data
                self.over.wait(PAUSE)
        except OSError as problem:
            raise Cut(bytes(got), str(problem)) from None
        if not got.endswith(b"\r\n\r\n" + b"x" * DOWNLOAD):
            raise Cut(bytes(got), "closed")
        self.count()

    def _connection(self, rng: random.Random, requests: int, *, close: bool) -> None:
        def converse(connection: Connection) -> None:
            for _ in range(requests):
                last = ask(connection, rng, close=close, moves=True).last
                self.count()
                if last:
                    return

        self._talk(converse)

    def _talk(self, converse: Callable[[Connection], None]) -> None:
        before = len(self.killed)
        try:
            with Connection(self.port) as connection:
                try:
                    converse(connection)
                except Cut:
                    if not explained(connection, self.killed[before:]):
                        raise
                    self.cut += 1
        except (Cut, OSError, AssertionError) as problem:
            self.failures[repr(problem)] += 1
            time.sleep(0.05)  # where nobody listens, not again at once


class Problem(Exception):
    """A fault did not have the outcome that it must have."""


class Faults:
    """What is done to the server; the names are those of ROWS."""

    def __init__(self, place: Path, server: Server, clients: Clients, taken: int) -> None:
        self._place = place
        self._server = server
        self._clients = clients
        self._taken = taken
        self._logs = 0

    def reload(self, pick: float) -> None:
        """A good one, waited for."""
        configure(self._place, self._taken, count=1 + int(pick * 6))
        self._command("reload")

    def hup(self, pick: float) -> None:
        """Good ones in a row, not waited for: what follows comes in the middle of it."""
        for number in range(1 + int(pick * 5)):
            configure(self._place, self._taken, count=2 + number)
            self._server.signal(signal.SIGHUP)

    def failing_reload(self, pick: float) -> None:
        """Each way in turn; it must say why, and is repaired."""
        ways = list(FAILING)
        configure(self._place, self._taken, **FAILING[ways[int(pick * len(ways))]])
        self._must_fail("reload")

    def _must_fail(self, name: str) -> None:
        try:
            answer = self._command(name)
        except ControlError:
            return
        finally:
            configure(self._place, self._taken)
        raise Problem(f"a {name} that cannot work did: {answer}")

    def thread_limit(self, pick: float) -> None:
        """A reload whose workers get no threads: it must fail, and the old ones serve on."""
        configure(self._place, self._taken, app="tests.apps.no_threads:app")
        self._must_fail("reload")

    def closed_descriptors(self, pick: float) -> None:
        """Another server beside it is started with descriptors closed: it serves, and stops."""
        with tempfile.TemporaryDirectory(prefix="prefork-chaos-") as place:
            serve_once(Path(place), [(0,), (1,), (2,), (0, 1, 2)][int(pick * 4)])

    def upgrade(self, pick: float) -> None:
        """To the code that is there, waited for."""
        self._command("upgrade")

    def usr2(self, pick: float) -> None:
        """An upgrade that is not waited for."""
        self._server.signal(signal.SIGUSR2)

    def scale(self, pick: float) -> None:
        self._command("scale", count=1 + int(pick * 8))

    def more(self, pick: float) -> None:
        self._server.signal(signal.SIGTTIN)

    def fewer(self, pick: float) -> None:
        self._server.signal(signal.SIGTTOU)

    def kill_worker(self, pick: float) -> None:
        """Any that there is: booting, serving or leaving."""
        workers = self._workers()
        if workers:
            self._kill([workers[int(pick * len(workers))]])

    def kill_all(self, pick: float) -> None:
        self._kill(self._workers())

    def kill_zygote(self, pick: float) -> None:
        for zygote in self._server.children("zygote"):
            with contextlib.suppress(psutil.NoSuchProcess):
                zygote.kill()

    def retire_worker(self, pick: float) -> None:
        """SIGTERM to one: it is replaced, and loses nothing."""
        workers = self._workers()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[int(pick * len(workers))], signal.SIGTERM)

    def stop_master(self, pick: float) -> None:
        """SIGSTOP, and SIGCONT after up to a second and a half."""
        self._server.signal(signal.SIGSTOP)
        time.sleep(pick * 1.5)
        self._server.signal(signal.SIGCONT)

    def frozen_worker(self, pick: float) -> None:
        """SIGSTOP to one, and SIGCONT after up to a second and a half: it only takes longer."""
        workers = self._workers()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                victim = workers[int(pick * len(workers))]
                os.kill(victim, signal.SIGSTOP)
                time.sleep(pick * 1.5)
                os.kill(victim, signal.SIGCONT)

    def rotate(self, pick: float) -> None:
        """The log file is moved away, and USR1 asks for a new one."""
        log = self._place / "access.log"
        self._logs += 1
        if log.exists():
            log.rename(self._place / f"access.{self._logs}.log")
        self._server.signal(signal.SIGUSR1)

    def _command(self, name: str, **args: Any) -> dict[str, Any]:
        return self._server.ask(name, **args)

    def _workers(self) -> list[int]:
        return [worker["pid"] for worker in self._command("status")["workers"]]

    def _kill(self, victims: Iterable[int]) -> None:
        for pid in victims:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just left
                os.kill(pid, signal.SIGSTOP)
                until(partial(stopped, pid), f"{pid} is stopped")
                self._clients.killed.append(Killed(pid, peers_of(pid, self._clients.port)))
                os.kill(pid, signal.SIGKILL)


ROWS = {
    "reload": 3,
    "hup": 2,
    "failing_reload": 3,
    "upgrade": 1,
    "usr2": 1,
    "scale": 2,
    "more": 1,
    "fewer": 1,
    "kill_worker": 6,
    "kill_all": 1,
    "kill_zygote": 2,
    "retire_worker": 2,
    "stop_master": 1,
    "frozen_worker": 2,
    "thread_limit": 1,
    "closed_descriptors": 1,
    "rotate": 1,
}
"""The faults and how often each comes, compared with the others."""

FAILING: dict[str, dict[str, Any]] = {
    "unknown key": {"extra": "[workers.cuont]"},
    "broken application": {"app": "tests.apps.broken:app"},
    "exit at import": {"app": "tests.apps.exits:app"},
    "hanging import": {"app": "tests.apps.hang:app", "boot_timeout": 1},
    "failing warmup": {"warmup": "/nowhere"},
    "port in use": {"bind": True},
    "no log file": {"log": "."},
}


def configure(
    place: Path,
    taken: int,
    *,
    count: int = 4,
    app: str = "tests.apps.basic:app",
    boot_timeout: int = 30,
    warmup: str = "/pid",
    log: str = "access.log",
    bind: bool = False,
    extra: str = "",
) -> None:
    """Writes the server's configuration; `bind`: with a port that is taken."""
    more = f', "127.0.0.1:{taken}"' if bind else ""
    rewrite(
        place / "site.toml",
        f"""
[server]
app = "{app}"
chdir = "{ROOT}"
bind = ["127.0.0.1:0"{more}]
[workers]
count = {count}
preload = true
boot_timeout = {boot_timeout}
graceful_timeout = 4
max_requests = 300
max_requests_jitter = 200
warmup = ["{warmup}"]
[http]
keepalive = 0
[log]
access = "{place / log}"
{extra}
""",
    )


@dataclass
class Outcome:
    rows: dict[str, Row] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.problems and not any(row.failures for row in self.rows.values())

    def table(self) -> str:
        total = Row()
        lines: list[tuple[str, ...]] = [
            ("fault", "times", "slowest, s", "answers", "cut off", "failures")
        ]
        for name, row in self.rows.items():
            lines.append(_line(name, row))
            total.times += row.times
            total.slowest = max(total.slowest, row.slowest)
            total.answers += row.answers
            total.cut += row.cut
            total.failures += row.failures
        lines.append(_line("all", total))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])])
            for first, *rest in lines
        )


def _line(name: str, row: Row) -> tuple[str, ...]:
    numbers = (row.times, f"{row.slowest:.2f}", row.answers, row.cut, row.failures)
    return name, *map(str, numbers)


def run(faults: Iterable[Fault], place: Path, outcome: Outcome) -> None:
    """One server from its start to its end; what happened is added to `outcome`."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        configure(place, port)
        server = Server(str(place / "site.toml"), tmp=place, bind=())
        server.expected_errors = EXPECTED
        try:
            clients = Clients(port=server.wait_ready(4).port)
            clients.run(clients.keep_alive, 6)
            clients.run(clients.one_shot, 3)
            clients.run(clients.slow_download, 2)
            clients.wait_answers(20)
            actions = Faults(place, server, clients, port)
            _play(faults, actions, clients, outcome)
            _settle(server, place, port, clients, outcome)
            server.stop()
        except AssertionError as problem:
            outcome.problems.append(str(problem))
        finally:
            server.kill()


def _play(faults: Iterable[Fault], actions: Faults, clients: Clients, outcome: Outcome) -> None:
    started = monotonic()
    row = outcome.rows.setdefault("(before)", Row())
    counted = Row()

    def count() -> None:
        """To the fault before go all that came since."""
        now = Row(0, 0.0, clients.answers, clients.cut, clients.failures.total())
        row.answers += now.answers - counted.answers
        row.cut += now.cut - counted.cut
        row.failures += now.failures - counted.failures
        counted.answers, counted.cut, counted.failures = now.answers, now.cut, now.failures

    for fault in faults:
        time.sleep(max(started + fault.at - monotonic(), 0.0))
        count()
        row = outcome.rows.setdefault(fault.name, Row())
        row.times += 1
        begun = monotonic()
        try:
            getattr(actions, fault.name)(fault.pick)
        except (ControlError, Problem, AssertionError) as problem:
            outcome.problems.append(f"{fault.name} at {fault.at:.2f} s: {problem}")
        row.slowest = max(row.slowest, monotonic() - begun)
    clients.wait_answers(100)
    count()


def _settle(server: Server, place: Path, port: int, clients: Clients, outcome: Outcome) -> None:
    """After all of it: a good reload works, and brings the workers that it asks for."""
    configure(place, port, count=3)
    generation = server.ask("reload")["generation"]

    def done() -> bool:
        workers = server.status()["workers"]
        generations = [worker["generation"] for worker in workers]
        # An upgrade that nobody waited for may come after it; some stay for a slow download.
        serving = sum(worker["state"] != "retiring" for worker in workers)
        return serving == 3 and len(set(generations)) == 1 and bool(generations[0] >= generation)

    until(done, "three workers of the last generation, and nothing else")
    clients.wait_answers(100)
    before = clients.failures.total()
    clients.end()
    outcome.rows["(before)"].failures += clients.failures.total() - before
    for text, number in clients.failures.most_common(10):
        outcome.problems.append(f"{number} times: {text}")


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.chaos", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the schedule (60)")
    parser.add_argument("--seed", type=int, default=None, help="of the schedule (by chance)")
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    options = arguments(given)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    faults = schedule(seed, options.seconds)
    print(f"seed {seed}: {len(faults)} faults in {options.seconds:g} s")
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="prefork-chaos-") as place:
        run(faults, Path(place), outcome)
    print(outcome.table())
    for problem in outcome.problems:
        print(f"problem: {problem}")
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
