"""Where the result of a run is written: raw figures, all tables, the summary, and the README.

A run is kept as docs/performance/figures.json, and that of the compiled build, which is one of its
own, as compiled.json.  All else is made from these, so that a change of the text needs no new run,
and each of the two runs leaves the figures of the other as they are.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figures, Measure, Section
from bench.report import aims, builds, headline, put_into, tables

WHOLE, COMPILED = "figures.json", "compiled.json"


@dataclass(frozen=True)
class Run:
    """What one run has found; `about`: when and how; `machine`: CPU, kernel and versions."""

    about: str
    machine: str
    sections: list[Section]

    @property
    def by_key(self) -> dict[str, Section]:
        return {section.key: section for section in self.sections}

    def text(self, charts: bool = False, compiled: "Run | None" = None) -> str:
        """All figures as one document; `compiled`: the run of the compiled build."""
        parts = [
            "# Figures",
            f"Written by `make bench`. {self.about}",
            self.machine,
            "## Aims",
            aims(self.by_key | (compiled.by_key if compiled else {})),
            "The rows with a * are the ones that matter most.",
            tables(self.sections, charts),
        ]
        if compiled:
            rest = (compiled.about, compiled.machine, tables(compiled.sections, charts, "###"))
            parts += ["## The compiled build", *rest]
        return "\n\n".join([*parts, ""])


def save(run: Run, path: Path) -> None:
    raw = {**vars(run), "sections": [_plain(section) for section in run.sections]}
    text = json.dumps(raw, indent=1, ensure_ascii=False)
    path.write_text(text + "\n")


def _plain(section: Section) -> dict[str, object]:
    # dataclasses.asdict() would make a Counter of the items of a Counter.
    servers = {
        name: {**vars(figures), "errors": dict(figures.errors)}
        for name, figures in section.servers.items()
    }
    measures = [vars(measure) for measure in section.measures]
    return {**vars(section), "measures": measures, "servers": servers}


def load(path: Path) -> Run:
    """The run that was saved there."""
    raw = json.loads(path.read_text())
    sections = []
    for section in raw["sections"]:
        section["measures"] = tuple(Measure(**measure) for measure in section["measures"])
        section["points"] = tuple(section.get("points", ()))
        for name, figures in section["servers"].items():
            errors = Counter(figures.pop("errors"))
            section["servers"][name] = Figures(errors=errors, **figures)
        sections.append(Section(**section))
    return Run(raw["about"], raw["machine"], sections)


def write(root: Path) -> None:
    """What is saved, into docs/performance/figures.md, docs/performance.md and README.md."""
    directory, summary = root / "docs/performance", root / "docs/performance.md"
    run = load(directory / WHOLE)
    sections = run.by_key
    compiled = load(directory / COMPILED) if (directory / COMPILED).exists() else None
    if compiled:
        sections |= compiled.by_key
        text = f"{compiled.about} The aims are [below](#aims).\n\n{builds(compiled.sections)}"
        put_into(summary, "the compiled build", text)
    (directory / "figures.md").write_text(run.text(charts=True, compiled=compiled))
    put_into(summary, "the headline", headline(sections))
    put_into(summary, "the aims", aims(sections))
    put_into(root / "README.md", "the headline", headline(sections))
