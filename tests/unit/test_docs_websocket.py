"""docs/websocket.md names each key of [websocket] with its default, and each code that is sent."""

import re
from pathlib import Path

from prefork.config import KEYS
from prefork.config.values import show_size
from prefork.websocket import close_codes

TEXT = (Path(__file__).parents[2] / "docs" / "websocket.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, str]:
    """First cell to the rest of its row, of the table below a heading."""
    below = TEXT.split(f"## {heading}\n", 1)[1].split("\n## ")[0]
    found = re.findall(r"^\| `?([^|`]+?)`? \| (.+) \|$", below, re.MULTILINE)
    return {first: rest for first, rest in found if not first.startswith("-")}


def test_each_key_has_a_row_with_its_default() -> None:
    limits = rows("Limits")
    keys = {name: key for name, key in KEYS.items() if key.section == "websocket"}
    assert {name for name in limits if name.startswith("websocket.")} == set(keys)
    for name, key in keys.items():
        default = limits[name].split(" | ")[0]
        if isinstance(key.default, bool):
            assert default == str(key.default).lower()
        elif isinstance(key.default, int):
            assert default.replace(" ", "") == show_size(key.default).strip('"')
        else:
            assert default.startswith(f"{key.default:g}")


def test_each_code_has_a_row() -> None:
    known = {
        str(value)
        for value in vars(close_codes).values()
        if isinstance(value, int) and value >= 1000
    }
    assert known <= set(rows("Close codes"))
