"""docs/operations.md names each event, metric, signal, state and reason that there is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from prefork import control
from prefork.master.observe import status_report
from prefork.master.pool import plan

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def table(title: str) -> set[str]:
    """What stands in quotes in the first column of the tables of a chapter."""
    chapter = TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", chapter, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def events() -> Iterator[str]:
    """The name of each event in the source: the second argument of `event`, or of `_event`."""
    for path in (ROOT / "prefork").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or len(node.args) < 2:
                continue
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("event", "_event"):
                for part in ast.walk(node.args[1]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def test_each_event_is_documented_and_no_other() -> None:
    assert table("The log") == set(events())


def test_each_metric_is_documented_and_no_other() -> None:
    source = (ROOT / "prefork" / "master" / "observe" / "metrics.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"(prefork_[a-z_]+)"', source))
    names |= {f"prefork_{name}" for name in ("reloads", "upgrades")}
    documented = {name.removesuffix("_total") for name in table("Metrics")}
    assert documented == names


@pytest.mark.parametrize("state", status_report.STATES)
def test_each_state_is_documented(state: str) -> None:
    assert f"`{state}`" in TEXT


def test_each_reason_of_a_restart_is_documented() -> None:
    assert table("It restarts") >= set(get_args(plan.RestartReason))


def test_each_command_is_documented() -> None:
    inner = {"stack", "retire"}  # of `status --stack` and of `top`
    assert all(f"`prefork {name}" in TEXT for name in control.COMMANDS.keys() - inner)
