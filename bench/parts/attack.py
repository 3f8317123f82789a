"""How many bytes a client has to send to take a second of CPU time, by what it sends.

The inputs are those that cost most for a byte, of what a request may hold with the defaults.  The
least of them is what counts: an attacker takes that one.  An input whose connection ends with it is
not among them: the connection costs more than its bytes, and the attacker as much.
"""

import contextlib
import socket
import time

from bench import peers
from bench.figures import Measure, Section, attempt
from bench.servers import BenchError, Running, Server, started

_HEAD = b" HTTP/1.1\r\nHost: a\r\n"
_GET = b"GET /" + _HEAD
_CHUNKED = b"POST /" + _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

INPUTS = {
    "short requests": (_GET + b"\r\n") * 20,
    "98 fields": _GET + b"".join(b"X-%d: y\r\n" % number for number in range(98)) + b"\r\n",
    "percent signs": b"GET /" + b"%" * 4_000 + _HEAD + b"\r\n",
    "chunks of one byte": _CHUNKED + b"1\r\nx\r\n" * 9_000 + b"0\r\n\r\n",
    "X-Forwarded-For": _GET + b"X-Forwarded-For: " + b"10.0.0.1, " * 780 + b"\r\n\r\n",
    "If-None-Match": _GET + b"If-None-Match: " + b'"a", ' * 1_560 + b"\r\n\r\n",
}

WORST = Measure("MB a CPU second, the worst of all", 1, least=False)
EACH = {name: Measure(f"{name}, MB", 1, least=False) for name in INPUTS}

_PATIENCE = 5.0


def servers() -> list[Server]:
    app = "bench.hello:app"
    trusting = ("--set", 'http.trusted_proxies=["127.0.0.1"]')
    return [
        Server("prefork", peers.prefork(app, "--workers", "1", *trusting)),
        Server("gunicorn gthread", peers.gthread(app, 1, "--workers", "1")),
        peers.nginx("nginx, return 200", r"return 200 'hello world\n';"),
    ]


def attack(port: int, data: bytes, seconds: float) -> int:
    """Sends an input again and again, each time once its answers have begun to come; returns the
    bytes that the server has taken.

    A server that refuses it closes the connection, and the next one is made.
    """
    sent = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as sock:
            sock.settimeout(_PATIENCE)
            while time.monotonic() < until:
                sock.sendall(data)
                sent += len(data)
                if not sock.recv(1 << 16):
                    break
    return sent


def _once(section: Section, server: str, running: Running, seconds: float) -> None:
    found = {}
    for name, data in INPUTS.items():
        attack(running.port, data, seconds / 10)
        before = running.cpu()
        sent = attack(running.port, data, seconds)
        used = running.cpu() - before
        if used <= 0:
            raise BenchError(f"{server}: no CPU time was measured for {name}")
        found[EACH[name]] = sent / used / 1e6
    section.add(server, {WORST: min(found.values()), **found})


def measure(quick: bool) -> list[Section]:
    section = Section(
        "attack",
        "Bytes that an attacker has to send for a second of CPU time",
        "One connection sends an input again and again; a server that refuses it closes, and gets "
        "a new connection. More is better. prefork trusts the peer as a proxy, so that it reads "
        "X-Forwarded-For; the others do not read it, nor entity tags.",
        (WORST, *EACH.values()),
    )
    rounds, seconds = (1, 0.3) if quick else (3, 1.0)
    for _ in range(rounds):
        for server in servers():

            def once(server: Server = server) -> None:
                with started(server) as running:
                    _once(section, server.name, running, seconds)

            attempt([section], server.name, once)
    return [section]
