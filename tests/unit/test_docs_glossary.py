"""docs/glossary.md is short, and the classes and modules that it names exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "prefork"
TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
TERMS = re.findall(r"^- \*\*(.+?)\*\*: .+\.$", TEXT, re.MULTILINE)
NAMED = {
    name
    for line in TEXT.splitlines()
    if line.startswith("- ")
    for name in re.findall(r"`([^`]+)`", line)
}


def classes() -> set[str]:
    return {
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }


def test_there_are_fewer_than_forty_terms_each_in_a_line() -> None:
    assert 30 < len(TERMS) < 40
    assert len(TERMS) == len(set(TERMS)) == sum(line.startswith("- ") for line in TEXT.splitlines())


def test_each_module_that_is_named_exists() -> None:
    named = {name for name in NAMED if name.endswith(".py")}
    assert len(named) > 20
    assert not {name for name in named if not (PACKAGE / name).is_file()}


def test_each_class_that_is_named_exists() -> None:
    named = {name for name in NAMED if re.fullmatch(r"([A-Z][a-z]+)+", name)}
    assert len(named) > 20
    assert not named - classes()
