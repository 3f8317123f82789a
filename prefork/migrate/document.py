"""The new configuration file: settings with their comments, and the report as comments."""

import tomllib
from collections import defaultdict
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any, get_args

from msgspec import Meta

from prefork.capacity import WORKERS_MAX
from prefork.config import KEYS, ConfigError, Override, Source, load
from prefork.config.schema import SECTIONS
from prefork.config.values import toml
from prefork.migrate.migration_report import MigrationReport, printable

_WIDTH = 98


@dataclass
class Entry:
    """One key: its value and the comment before it.

    An entry that is left out is written as a comment: the environment sets the key instead.
    """

    value: Any
    comment: str = ""
    left_out: bool = False
    fixed: bool = False
    """The value is the same for any value of the old setting."""


@dataclass
class Document:
    """The contents of the new file; `render` writes them as TOML."""

    title: str
    settings: dict[str, Entry] = field(default_factory=dict)
    """By "section.key"."""
    report: MigrationReport = field(default_factory=MigrationReport)

    def set(self, name: str, value: Any, comment: str = "", *, fixed: bool = False) -> None:
        """Sets a key. A number beyond the bounds of the key is clamped, with a comment."""
        value, clamped = _within(name, value)
        comment = " ".join(filter(None, (comment, clamped)))
        self.settings[name] = Entry(value, comment, fixed=fixed)

    def leave_out(self, name: str, value: Any, comment: str) -> None:
        self.settings[name] = Entry(value, comment, left_out=True)

    def remark(self, name: str, comment: str) -> None:
        """Adds to the comment of a key that is set."""
        entry = self.settings[name]
        entry.comment = f"{entry.comment} {comment}".lstrip()

    def holds(self, name: str) -> bool:
        return name in self.settings and not self.settings[name].left_out

    def lost(self, what: str, why: str) -> None:
        self.report.lost.append(f"{what}: {why}")

    def changed(self, what: str, why: str) -> None:
        self.report.changed.append(f"{what}: {why}")

    def unneeded(self, what: str, why: str) -> None:
        self.report.unneeded.append(f"{what}: {why}")

    def render(self) -> str:
        """TOML, in the order of the schema; the report follows as comments."""
        sections: dict[str, list[str]] = defaultdict(list)
        for name in KEYS:
            if name in self.settings:
                section, _, key = name.partition(".")
                entry = self.settings[name]
                sign = "# " if entry.left_out else ""
                sections[section] += [
                    *_comment(entry.comment),
                    f"{sign}{key} = {toml(entry.value)}",
                ]
        blocks = [_comment(self.title)]
        blocks += [[f"[{name}]", *sections[name]] for name in SECTIONS if name in sections]
        if remarks := [f"# {line}" for line in self.report.lines()]:
            blocks.append(remarks)
        return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def check(text: str, *, machine: bool) -> list[str]:
    """The problems that `prefork check` finds in a file with this text in the working directory.

    machine: also report paths and accounts that this machine does not have.
    """
    try:
        parsed = tomllib.loads(text)
    except ValueError as reason:  # a string with half of a surrogate pair
        return [f"it is no TOML: {reason}"]
    overrides = [
        Override(section, key, value, "")
        for section, table in parsed.items()
        for key, value in table.items()
    ]
    try:
        load(Source(None, tuple(overrides)), {}, machine=machine)
    except ConfigError as error:
        return [f"{problem.key}: {problem.reason}" for problem in error.problems]
    return []


def _within(name: str, value: Any) -> tuple[Any, str]:
    """The value within the bounds of the key, and a comment if it was clamped."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value, ""
    bounds = [extra for extra in get_args(KEYS[name].hint) if isinstance(extra, Meta)]
    least: float | None = None
    most: float | None = None
    if name == "workers.count":
        least, most = 1, WORKERS_MAX
    for meta in bounds:
        least = least if meta.ge is None else meta.ge
        most = most if meta.le is None else meta.le
    if least is not None and value < least:
        return least, f"It was {toml(value)}; {toml(least)} is the minimum here."
    if most is not None and value > most:
        return most, f"It was {toml(value)}; {toml(most)} is the maximum here."
    return value, ""


def _comment(text: str) -> list[str]:
    plain = printable(" ".join(text.split()))
    return wrap(plain, _WIDTH, initial_indent="# ", subsequent_indent="# ")
