"""A slow neighbour: two workers, one of which is busy for half a second at a time.

Fast clients ask on kept connections and on new ones all the while. What is looked at is how long
the unlucky among them wait: p99, p99.9 and the maximum.
"""

import http.client
import subprocess
import sys
import threading
from collections import Counter

from bench import peers
from bench.closed_loop import Ask, load, load_command, told
from bench.figures import Measure, Section, attempt
from bench.servers import BenchError, Running, Server, started

WORKERS = ("--workers", "2")
KEPT, NEW = Ask(connections=8), Ask("close", connections=2)
P99 = Measure("kept: p99, ms", 2)
P999 = Measure("kept: p99.9, ms", 2)
WORST = Measure("kept: worst, ms", 1)
NEW_P99 = Measure("new: p99, ms", 2)
NEW_P999 = Measure("new: p99.9, ms", 2)
NEW_WORST = Measure("new: worst, ms", 1)
RATE = Measure("fast requests a second", least=False)
MEASURES = (P99, P999, WORST, NEW_P99, NEW_P999, NEW_WORST, RATE)
WAYS = {
    "sleep": "sleeps (the interpreter is free for others)",
    "python": "computes in Python (the interpreter is shared by turns of 5 ms)",
    "regex": "computes in C and keeps the interpreter's lock (`re`)",
}


def servers() -> list[Server]:
    app = "bench.apps:neighbour"
    return [
        Server("prefork", peers.prefork(app, *WORKERS)),
        Server("granian", peers.granian(app, 1, *WORKERS)),
        Server("gunicorn gthread", peers.gthread(app, 1, *WORKERS)),
        Server("gunicorn sync", peers.gunicorn(app, *WORKERS)),
    ]


class _Neighbour(threading.Thread):
    """Asks the slow thing again and again, each time on a connection of its own."""

    def __init__(self, port: int, way: str) -> None:
        super().__init__(daemon=True)
        self.errors: Counter[str] = Counter()
        self.asked = 0
        self.over = threading.Event()
        self._port = port
        self._way = way

    def run(self) -> None:
        while not self.over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            try:
                connection.request("GET", f"/{self._way}")
                if connection.getresponse().status != 200:
                    self.errors["slow status"] += 1
                self.asked += 1
            except (OSError, http.client.HTTPException):
                self.errors["slow failed"] += 1
                self.over.wait(0.1)
            finally:
                connection.close()


def play(section: Section, way: str, running: Running, seconds: float) -> None:
    load(KEPT, running.port, 0.1)
    neighbour = _Neighbour(running.port, way)
    neighbour.start()
    try:
        command = load_command(NEW, running.port, seconds)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as other:
            kept = load(KEPT, running.port, seconds)
            output, errors = other.communicate(timeout=60)
        new = told(output, errors, other.returncode)
    finally:
        neighbour.over.set()
        neighbour.join()
    if not neighbour.asked:
        raise BenchError(f"{running.name}: no slow request was answered")
    wrong = Counter(kept["errors"]) + Counter(new["errors"]) + neighbour.errors
    values = {
        P99: kept["p99_us"] / 1e3,
        P999: kept["p999_us"] / 1e3,
        WORST: kept["max_us"] / 1e3,
        NEW_P99: new["p99_us"] / 1e3,
        NEW_P999: new["p999_us"] / 1e3,
        NEW_WORST: new["max_us"] / 1e3,
        RATE: kept["ok"] / kept["seconds"] + new["ok"] / new["seconds"],
    }
    section.add(running.name, values, wrong)
    print(
        f"{section.key}: {running.name}: p99 {values[P99]:.2f} ms, worst {values[WORST]:.0f} ms"
        f"{', WRONG: ' + str(dict(wrong)) if wrong else ''}",
        file=sys.stderr,
    )


def measure(quick: bool) -> list[Section]:
    sections = {
        way: Section(
            f"neighbour-{way}",
            f"A slow neighbour that {text.partition(' (')[0]}",
            f"Two workers of one thread; one request after the other {text} for 0.5 s, while 8 "
            "kept connections and 2 new ones at a time ask for hello.",
            MEASURES,
        )
        for way, text in WAYS.items()
        if not quick or way == "sleep"
    }
    contestants = servers()[:3] if quick else servers()
    for _ in range(1 if quick else 3):
        for server in contestants:

            def once(server: Server = server) -> None:
                with started(server) as running:
                    for way, section in sections.items():
                        play(section, way, running, 1.2)

            attempt(list(sections.values()), server.name, once)
    return list(sections.values())
