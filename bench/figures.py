"""What was measured: sections of figures, each with a value a round for every server."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from bench.servers import BenchError


@dataclass(frozen=True)
class Measure:
    """One column of a table."""

    title: str
    digits: int = 0
    least: bool = True
    """Less is better."""


CPU = Measure("CPU a request, us", 1)
RATE = Measure("requests a second", least=False)
P50 = Measure("p50, us")
P99 = Measure("p99, us")
CLOSED_LOOP = (CPU, RATE, P50, P99)


@dataclass
class Figures:
    """One server in one section."""

    values: dict[str, list[float]] = field(default_factory=dict)
    """By the measure's title; one value a round."""
    errors: Counter[str] = field(default_factory=Counter)
    """Wrong answers in any round, by their kind: such a server has no figures."""
    problem: str = ""
    """Why it could not be measured."""

    @property
    def valid(self) -> bool:
        return not self.errors and not self.problem

    @property
    def complaint(self) -> str:
        """What stands in the place of invalid figures."""
        if self.problem:
            return self.problem
        return "invalid: " + ", ".join(f"{n} {kind}" for kind, n in sorted(self.errors.items()))


@dataclass
class Section:
    """One table and one chart."""

    key: str
    title: str
    about: str
    measures: tuple[Measure, ...]
    """The first one is compared, and drawn."""
    reference: str = "prefork"
    """The server whose first measure is 1.00 in the table."""
    servers: dict[str, Figures] = field(default_factory=dict)
    axis: str = ""
    """What `points` are the numbers of: the chart has lines in place of bars."""
    points: tuple[float, ...] = ()
    """One for each of the first measures."""

    def of(self, server: str) -> Figures:
        return self.servers.setdefault(server, Figures())

    def add(
        self, server: str, values: dict[Measure, float], errors: Counter[str] | None = None
    ) -> None:
        """One round of one server."""
        figures = self.of(server)
        figures.errors += errors or Counter()
        for measure, value in values.items():
            figures.values.setdefault(measure.title, []).append(value)

    def middle(self, server: str, measure: Measure) -> float | None:
        """The median over the rounds; None where there is no valid figure."""
        figures = self.servers.get(server)
        if figures is None or not figures.valid or not figures.values.get(measure.title):
            return None
        return median(figures.values[measure.title])

    @property
    def valid(self) -> bool:
        return all(figures.valid for figures in self.servers.values())


def attempt(sections: list[Section], server: str, measure: Callable[[], None]) -> None:
    """One round of one server, unless it failed before; what stops it is noted as its problem.

    Its last line is; all that the server said goes to stderr.
    """
    if any(section.of(server).problem for section in sections):
        return
    try:
        measure()
    except BenchError as problem:
        print(problem, file=sys.stderr)
        for section in sections:
            section.of(server).problem = str(problem).splitlines()[-1]
