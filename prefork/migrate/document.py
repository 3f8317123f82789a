"""A configuration file in the making: settings with a comment each, and what could not be one."""

from collections import defaultdict
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

from prefork.config import KEYS
from prefork.config.schema import SECTIONS
from prefork.config.values import toml

_WIDTH = 98


@dataclass
class Document:
    """What `render` makes a file of."""

    title: str
    settings: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """By "section.key": the value as TOML takes it, and the comment before it."""
    notes: list[str] = field(default_factory=list)
    """What has no equivalent, and why."""

    def set(self, name: str, value: Any, comment: str = "") -> None:
        assert name in KEYS, name
        self.settings[name] = (value, comment)

    def note(self, what: str, why: str) -> None:
        self.notes.append(f"{what}: {why}")

    def render(self) -> str:
        """TOML, in the order of the schema; the notes are comments at its end."""
        sections: dict[str, list[str]] = defaultdict(list)
        for name in KEYS:
            if name in self.settings:
                section, _, key = name.partition(".")
                value, comment = self.settings[name]
                sections[section] += [*_comment(comment), f"{key} = {toml(value)}"]
        blocks = [_comment(self.title)]
        blocks += [[f"[{name}]", *sections[name]] for name in SECTIONS if name in sections]
        if self.notes:
            lines = ["# Not taken over:"]
            for note in self.notes:
                lines += wrap(note, _WIDTH, initial_indent="# - ", subsequent_indent="#   ")
            blocks.append(lines)
        return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _comment(text: str) -> list[str]:
    return wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")
