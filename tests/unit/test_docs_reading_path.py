"""The reading path of the README: what it names exists, and has about 2,000 lines."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^\| \d+ \| `(prefork/[\w/]+\.py)` \| (.+) \| .+ \|$", TEXT, re.MULTILINE)
"""File and what to read of it: names of classes, functions and methods, or "all"."""


def definitions(path: Path) -> Iterator[tuple[str, int]]:
    """The names that a file defines, `Class.method` for methods, and their numbers of lines."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name, (node.end_lineno or 0) - node.lineno + 1
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    lines = (member.end_lineno or 0) - member.lineno + 1
                    yield f"{node.name}.{member.name}", lines


def lines_of(file: str, cell: str) -> int:
    path = ROOT / file
    if cell == "all":
        return len(path.read_text(encoding="utf-8").splitlines())
    defined = dict(definitions(path))
    names = re.findall(r"`([\w.]+)`", cell)
    assert names, f"README.md, reading path: what is to be read of {file}?"
    missing = [name for name in names if name not in defined]
    assert not missing, f"README.md, reading path: {file} has no {', '.join(missing)}"
    return sum(defined[name] for name in names)


def test_the_reading_path_has_about_2000_lines() -> None:
    assert len(STEPS) > 8
    total = sum(lines_of(file, cell) for file, cell in STEPS)
    assert 1800 <= total <= 2200, f"README.md, reading path: {total} lines"
