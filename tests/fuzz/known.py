"""Differences between our reading and that of other parsers, which were looked at.

Each says which of them is right, by the section that says so.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from tests.fuzz.parsers import Difference, Read


class Known(NamedTuple):
    """A kind of difference."""

    peer: str
    whats: tuple[str, ...]
    applies: Callable[[Difference], bool]
    why: str


def _asks_for_upgrade(found: Difference) -> bool:
    """And the other ends it at its head."""
    theirs, data = found.theirs, found.data
    head = data.index(b"\r\n\r\n", len(data) - len(data.lstrip(b"\r\n"))) + 4
    return (
        "HTTP_UPGRADE" in found.ours.fields
        and isinstance(theirs, Read)
        and theirs.body == b""
        and theirs.end == head
    )


def _absolute(found: Difference) -> bool:
    """Nothing differs but Host."""
    if not isinstance(found.theirs, Read) or b"://" not in found.ours.target:
        return False
    one, two = ({**each.fields, "HTTP_HOST": ""} for each in (found.ours, found.theirs))
    return one == two


def _later_minor_version(found: Difference) -> bool:
    theirs = found.theirs
    return (
        isinstance(theirs, Read)
        and found.ours.version == "HTTP/1.1"
        and re.fullmatch(r"HTTP/1\.[2-9]", theirs.version) is not None
    )


KNOWN = (
    Known(
        "llhttp",
        ("body", "end"),
        _asks_for_upgrade,
        "RFC 9110 section 7.8: a server may ignore Upgrade.  llhttp ends a request that asks for"
        " one at its head and leaves the body unread, since it takes it for granted that the"
        " protocol is changed; the other two read the body, as we do.",
    ),
    Known(
        "*",
        ("fields",),
        _absolute,
        "RFC 9112 section 3.2.2: the host of an absolute target replaces what Host says.  The"
        " parsers leave this to who uses them.",
    ),
    Known(
        "*",
        ("version",),
        _later_minor_version,
        "RFC 9110 section 6.2: a later minor version is processed as the highest that is known."
        "  The parsers tell which one came.",
    ),
)


def explained(found: Difference) -> Known | None:
    """The kind of a difference, None for one that nobody has looked at."""
    for known in KNOWN:
        if known.peer in ("*", found.peer) and found.what in known.whats and known.applies(found):
            return known
    return None


def summary(found: Difference) -> str:
    theirs = getattr(found.theirs, found.what, "")
    ours = getattr(found.ours, found.what, "")
    return re.sub(r"\s+", " ", f"{found.peer}: {found.what}: {theirs!r} for {ours!r}")
