"""Attacks from outside, each with a good client beside it that has to be served.

    python -m tests.faults.abuse --seconds 3 --connections 300 --server prefork

The attack comes from 127.0.0.9, and takes bytes, connections or CPU time as far as the server lets
it; its size is bounded.  The good client comes from 127.0.0.2 and asks for a page, each time on a
new connection.  The table says how many of its requests were answered, how long the slowest took,
what the attack has sent, and what the server has spent.  The exit status is 1 if prefork has left a
good request without its answer, or has believed what a client has forged.

`--server gunicorn` and `--server nginx` show others under the same attacks, with their defaults.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import psutil

from tests.support.commands import ROOT, prefork_command
from tests.support.nginx import nginx_command
from tests.support.sockets import closed_port
from tests.support.waiting import until

ATTACKER, GOOD = "127.0.0.9", "127.0.0.2"

PATIENCE = 2.0
"""Seconds after which a good client gives up."""

INTERVAL = 0.02
"""Seconds between two requests of the good client, and between two turns of an attack."""

MIB = 1 << 20

_APP = """\
import json

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/environ":
        told = {key: value for key, value in environ.items() if isinstance(value, str)}
        body = json.dumps(told).encode()
    else:
        body = b"x" * (1_000_000 if path == "/large" else 10)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

_HEAD = b" HTTP/1.1\r\nHost: a\r\n"
_GET = b"GET /" + _HEAD
_BODY = b"POST /" + _HEAD + b"Content-Length: 1000000\r\n\r\n"
_PROXY = ("--set", 'http.trusted_proxies=["127.0.0.9"]')
_BELIEVES = (*_PROXY, "--set", 'http.trusted_headers=["Forwarded", "X-Forwarded-For"]')


@dataclass(frozen=True)
class Attack:
    """What each connection of an attack does."""

    name: str
    first: bytes
    """Sent at once."""
    then: bytes = b""
    """Sent again and again behind it."""
    reads: bool = False
    """It takes the answers."""
    quickly: bool = False
    """What is sent again is sent as fast as the server takes it, and not once in a turn."""
    connections: int = 0
    """At most; 0: as many as are given."""
    settings: tuple[str, ...] = ()
    """Of prefork."""


def _repeated(name: str, request: bytes, *settings: str) -> Attack:
    """A request that costs CPU time, as fast as it is answered."""
    return Attack(name, b"", request, True, True, 4, settings)


ATTACKS = (
    # Memory.
    Attack("pipelines that nobody reads", b"", (_GET + b"\r\n") * 500, quickly=True),
    Attack("heads of 60 KB without an end", _GET + b"X: " + b"x" * 60_000),
    Attack("large responses that nobody reads", (b"GET /large" + _HEAD + b"\r\n") * 4),
    Attack("bodies of 1 MB without an end", _BODY + b"x" * 900_000, connections=100),
    # CPU time.
    _repeated(
        "X-Forwarded-For of commas",
        _GET + b"X-Forwarded-For: " + b"," * 60_000 + b"\r\n\r\n",
        *_PROXY,
    ),
    _repeated(
        "Forwarded of 500 elements",
        _GET + b"Forwarded: " + b"for=9.9.9.9," * 500 + b"for=9.9.9.9\r\n\r\n",
        *_BELIEVES,
    ),
    _repeated("If-None-Match of tags", _GET + b"If-None-Match: " + b'"a",' * 15_000 + b"\r\n\r\n"),
    _repeated("a path of percent signs", b"GET /" + b"%" * 8_000 + _HEAD + b"\r\n"),
    _repeated(
        "chunks of one byte",
        b"POST /"
        + _HEAD
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * 9_000
        + b"0\r\n\r\n",
    ),
    _repeated("98 fields", _GET + b"".join(b"X-%d: y\r\n" % n for n in range(98)) + b"\r\n"),
    _repeated("nonsense", b"nonsense\r\n\r\n"),
    # Connections.
    Attack("connections that send nothing of a request", b"\r\n"),
    Attack("heads, a byte now and then", _GET + b"X: ", b"x"),
    Attack("bodies at the lowest rate", _BODY + b"x" * 5_000, b"x" * 20),
    Attack("idle connections", _GET + b"\r\n", reads=True),
)


@dataclass
class Target:
    """A server that runs."""

    port: int
    process: "subprocess.Popen[bytes]"

    def tree(self) -> list[psutil.Process]:
        try:
            master = psutil.Process(self.process.pid)
            return [master, *master.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu(self) -> float:
        """Seconds by now, of the processes that live."""
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory(self) -> int:
        """Bytes that are resident."""
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total


def _prefork(place: Path, port: int, connections: int, settings: tuple[str, ...]) -> list[str]:
    limit = ("--set", f"http.max_connections={connections}", "--workers", "1")
    control = ("--set", f"control.path={place}/control", "--set", "log.level=error")
    return prefork_command(
        "serve", "app:app", "-b", f"127.0.0.1:{port}", *limit, *control, *settings
    )


def _gunicorn(place: Path, port: int, connections: int, settings: tuple[str, ...]) -> list[str]:
    given = ("--threads", "4", "--worker-connections", str(connections), "--log-level", "error")
    program = Path(sys.executable).with_name("gunicorn")
    return [str(program), "-k", "gthread", "-b", f"127.0.0.1:{port}", *given, "app:app"]


def _nginx(place: Path, port: int, connections: int, settings: tuple[str, ...]) -> list[str]:
    (place / "large").write_bytes(b"x" * 1_000_000)
    text = f"""server {{ listen 127.0.0.1:{port}; root {place};
        location / {{ return 200 "xxxxxxxxxx"; }} location = /large {{ }} }}"""
    return [str(part) for part in nginx_command(place, text, level="crit")]


SERVERS: dict[str, Callable[[Path, int, int, tuple[str, ...]], list[str]]] = {
    "prefork": _prefork,
    "gunicorn": _gunicorn,
    "nginx": _nginx,
}


@contextlib.contextmanager
def running(name: str, connections: int, settings: tuple[str, ...] = ()) -> Iterator[Target]:
    """A server that answers, with one worker and room for so many connections where it has such a
    limit; at the end nothing of it is left."""
    port = closed_port()
    with tempfile.TemporaryDirectory(prefix="abuse-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        (place / "app.py").write_text(_APP)
        command = SERVERS[name](place, port, connections, settings)
        process = subprocess.Popen(
            command,
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        target = Target(port, process)
        try:
            until(lambda: process.poll() is not None or _asked(port, 1.0) == 200, f"{name} answers")
            yield target
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _asked(port: int, patience: float = PATIENCE, request: bytes = _GET) -> int:
    """The status of the good client's request, 0 if there was none in time."""
    with contextlib.suppress(OSError), socket.socket() as sock:
        sock.settimeout(patience)
        sock.bind((GOOD, 0))
        sock.connect(("127.0.0.1", port))
        sock.sendall(request + b"Connection: close\r\n\r\n")
        answer = sock.recv(4096)
        return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
    return 0


@dataclass
class Good:
    """What the good client has seen."""

    asked: int = 0
    served: int = 0
    slowest: float = 0.0

    def run(self, port: int, over: threading.Event) -> None:
        while not over.wait(INTERVAL):
            began = monotonic()
            status = _asked(port)
            self.asked += 1
            self.served += status == 200
            self.slowest = max(self.slowest, monotonic() - began)


class Attackers:
    """The connections of an attack, all in one thread, none of which blocks."""

    def __init__(self, attack: Attack, port: int, most: int) -> None:
        self._attack = attack
        self._port = port
        self._most = min(most, attack.connections or most)
        self._unsent: dict[socket.socket, memoryview] = {}
        self.sent = 0

    def run(self, seconds: float) -> None:
        until_ = monotonic() + seconds
        turn = threading.Event()
        while monotonic() < until_:
            self._connect()
            before = self.sent
            for sock in list(self._unsent):
                self._step(sock)
            if not self._attack.quickly or self.sent == before:
                turn.wait(INTERVAL)  # nobody sets it

    def close(self) -> None:
        for sock in self._unsent:
            sock.close()

    def _connect(self) -> None:
        """New connections, also in place of those that the server has ended."""
        for _ in range(min(self._most - len(self._unsent), 100)):
            sock = socket.socket()
            sock.setblocking(False)
            # What lies there is on this machine, too, and is none of the server's.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
            if not self._attack.reads:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.bind((ATTACKER, 0))
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", self._port))
            self._unsent[sock] = memoryview(self._attack.first)

    def _step(self, sock: socket.socket) -> None:
        unsent = self._unsent[sock] or memoryview(self._attack.then)
        try:
            with contextlib.suppress(BlockingIOError):
                count = sock.send(unsent) if unsent else 0
                self.sent += count
                unsent = unsent[count:]
            self._unsent[sock] = unsent
            # If it does not take the answers, it only looks whether that was the end.
            flags = 0 if self._attack.reads else socket.MSG_PEEK
            with contextlib.suppress(BlockingIOError):
                if not sock.recv(MIB, flags):
                    raise ConnectionAbortedError
        except OSError:
            del self._unsent[sock]
            sock.close()


@dataclass
class Row:
    """What came of one attack."""

    name: str
    good: Good
    sent: int
    cpu: float
    memory: int
    """Bytes by which the server has grown."""

    @property
    def served(self) -> bool:
        return 0 < self.good.asked == self.good.served


def run(attack: Attack, server: str, seconds: float, connections: int) -> Row:
    with running(server, connections, attack.settings) as target:
        over = threading.Event()
        good = Good()
        client = threading.Thread(target=good.run, args=(target.port, over))
        attackers = Attackers(attack, target.port, connections + connections // 4)
        cpu, memory = target.cpu(), target.memory()
        client.start()
        try:
            attackers.run(seconds)
        finally:
            over.set()
            client.join()
            cpu, memory = target.cpu() - cpu, target.memory() - memory
            attackers.close()
    return Row(attack.name, good, attackers.sent, cpu, max(memory, 0))


FORGED = (
    "Forwarded: for=6.6.6.6;host=forged.example",
    "X-Forwarded-Host: forged.example",
    "X-Forwarded-Port: 666",
    "X-Forwarded-Prefix: /forged",
)
"""What most proxies let through as a client has sent it."""


def believed(server: str) -> list[str]:
    """The variables of an application that a client could forge, though a proxy is trusted."""
    fields = "".join(f"{line}\r\n" for line in FORGED).encode()
    with (
        running(server, 100, ("--set", f'http.trusted_proxies=["{GOOD}"]')) as target,
        socket.create_connection(("127.0.0.1", target.port), PATIENCE, (GOOD, 0)) as sock,
        sock.makefile("rb") as answer,
    ):
        sock.sendall(b"GET /environ" + _HEAD + fields + b"Connection: close\r\n\r\n")
        body = answer.read().partition(b"\r\n\r\n")[2]
    environ = json.loads(body)
    return [name for name, value in environ.items() if re.search(r"6\.6\.6|forged|666", value)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each attack")
    parser.add_argument("--connections", type=int, default=300, help="that the server may hold")
    parser.add_argument("--server", choices=SERVERS, default="prefork")
    parser.add_argument("--only", default="", help="a part of the names of the attacks to run")
    given = parser.parse_args(arguments)
    print(
        f"{given.server}: {given.seconds:g} s each, room for {given.connections} connections\n"
        f"{'attack':48}{'served':>12}{'slowest':>10}{'sent':>10}{'memory':>9}"
        f"{'CPU':>8}{'per CPU s':>12}"
    )
    good = True
    for attack in ATTACKS:
        if given.only not in attack.name:
            continue
        row = run(attack, given.server, given.seconds, given.connections)
        good = good and row.served
        print(
            f"{row.name:48}{f'{row.good.served} of {row.good.asked}':>12}"
            f"{row.good.slowest * 1000:7.0f} ms{row.sent / MIB:7.1f} MB{row.memory / MIB:6.0f} MB"
            f"{row.cpu:6.2f} s{row.sent / MIB / max(row.cpu, 0.01):9.1f} MB",
            flush=True,
        )
    if given.server != "nginx" and not given.only:
        names = believed(given.server)
        good = good and not names
        print(f"believed of what a client has forged: {', '.join(names) or 'nothing'}")
    return 0 if good or given.server != "prefork" else 1


if __name__ == "__main__":
    sys.exit(main())
