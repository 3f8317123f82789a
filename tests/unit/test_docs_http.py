"""docs/http.md names the test of each rule: it is there."""

import re
from pathlib import Path

from tests.unit.http_rules import REFUSED, SERVED

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "http.md").read_text()
ROWS = [line.split(" | ")[-1] for line in TEXT.splitlines() if line.startswith("|")]


def test_each_case_that_is_named_is_there() -> None:
    named = {name for row in ROWS for name in re.findall(r'"([^"]+)"', row)}
    assert len(named) > 50
    assert not named - REFUSED.keys() - SERVED.keys()


def test_each_test_that_is_named_is_there() -> None:
    """In the file that stands before it, where one does."""
    count = 0
    for row in ROWS:
        path = "tests/unit/test_reader_rules.py"
        for word in re.findall(r"`([\w/.]+)`", row):
            if word.endswith(".py"):
                path = word if "/" in word else f"tests/unit/{word}"
            elif word.startswith("test_"):
                assert f"\ndef {word}(" in (ROOT / path).read_text(), f"{path}: {word}"
                count += 1
    assert count > 25


def test_each_file_that_is_named_is_there() -> None:
    for row in ROWS:
        for path in re.findall(r"`((?:tests|conf)/[\w/.]+)`", row):
            assert (ROOT / path).is_file(), path
