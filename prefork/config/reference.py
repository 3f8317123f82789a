"""The reference configuration, `prefork.toml` beside this module, as a file and key by key.

It is the only source of what a key means: `prefork init` writes it, `prefork explain` prints parts
of it, and the man page and the site are made from it. In a checkout it is a link to
`conf/prefork.toml`; the sdist and the wheel have the file itself."""

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from prefork.config.problems import unknown_key, unknown_section
from prefork.config.schema import KEYS, SECTIONS, Key

_SECTION = re.compile(r"\[(\w+)\]")
_LINE = re.compile(r"(?:# )?(\w+) = .+")

_STARTER = """\
# {name}: set what to serve (server.app or static.root), and what else you need.
#
# Every key is commented out. Its line shows the default value or, if there is no such value, an
# example: remove the "# " to set it.
"""


class ReferenceLine(Struct, frozen=True):
    """A key with its line in a file, such as `threads = 1`: its default value, or an example."""

    key: Key
    line: str
    is_default: bool


class Explanation(Struct, frozen=True):
    """What the reference says of one key, or of several that have one comment (without "# ")."""

    lines: tuple[ReferenceLine, ...]
    comment: tuple[str, ...]

    def paragraphs(self) -> list[str]:
        """The comment, each paragraph on one line; indented lines, as of a list, stay alone."""
        found = [""]
        for line in self.comment:
            if line.startswith(" "):
                found += [line, ""]
            elif not line:
                found.append("")
            else:
                found[-1] = f"{found[-1]} {line}".lstrip()
        return [paragraph for paragraph in found if paragraph]


def text() -> str:
    """The reference configuration: every key with its default and a comment."""
    return Path(__file__).with_name("prefork.toml").read_text(encoding="utf-8")


def preamble() -> list[str]:
    """The paragraphs before the first section, without "# ", each as in the file."""
    head = _uncommented(text().partition("\n\n[")[0].splitlines())
    return "\n".join(head).split("\n\n")


def starter(name: str) -> str:
    """The reference with every key commented out, for a new file of this name.

    The defaults are not set in it: so PORT and WEB_CONCURRENCY, which come after the file, count,
    and a later version of prefork may choose better ones.
    """
    head = _STARTER.format(name=name).splitlines()
    kept = "\n\n".join(preamble()[2:]).replace("site.toml", name).splitlines()
    head += ["#", *(f"# {line}".rstrip() for line in kept), ""]
    sections = f"[{text().partition(chr(10) + '[')[2]}"
    body = [line if _is_kept(line) else f"# {line}" for line in sections.splitlines()]
    return "\n".join([*head, *body, ""])


def _is_kept(line: str) -> bool:
    return not line or line.startswith(("#", "["))


def explanations() -> Iterator[Explanation]:
    """What is said of each key, in the order of the schema."""
    section = ""
    for block in text().split("\n\n")[1:]:
        lines = block.strip().splitlines()
        if found := _SECTION.fullmatch(lines[0]):
            section = found[1]
            del lines[0]
        named = [(line, f"{section}.{found[1]}") for line in lines if (found := _LINE.match(line))]
        keys = {line: KEYS[name] for line, name in named if name in KEYS}
        comment = _uncommented([line for line in lines if line not in keys])
        yield Explanation(
            tuple(
                ReferenceLine(key, line.removeprefix("# "), not line.startswith("#"))
                for line, key in keys.items()
            ),
            tuple(comment),
        )


def _uncommented(lines: list[str]) -> list[str]:
    return [line.removeprefix("#").removeprefix(" ") for line in lines]


def find(name: str) -> list[Explanation]:
    """The explanations of "workers.threads", of a section, or of each key called "threads".

    Raises KeyError; its argument says what is near.
    """
    section, dot, key = name.partition(".")

    def is_meant(entry: Key) -> bool:
        return entry.name == name or (not dot and section in (entry.section, entry.key))

    found = [
        explanation
        for explanation in explanations()
        if any(is_meant(line.key) for line in explanation.lines)
    ]
    if not found:
        known = section in SECTIONS
        raise KeyError(str(unknown_key("", section, key) if known else unknown_section("", name)))
    return found
