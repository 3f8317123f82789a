"""docs/architecture.md and docs/decisions/ agree with the code: files, floors and numbers."""

import re
from pathlib import Path

from tests.unit.test_rooms import FLOORS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "prefork"
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
DECISIONS = ROOT / "docs" / "decisions"
LIBRARIES = TEXT.index("## Libraries")
ROWS = re.findall(r"^\| (.+) \| (`.+`) \|$", TEXT[:LIBRARIES], re.MULTILINE)
"""Behaviour and files of each row of "to change | look in"."""


def files(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_each_file_that_the_page_names_exists() -> None:
    """A name may be a pattern, such as `migrate/*.py`."""
    named = set(re.findall(r"`([\w/*]+\.py)`", TEXT))
    missing = [name for name in named if not (any(PACKAGE.glob(name)) or any(ROOT.glob(name)))]
    assert not missing, f"docs/architecture.md names files that do not exist: {missing}"


def test_the_table_names_each_module() -> None:
    modules = {path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    named = {path for _, cell in ROWS for name in files(cell) for path in PACKAGE.glob(name)}
    missing = sorted(str(path.relative_to(PACKAGE)) for path in modules - named)
    assert not missing, f"give a row of docs/architecture.md to {missing}"


def test_a_behaviour_has_one_row_and_a_row_has_a_file_of_its_own() -> None:
    behaviours = [behaviour for behaviour, _ in ROWS]
    assert len(set(behaviours)) == len(behaviours) > 100
    first = [files(cell)[0] for _, cell in ROWS]
    assert not {name for name in first if first.count(name) > 1}


def test_the_picture_shows_the_floors_that_the_imports_obey() -> None:
    picture = TEXT.partition("## Floors\n")[2].split("```")[1]
    shown = [line.split()[0] for line in picture.strip().splitlines() if not line.startswith("-")]
    assert shown == [floor or "(the" for floor in FLOORS]


def test_the_records_of_decisions_are_numbered_and_whole() -> None:
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    expected = 1
    for name, first, last in re.findall(r"\]\((\w+\.md)\) \| (\d+) to (\d+) \|", index):
        text = (DECISIONS / name).read_text(encoding="utf-8")
        numbers = [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)]
        assert numbers == list(range(int(first), int(last) + 1))
        assert numbers[0] == expected
        expected = numbers[-1] + 1
        for record in text.split("\n## ")[1:]:
            parts = re.findall(r"^\*\*(\w+):\*\* \S", record, re.MULTILINE)
            assert parts == ["Context", "Decision", "Consequence"], record
    assert expected > 42
    listed = set(re.findall(r"\]\((\w+\.md)\)", index))
    assert listed == {path.name for path in DECISIONS.glob("*.md")} - {"README.md"}
