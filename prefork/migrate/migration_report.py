"""What a migration could not take over as it was: three lists, the most serious first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from textwrap import wrap

_WIDTH = 98


class Fate(Enum):
    """What becomes of a setting."""

    SAME = "the same"
    TRANSLATED = "translated"
    CHANGED = "changed"
    LOST = "lost"
    UNNEEDED = "not needed"


@dataclass
class MigrationReport:
    """Each entry is what was set and what becomes of it, in one line each."""

    lost: list[str] = field(default_factory=list)
    """What worked and does not work here: somebody has to act."""
    changed: list[str] = field(default_factory=list)
    """What works in another way, and why."""
    unneeded: list[str] = field(default_factory=list)
    """What has no use here."""

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
    """What a comment in TOML may hold, and a terminal should be shown; with the letters to keep."""
    return "".join(
        letter if letter.isprintable() or letter in keep else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )


def itemized(entries: Iterable[str], indent: str = "") -> Iterator[str]:
    """A list with hyphens. Lines that an entry holds itself, such as a proxy's, are kept."""
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
