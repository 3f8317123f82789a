"""What was measured, as Markdown: medians over the rounds, with their spread, and the machine."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import psutil

from bench.aims import AIMS
from bench.figures import CPU, Figures, Measure, Section
from bench.parts import compiled, frameworks, idle, neighbour

CPUINFO = Path("/proc/cpuinfo")
PACKAGES = ("prefork", "httptools", "bjoern", "granian", "gunicorn", "uwsgi", "waitress", "uvicorn")

COLUMNS = (
    ("prefork", ("prefork",)),
    ("bjoern", ("bjoern",)),
    ("granian", ("granian",)),
    ("uWSGI", ("uWSGI, keep-alive", "uWSGI, closing", "uWSGI")),
    ("gunicorn gthread", ("gunicorn gthread, 8 threads", "gunicorn gthread")),
    ("gunicorn sync", ("gunicorn sync",)),
    ("nginx", ("nginx, return 200", "nginx")),
)
"""The servers of the headline table, each with its names in the sections."""

HEADLINE = (
    ("a browser's GET", "browser", CPU),
    ("POST of 1 KB", "post-1k", CPU),
    ("GET of an API, 2 KB", "api", CPU),
    ("form of 10 KB", "form-10k", CPU),
    ("GET with 4 KB of cookies", "cookies-4k", CPU),
    ("POST of 1 MB", "post-1m", CPU),
    ("upload of 10 MB", "upload-10m", CPU),
    ("file of 1 KB", "static-1k", CPU),
    ("Django, beyond the framework", "django", frameworks.BEYOND),
    ("p99 beside a slow neighbour, ms", "neighbour-sleep", neighbour.P99),
    ("memory of 4 idle workers, MB", "idle-server", idle.PSS),
    ("start to first answer, 8 workers, ms", "idle-server", idle.START),
    ("hello over TLS, kept connections", "tls-8", CPU),
    ("hello, a connection for each", "close-32", CPU),
    ("hello that repeats, kept connections", "keepalive-32", CPU),
)
"""The rows of the headline table: title, section and measure."""

BUILDS = {
    "compiled": compiled.COMPILED,
    "pure Python": compiled.PURE,
    **{name: name for name in ("bjoern", "uvicorn", "granian")},
}
"""The servers of the table of both builds, by their titles."""


def number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def cell(values: list[float], digits: int) -> str:
    """The median and the least and the most, such as `12.3 (11.9–13.0)`."""
    if not values:
        return "–"
    middle = number(median(values), digits)
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values), digits)}–{number(max(values), digits)})"


def ratio(section: Section, server: str, measure: Measure) -> str:
    """The medians compared; a dash where either is no figure."""
    mine, theirs = (section.middle(name, measure) for name in (server, section.reference))
    return f"{mine / theirs:.2f}" if mine is not None and theirs else "–"


def line(section: Section, name: str, figures: Figures) -> str:
    if not figures.valid:
        dashes = " | –" * (len(section.measures) - bool(section.axis))
        return f"| {name} | {figures.complaint.replace('|', '/')}{dashes} |"
    first, *rest = section.measures
    cells = [
        name,
        cell(figures.values.get(first.title, []), first.digits),
        *([] if section.axis else [ratio(section, name, first)]),
        *(cell(figures.values.get(measure.title, []), measure.digits) for measure in rest),
    ]
    return f"| {' | '.join(cells)} |"


def table(section: Section) -> str:
    first, *rest = section.measures
    # What stands at the points of a line is compared along the line.
    ratios = [] if section.axis else [f"÷ {section.reference}"]
    titles = ["server", first.title, *ratios, *(each.title for each in rest)]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    lines += [line(section, name, figures) for name, figures in section.servers.items()]
    return "\n".join(lines)


def headline(sections: dict[str, Section]) -> str:
    """The medians that matter most, a line each; those that this run has measured."""
    titles = ["CPU of a request in us, or what is said", *(title for title, _ in COLUMNS)]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for title, key, measure in HEADLINE:
        if key not in sections:
            continue
        cells = [title]
        for _, names in COLUMNS:
            middles = (sections[key].middle(name, measure) for name in names)
            value = next((middle for middle in middles if middle is not None), None)
            cells.append("–" if value is None else number(value, measure.digits))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def builds(sections: list[Section]) -> str:
    """The medians of the compiled build beside pure Python and others, a line for each section."""
    titles = ["CPU of a request or a message in us", *BUILDS, "compiled ÷ pure Python"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for section in sections:
        measure = section.measures[0]
        middles = [section.middle(name, measure) for name in BUILDS.values()]
        cells = ["–" if each is None else number(each, measure.digits) for each in middles]
        mine, pure, *_ = middles
        cells.append(f"{mine / pure:.2f}" if mine is not None and pure else "–")
        lines.append(f"| {section.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def aims(sections: dict[str, Section]) -> str:
    """Those that this run can judge."""
    lines = ["| aim | limit | measured | |", "|---|---|---|---|"]
    for aim in AIMS:
        if aim.section not in sections:
            continue
        value = aim.value(sections)
        sign = "≤" if aim.least else "≥"
        limit = f"{sign} {aim.limit:.3g}"
        if value is None:
            shown, verdict = "–", "no valid figure"
        else:
            shown = f"{value:.3g}"
            over = value / aim.limit if aim.least else aim.limit / max(value, 1e-9)
            verdict = "met" if aim.met(value) else f"**missed**, {over:.2f} of the limit"
        lines.append(f"| {aim.text}{' *' if aim.starred else ''} | {limit} | {shown} | {verdict} |")
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} –"


def _nginx() -> str:
    try:
        done = subprocess.run(["nginx", "-v"], capture_output=True, text=True)
    except OSError:
        return "nginx –"
    return done.stderr.strip().rpartition(": ")[2].replace("/", " ")


def machine() -> str:
    """CPU, kernel and versions: without them a figure says little."""
    models = [text for text in CPUINFO.read_text().splitlines() if text.startswith("model name")]
    model = models[0].split(":", 1)[1].strip() if models else platform.machine()
    memory = psutil.virtual_memory().total / 2**30
    virtual = "hypervisor" in CPUINFO.read_text()
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "") if shutil.which("cc") else ""
    return "\n".join(
        (
            f"- {len(os.sched_getaffinity(0))} CPUs, {model}{', virtual' if virtual else ''}; "
            f"{memory:.0f} GiB; load average at the end {os.getloadavg()[0]:.2f}",
            f"- {system}, {platform.system()} {platform.release()}, "
            f"{platform.python_implementation()} {platform.python_version()}",
            f"- {', '.join(map(_version, PACKAGES))}, {_nginx()}",
        )
    )


def tables(sections: list[Section], charts: bool = False, level: str = "##") -> str:
    """All sections; `charts`: each with a link to KEY.svg beside the document."""
    parts = []
    for section in sections:
        parts += [f"{level} {section.title}", section.about]
        if charts:
            parts.append(f"![{section.title}: {section.measures[0].title}]({section.key}.svg)")
        parts.append(table(section))
    return "\n\n".join(parts)


def put_into(path: Path, name: str, text: str) -> None:
    """Replaces what is generated in a document whose other words are written by people.

    Raises ValueError if the document has no place of that name.
    """
    begin, end = f"<!-- {name}: written by `make bench` -->", f"<!-- end of {name} -->"
    pattern = re.compile(re.escape(begin) + ".*" + re.escape(end), re.DOTALL)
    whole, count = pattern.subn(lambda _: f"{begin}\n\n{text}\n\n{end}", path.read_text())
    if count != 1:
        raise ValueError(f"{path} has {count} places for {name}; it needs one {begin} ... {end}")
    path.write_text(whole)
