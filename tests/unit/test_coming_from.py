"""docs/coming-from.md names keys, commands, options and signals that there are.

    PREFORK_WRITE_DOCS=1 python -m pytest tests/unit/test_coming_from.py

writes the tables of settings anew, from the data that `prefork migrate` works with.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork.cli.group import group
from prefork.config import KEYS
from prefork.config.schema import SECTIONS
from prefork.migrate.asgi_options import SERVERS, strings
from prefork.migrate.gunicorn_settings import SETTINGS, options
from prefork.migrate.migration_report import Fate
from prefork.migrate.uwsgi_options import OPTIONS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "coming-from.md"
TEXT = PAGE.read_text()

_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _words(fate: Fate, here: str) -> str:
    """What stands beside a setting: keys in code, and what becomes of it if it is no key."""
    key = r'(?<!`)\b([a-z]+\.[a-z_0-9]+)\b(?: = (?:"[^"]*"|\d+|true))?(?!`)'
    text = re.sub(key, _coded, here).replace("|", "\\|")
    return text if fate in (Fate.SAME, Fate.TRANSLATED) else f"{fate.value}: {text}"


def _coded(match: re.Match[str]) -> str:
    return f"`{match[0]}`" if match[1] in KEYS else match[0]


def _gunicorn() -> Iterator[str]:
    yield "| gunicorn | prefork |\n|---|---|"
    for name, setting in SETTINGS.items():
        short = [each for each in options(name) if each != f"--{name.replace('_', '-')}"]
        names = ", ".join(f"`{each}`" for each in (name, *short))
        yield f"| {names} | {_words(setting.fate, setting.here)} |"


def _uwsgi() -> Iterator[str]:
    yield "| uWSGI | prefork |\n|---|---|"
    for name, option in OPTIONS.items():
        names = ", ".join(f"`{each}`" for each in (name, *option.names))
        here = option.here.replace("{value}", "/srv/venv")
        yield f"| {names} | {_words(option.fate, here)} |"


def _asgi(server: str) -> Iterator[str]:
    yield f"| {server} | prefork |\n|---|---|"
    for name, option in SERVERS[server].items():
        names = ", ".join(f"`{each}`" for each in strings(name, option) or (name,))
        yield f"| {names} | {_words(option.fate, option.here)} |"


def _written() -> str:
    made = {"gunicorn": "\n".join(_gunicorn()), "uwsgi": "\n".join(_uwsgi())}
    made |= {server: "\n".join(_asgi(server)) for server in SERVERS}
    return _TABLE.sub(lambda match: f"{match[1]}{made[match[2]]}\n{match[3]}", TEXT)


def test_the_tables_are_those_of_the_code() -> None:
    if os.environ.get("PREFORK_WRITE_DOCS") == "1":
        PAGE.write_text(_written())
    assert PAGE.read_text() == _written()
    assert len(_TABLE.findall(TEXT)) == 5


def test_every_signal_is_one_that_the_master_obeys() -> None:
    source = "".join(path.read_text() for path in (ROOT / "prefork" / "master").rglob("*.py"))
    obeyed = set(re.findall(r"signal\.SIG([A-Z0-9]+)", source))
    tables = re.findall(r"\| signal \| \w+ \| prefork \|\n.*?\n\n", TEXT, re.DOTALL)
    named = {name for table in tables for name in re.findall(r"\b[A-Z]{3,5}[12]?\b", table)}
    assert len(tables) == 2
    assert (
        {"TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "TTIN", "TTOU", "WINCH"} <= named <= obeyed
    )


def test_every_key_that_it_names_is_one() -> None:
    named = set(re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_]+)\b(?!:)", TEXT))
    assert len(named) >= 40
    assert not named - KEYS.keys()


@pytest.mark.parametrize("word", sorted(set(re.findall(r"prefork ([a-z]+)", TEXT))))
def test_every_command_that_it_names_is_one(word: str) -> None:
    commands = group.list_commands(None)  # type: ignore[arg-type]
    if f"`prefork {word}" in TEXT or f"    prefork {word}" in TEXT:
        assert word in commands
