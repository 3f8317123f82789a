"""The problems of a configuration: one line each, all of them reported at once."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from prefork.config.schema import KEYS, SECTIONS
from prefork.config.values import nearest, toml

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Problem(Struct, frozen=True):
    """One problem.

    where: the file or the option with the problem.
    key: such as "workers.count", or the name of a section; "" for the file as a whole.
    reason: what is wrong, and what is allowed.
    hint: what to do.
    """

    where: str
    key: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.where, self.key, self.reason) if part)
        return f"{text}; {self.hint}" if self.hint else text


class ConfigError(Exception):
    """A configuration cannot be used; str() is its problems, one a line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def unknown_key(where: str, section: str, key: str) -> Problem:
    return Problem(where, full_name(section, key), "unknown key", _nearest_key(section, key))


def unknown_section(where: str, section: str, content: Any = None) -> Problem:
    """The problem of an unknown section, or of a key outside any section (content is no table)."""
    reason = "unknown section"
    if content is not None and not isinstance(content, dict):
        reason = "key outside any section"
    if near := nearest(section, SECTIONS):
        hint = f"did you mean [{near[0]}]?"
    elif others := _in_other_sections(section):
        hint = f"did you mean {others[0]}?"
    elif parts := [key.name for key in KEYS.values() if section in key.key.split("_")]:
        hint = f"did you mean one of {', '.join(parts)}?"
    else:
        hint = f"the sections are {', '.join(SECTIONS)}"
    return Problem(where, full_name(section), reason, hint)


def full_name(*parts: str) -> str:
    """The dotted name; each part is quoted if TOML requires it."""
    return ".".join(part if _BARE_KEY.fullmatch(part) else toml(part) for part in parts)


def _nearest_key(section: str, key: str) -> str:
    siblings = [entry.key for entry in KEYS.values() if entry.section == section]
    if near := nearest(key, siblings):
        return f"did you mean {section}.{near[0]}?"
    if others := _in_other_sections(key):
        return f"did you mean {others[0]}?"
    return f"[{section}] has {', '.join(siblings)}"


def _in_other_sections(key: str) -> list[str]:
    """The full names of keys with this or nearly this name, in any section."""
    near = nearest(key, [entry.key for entry in KEYS.values()], cutoff=0.8)
    return [name for name, entry in KEYS.items() if [entry.key] == near]
