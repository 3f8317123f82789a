"""Our reader of HTTP against others: random inputs, for as long as wanted.

    python -m tests.fuzz.http --seconds 600 --seed 1

Of each input it is checked that

- what we take, others read in the same way, or refuse, but for the differences of
  tests/fuzz/known.py, which were looked at (llhttp, h11, and gunicorn's picohttpparser);
- it reads the same however it is cut: whole, byte by byte, and in pieces at random.

What fails is printed, as an input to be put into tests/fuzz/cases.py; the exit status is 1 then.
What all the others take and we refuse is counted by its reason, to be looked at.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from time import monotonic

from prefork.http.limits import RequestLimits
from tests.fuzz.inputs import pick
from tests.fuzz.known import explained, summary
from tests.fuzz.parsers import differences, only_we_refuse
from tests.unit.reading import LIMITS, cut, pieces_of, reading

SMALL = RequestLimits(40, 3, 90, 40, 10)
"""RequestLimits that the inputs meet."""

_MOST = 20
"""Failures after which a run ends."""


@dataclass
class Report:
    """What a run has found."""

    inputs: int = 0
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    explained: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


def check(data: bytes, rng: Random, report: Report) -> None:
    """Adds to a report what is wrong with the reading of one input."""
    report.inputs += 1
    found, count = differences(data)
    report.requests += count
    for each in found:
        known = explained(each)
        if known is None:
            report.failures.append(f"{summary(each)}\n    {each.data!r}")
        else:
            report.explained[f"{each.peer}: {known.why}"] += 1
    reason = only_we_refuse(data)
    if reason:
        report.refused[reason] += 1
    limits = LIMITS if rng.random() < 0.5 else SMALL
    whole = reading([data], limits)
    places = [rng.randint(0, len(data)) for _ in range(rng.randint(1, 4))]
    for pieces in (cut(data, places), pieces_of(data, 1)):
        if reading(pieces, limits) != whole:
            report.failures.append(f"cut at {places}, {limits[:4]}\n    {data!r}")


def run(seed: int, seconds: float) -> Report:
    rng = Random(seed)
    report = Report()
    until = monotonic() + seconds
    while monotonic() < until and len(report.failures) < _MOST:
        check(pick(rng), rng, report)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    report = run(given.seed, given.seconds)
    print(f"seed {given.seed}: {report.inputs} inputs, {report.requests} requests taken")
    for title, counter in (("explained", report.explained), ("refused by us", report.refused)):
        for name, count in counter.most_common():
            print(f"{title}: {count} x {name}")
    for failure in report.failures:
        print(failure)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
