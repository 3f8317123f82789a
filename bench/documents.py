"""Where the result of a run is written: raw figures, all tables, the summary, and the README.

A run is kept as docs/performance/figures.json, and all else is made from that, so that a change of
the text needs no new run.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figures, Measure, Section
from bench.report import aims, headline, put_into, tables


@dataclass(frozen=True)
class Run:
    """What one run has found; `about`: when and how; `machine`: CPU, kernel and versions."""

    about: str
    machine: str
    sections: list[Section]

    @property
    def by_key(self) -> dict[str, Section]:
        return {section.key: section for section in self.sections}

    def text(self, charts: bool = False) -> str:
        """All figures as one document."""
        return "\n\n".join(
            (
                "# Figures",
                f"Written by `make bench`. {self.about}",
                self.machine,
                "## Aims",
                aims(self.by_key),
                "The rows with a * are the ones that matter most.",
                tables(self.sections, charts),
                "",
            )
        )


def save(run: Run, directory: Path) -> None:
    raw = {**vars(run), "sections": [_plain(section) for section in run.sections]}
    text = json.dumps(raw, indent=1, ensure_ascii=False)
    (directory / "figures.json").write_text(text + "\n")


def _plain(section: Section) -> dict[str, object]:
    # dataclasses.asdict() would make a Counter of the items of a Counter.
    servers = {
        name: {**vars(figures), "errors": dict(figures.errors)}
        for name, figures in section.servers.items()
    }
    measures = [vars(measure) for measure in section.measures]
    return {**vars(section), "measures": measures, "servers": servers}


def load(directory: Path) -> Run:
    """The run that was saved there."""
    raw = json.loads((directory / "figures.json").read_text())
    sections = []
    for section in raw["sections"]:
        section["measures"] = tuple(Measure(**measure) for measure in section["measures"])
        section["points"] = tuple(section.get("points", ()))
        for name, figures in section["servers"].items():
            errors = Counter(figures.pop("errors"))
            section["servers"][name] = Figures(errors=errors, **figures)
        sections.append(Section(**section))
    return Run(raw["about"], raw["machine"], sections)


def write(run: Run, root: Path) -> None:
    """Into docs/performance/figures.md, docs/performance.md and README.md below `root`."""
    (root / "docs/performance/figures.md").write_text(run.text(charts=True))
    summary = root / "docs/performance.md"
    put_into(summary, "the headline", headline(run.by_key))
    put_into(summary, "the aims", aims(run.by_key))
    put_into(root / "README.md", "the headline", headline(run.by_key))
