"""Charts of the sections, as SVG: medians as bars, with the least and the most."""

from pathlib import Path

import matplotlib

from bench.figures import Section

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "prefork"  # the same picture is the same file
matplotlib.rcParams["svg.fonttype"] = "none"

from matplotlib import pyplot  # noqa: E402 - the backend comes first

OURS, OTHERS = "#2a6f4e", "#9aa5b1"
SKEWED = 30.0
"""Largest over least from which on the scale is logarithmic."""


def draw(section: Section, directory: Path) -> None:
    """Writes `directory`/KEY.svg."""
    measure = section.measures[0]
    bars = [
        (name, middle, figures.values[measure.title])
        for name, figures in section.servers.items()
        if (middle := section.middle(name, measure)) is not None
    ]
    bars.sort(key=lambda bar: bar[1], reverse=measure.least)
    figure, axes = pyplot.subplots(figsize=(7.5, 0.9 + 0.36 * len(bars)))
    for height, (name, middle, values) in enumerate(bars):
        color = OURS if name.startswith("prefork") else OTHERS
        spread = [[middle - min(values)], [max(values) - middle]]
        axes.barh(height, middle, xerr=spread, color=color, ecolor="#333333", capsize=2)
        text = f" {middle:,.{measure.digits}f}"
        axes.text(max(values), height, text, va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
    positive = [middle for _, middle, _ in bars if middle > 0]
    if positive and max(positive) > SKEWED * min(positive):
        axes.set_xscale("log")
        axes.set_xlabel("logarithmic scale", fontsize=8)
    axes.margins(x=0.12)
    better = "less is better" if measure.least else "more is better"
    axes.set_title(f"{section.title}\n{measure.title} ({better})", fontsize=10, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    directory.mkdir(parents=True, exist_ok=True)
    figure.savefig(directory / f"{section.key}.svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
