"""The report of a migration: what is lost, changed and not needed, the most serious first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from textwrap import wrap

_WIDTH = 98


class Fate(Enum):
    """How a setting is migrated."""

    SAME = "the same"
    TRANSLATED = "translated"
    CHANGED = "changed"
    LOST = "lost"
    UNNEEDED = "not needed"


@dataclass
class MigrationReport:
    """Three lists of entries. An entry names a setting and says how it is migrated."""

    lost: list[str] = field(default_factory=list)
    """Settings without an effect in prefork, which the user has to replace."""
    changed: list[str] = field(default_factory=list)
    """Settings that work in another way, with the reason."""
    unneeded: list[str] = field(default_factory=list)
    """Settings that are not needed."""

    def lines(self, indent: str = "") -> Iterator[str]:
        """The lists that are not empty, wrapped, each under its title."""
        titles = (
            ("Lost, and to be replaced:", self.lost),
            ("Changed:", self.changed),
            ("Not needed:", self.unneeded),
        )
        for title, entries in titles:
            if entries:
                yield indent + title
                yield from itemized(entries, indent)


def printable(text: str, *, keep: str = "") -> str:
    """Text for a comment in TOML and for a terminal: other characters than `keep` are replaced."""
    return "".join(
        letter if letter.isprintable() or letter in keep else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )


def itemized(entries: Iterable[str], indent: str = "") -> Iterator[str]:
    """A list with hyphens. Line breaks in an entry, such as lines for a proxy, are kept."""
    for entry in entries:
        first, *more = map(printable, entry.split("\n"))
        yield from wrap(
            first,
            _WIDTH,
            initial_indent=f"{indent}- ",
            subsequent_indent=f"{indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield from (f"{indent}    {line}" for line in more)
