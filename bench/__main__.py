"""The bench: prefork and its peers side by side.

    python -m bench [PART...] [--quick] [--write]

Without PART all of them are run; --write puts the result into docs/performance.md, with its charts.
A server with a wrong or missing answer in any round has no figures: its line says "invalid", and
the run exits with 1.
"""

import argparse
import datetime
import json
import sys
import time
from dataclasses import asdict
from importlib import import_module

from bench.figures import Section
from bench.report import document, put_into
from bench.servers import ROOT, BenchError, prepare

PARTS = (
    *("hello", "threads", "neighbour", "balance"),
    *("idle", "transfer", "frameworks", "memory", "respawn"),
)
QUICK = ("hello", "threads", "neighbour", "balance")
DOCUMENT = ROOT / "docs/performance.md"
CHARTS = ROOT / "docs/performance"


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="in under two minutes, roughly")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args(given)
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"{part!r} is not one of {', '.join(PARTS)}")
    return options


def main(given: list[str]) -> int:
    options = arguments(given)
    parts = options.parts or (QUICK if options.quick else PARTS)
    begun = time.monotonic()
    sections: list[Section] = []
    try:
        prepare()
        for part in parts:
            sections += import_module(f"bench.parts.{part}").measure(options.quick)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    took = (time.monotonic() - begun) / 60
    about = (
        f"Measured on {datetime.date.today():%d %B %Y} by `make bench{'-quick' * options.quick}`, "
        f"which took {took:.1f} minutes: interleaved rounds, medians (least–most)."
    )
    print(document(sections, about))
    if options.write:
        write(sections, about)
    return 0 if all(section.valid for section in sections) else 1


def write(sections: list[Section], about: str) -> None:
    """Puts the result into docs/performance.md, and its charts and raw figures beside it."""
    from bench.charts import draw  # matplotlib is in bench/.venv only

    for section in sections:
        draw(section, CHARTS)
    raw = json.dumps([asdict(section) for section in sections], indent=1, ensure_ascii=False)
    (CHARTS / "figures.json").write_text(raw + "\n")
    put_into(DOCUMENT, document(sections, about, CHARTS.name))
    print(f"written to {DOCUMENT}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
