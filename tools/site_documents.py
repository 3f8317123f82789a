"""The documents of the repository as pages of the site, where links lead to pages or the source."""

import posixpath
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from prefork.config import KEYS

ROOT = Path(__file__).parents[1]

_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_KEY = re.compile(r"(?<![\[\w])`([a-z]+)\.(\w+)`(?!\])")


def source_url() -> str:
    """The address of the repository, [project.urls] Source of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"]["Source"])


def page(source: str, pages: Mapping[str, str]) -> str:
    """The document `source` for the site; `pages` has the path in the site of each document.

    All paths are relative: to the repository, and to the site. Raises ValueError for a link that
    leads nowhere.
    """
    text = (ROOT / source).read_text(encoding="utf-8")
    if source == "README.md":
        # The reading path is for people who have the source before them.
        text = re.sub(r"^## Read it\n.*?^(?=MIT licence)", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    parts = _FENCE.split(text)
    parts[::2] = [
        _LINK.sub(lambda found: f"{found[1]}{_target(found[2], source, pages)}{found[3]}", part)
        for part in parts[::2]
    ]
    return "".join(parts)


def link_keys(markdown: str, path: str) -> str:
    """The page at `path` of the site, in which keys of the configuration lead to their section."""
    up = "../" * path.count("/")
    parts = _FENCE.split(markdown)
    parts[::2] = [
        "".join(
            line if line.startswith("#") else _KEY.sub(lambda found: _key(found, up), line)
            for line in part.splitlines(keepends=True)
        )
        for part in parts[::2]
    ]
    return "".join(parts)


def _key(found: re.Match[str], up: str) -> str:
    section, key = found.groups()
    if f"{section}.{key}" not in KEYS:
        return found[0]
    return f"[{found[0]}]({up}configuration/{section}.md#{key})"


def _target(link: str, source: str, pages: Mapping[str, str]) -> str:
    if re.match(r"[a-z]+:", link) or link.startswith("#"):
        return link
    path, hash_, anchor = link.partition("#")
    there = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if there in pages:
        here = posixpath.dirname(pages[source])
        return posixpath.relpath(pages[there], here or ".") + hash_ + anchor
    if not (ROOT / there).exists():
        raise ValueError(f"{source}: {link} leads nowhere")
    return f"{source_url()}/{'tree' if (ROOT / there).is_dir() else 'blob'}/main/{there}"


def pictures(source: str) -> Iterator[str]:
    """The paths of the pictures that a document shows, relative to the repository."""
    text = (ROOT / source).read_text(encoding="utf-8")
    for link in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def summary(text: str) -> str:
    """The first sentence below the title of a page, on one line, without markup."""
    for paragraph in _FENCE.sub("", text).split("\n\n"):
        plain = " ".join(paragraph.split())
        if plain and not re.match(r"(#|```|\||<|!|- |\d+\. )", plain):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
            plain = re.sub(r"[`*]", "", plain)
            return re.split(r"(?<=[.:]) (?=[A-Z])", plain)[0].rstrip(":")
    return ""
