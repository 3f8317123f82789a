"""docs/coming-from.md names keys, commands and options that there are."""

import re
from pathlib import Path

import pytest

from prefork.cli.group import group
from prefork.config import KEYS
from prefork.config.schema import SECTIONS

TEXT = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text()


def test_every_key_that_it_names_is_one() -> None:
    named = set(re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_]+)\b(?!:)", TEXT))
    assert len(named) >= 40
    assert not named - KEYS.keys()


@pytest.mark.parametrize("word", sorted(set(re.findall(r"prefork ([a-z]+)", TEXT))))
def test_every_command_that_it_names_is_one(word: str) -> None:
    commands = group.list_commands(None)  # type: ignore[arg-type]
    if f"`prefork {word}" in TEXT or f"    prefork {word}" in TEXT:
        assert word in commands
