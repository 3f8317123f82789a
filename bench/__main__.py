"""The bench: prefork and its peers side by side.

    python -m bench [PART...] [--quick] [--write]

Without PART all of them are run but `compiled`, whose build takes minutes.  --write, for a whole
run, puts the result into docs/performance/, and its summary into docs/performance.md and README.md;
`compiled --write` does so with the figures of the compiled build, and leaves the others.
A server with a wrong or missing answer in any round has no figures: its line says "invalid", and
the run exits with 1.
"""

import argparse
import datetime
import sys
import time
from importlib import import_module
from pathlib import Path

from bench import documents
from bench.documents import Run
from bench.figures import Section
from bench.report import machine
from bench.servers import ROOT, BenchError, prepare

PARTS = (
    *("traffic", "transfer", "frameworks", "growth", "threads", "neighbour", "balance"),
    *(
        "idle",
        "memory",
        "respawn",
        "asgi",
        "asgi_idle",
        "asgi_neighbour",
        "websocket",
        "attack",
        "hello",
    ),
)
COMPILED = "compiled"
"""The part that is run only if it is named."""
DOCUMENTS = ROOT
"""Where README.md and docs/ are."""
QUICK = ("traffic", "hello")


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=(__doc__ or "").split("\n")[0]
    )
    known = (*PARTS, COMPILED)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="in about a minute")
    parser.add_argument("--write", action="store_true", help="into the documents")
    options = parser.parse_args(given)
    if options.write and (options.quick or options.parts not in ([], [COMPILED])):
        parser.error(f"--write takes a whole run: neither PART, but {COMPILED} alone, nor --quick")
    for part in options.parts:
        if part not in known:
            parser.error(f"{part!r} is not one of {', '.join(known)}")
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
    ran = f"make bench{'-quick' * options.quick}"
    if options.parts:
        ran = f"python -m bench {' '.join(options.parts)}{' --quick' * options.quick}"
    about = (
        f"Measured on {datetime.date.today():%d %B %Y} by `{ran}`, which took {took:.1f} minutes: "
        "interleaved rounds, medians (least–most)."
    )
    run = Run(about, machine(), sections)
    print(run.text())
    if options.write:
        write(run, DOCUMENTS, documents.COMPILED if options.parts else documents.WHOLE)
    return 0 if all(section.valid for section in sections) else 1


def write(run: Run, root: Path, name: str) -> None:
    """Puts the result into the documents below `root`, charts and the file of that name there."""
    from bench.charts import draw  # matplotlib is in bench/.venv only

    directory = root / "docs/performance"
    for section in run.sections:
        draw(section, directory)
    documents.save(run, directory / name)
    documents.write(root)
    print(f"written to {directory}, docs/performance.md and README.md", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
