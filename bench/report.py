"""What was measured, as Markdown: medians over the rounds, with their spread, and the machine."""

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench.servers import PEERS

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Row:
    """One way to ask; the CPU time of `reference` is 1.00 in its table."""

    title: str
    reference: str


ROWS = {
    "keepalive": Row("Keep-alive", "gunicorn gthread"),
    "close": Row("A connection per request", "gunicorn sync"),
}


@dataclass(frozen=True)
class Round:
    """One server, one round; times in microseconds."""

    cpu_us: float
    per_second: float
    p50_us: float
    p99_us: float
    client_us: float
    connections: int
    errors: Counter[str]

    def __str__(self) -> str:
        if self.errors:
            return f"invalid: {wrong(self.errors)}"
        return f"{self.cpu_us:.1f} us CPU a request, {self.per_second:.0f} a second"


Table = dict[str, list[Round]]


def wrong(errors: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(errors.items()))


def spread(rounds: list[Round], value: Callable[[Round], float], digits: int = 0) -> str:
    """The median and the least and the most, such as `12.3 (11.9–13.0)`."""
    values = [value(one) for one in rounds]
    middle, least, most = (
        f"{number:,.{digits}f}" for number in (median(values), min(values), max(values))
    )
    return f"{middle} ({least}–{most})"


def ratio(rounds: list[Round], reference: list[Round]) -> str:
    """The medians of CPU time compared; a dash where the reference itself is no figure."""
    if any(one.errors for one in reference):
        return "–"
    mine, theirs = (median(one.cpu_us for one in some) for some in (rounds, reference))
    return f"{mine / theirs:.3f}"


def line(name: str, rounds: list[Round], reference: list[Round]) -> str:
    errors = sum((one.errors for one in rounds), Counter[str]())
    if errors:
        return f"| {name} | invalid: {wrong(errors)} | – | – | – | – | – |"
    cells = (
        name,
        spread(rounds, lambda one: one.cpu_us, 1),
        ratio(rounds, reference),
        spread(rounds, lambda one: one.per_second),
        spread(rounds, lambda one: one.p50_us),
        spread(rounds, lambda one: one.p99_us),
        f"{median(one.connections for one in rounds):,.0f}",
    )
    return f"| {' | '.join(cells)} |"


def section(row: Row, table: Table) -> str:
    client = median(one.client_us for rounds in table.values() for one in rounds)
    lines = [
        f"## {row.title}",
        "",
        f"| server | CPU a request, us | ÷ {row.reference} | requests a second | p50, us | p99, us "
        "| connections |",
        "|---|---|---|---|---|---|---|",
        *(line(name, rounds, table[row.reference]) for name, rounds in table.items()),
        "",
        f"The load generator itself took {client:.1f} us of CPU a request (median).",
    ]
    return "\n".join(lines)


def machine() -> str:
    """CPU, kernel and versions: without them a figure says little."""
    models = [text for text in CPUINFO.read_text().splitlines() if text.startswith("model name")]
    model = models[0].split(":", 1)[1].strip() if models else platform.machine()
    peer = subprocess.run([PEERS / "gunicorn", "--version"], capture_output=True, text=True)
    gunicorn = peer.stdout.split()[-1].strip(")")
    return "\n".join(
        (
            f"- CPU: {model}, {len(os.sched_getaffinity(0))} to be used; "
            f"load average at the end {os.getloadavg()[0]:.2f}",
            f"- {platform.system()} {platform.release()}, "
            f"{platform.python_implementation()} {platform.python_version()}",
            f"- prefork {version('prefork')}, gunicorn {gunicorn}, httptools "
            f"{version('httptools')}",
        )
    )


def document(tables: dict[str, Table], rounds: int, connections: int, requests: int) -> str:
    """The whole result."""
    sections = [section(ROWS[row], table) for row, table in tables.items()]
    intro = (
        f"One worker each; {rounds} interleaved rounds of {requests:,} requests over {connections} "
        "connections at a time; medians (least–most)."
    )
    return "\n\n".join(("# Side by side", intro, machine(), *sections)) + "\n"
