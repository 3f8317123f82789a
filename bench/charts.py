"""Charts of the sections, as SVG: medians, as bars with the least and the most, or as lines."""

from pathlib import Path

import matplotlib

from bench.figures import Section

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "prefork"  # the same picture is the same file
matplotlib.rcParams["svg.fonttype"] = "none"

from matplotlib import pyplot  # noqa: E402 - the backend comes first
from matplotlib.figure import Figure  # noqa: E402

OURS, OTHERS = "#2a6f4e", "#9aa5b1"
SKEWED = 30.0
"""Largest over least from which on the scale is logarithmic."""


def draw(section: Section, directory: Path) -> None:
    """Writes `directory`/KEY.svg."""
    directory.mkdir(parents=True, exist_ok=True)
    figure = _lines(section) if section.axis else _bars(section)
    figure.savefig(directory / f"{section.key}.svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)


def _lines(section: Section) -> Figure:
    """A line for each server over the section's points."""
    figure, axes = pyplot.subplots(figsize=(7.5, 3.2))
    costs: list[float] = []
    for name, style in zip(section.servers, ("-", "--", "-.", ":"), strict=False):
        middles = (section.middle(name, measure) for measure in section.measures)
        line = [cost for cost in middles if cost is not None][: len(section.points)]
        if not line:
            continue
        costs += line
        color = OURS if name.startswith("prefork") else OTHERS
        axes.plot(section.points, line, style, color=color, marker="o", markersize=3, label=name)
    axes.set_xscale("symlog", linthresh=max(min(filter(None, section.points)), 1))
    axes.set_xticks(section.points, [f"{point:,}" for point in section.points])
    axes.minorticks_off()
    if costs and max(costs) > SKEWED * min(costs):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(section.axis, fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(f"{section.title}\nCPU a request, us (less is better)", fontsize=10, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _bars(section: Section) -> Figure:
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
    return figure
