"""The files in conf/: prefork.toml is the manual of the whole schema, the others can be served."""

import re
import tomllib
from pathlib import Path

import pytest

from prefork.config import KEYS, Override, Source, load
from prefork.config.values import read

CONF = Path(__file__).parents[2] / "conf"

DERIVED = {"server.name", "server.chdir"}
"""Keys whose default follows from other things: their line is an example, too."""


@pytest.fixture(scope="module")
def manual() -> str:
    return (CONF / "prefork.toml").read_text()


def _uncomment(text: str) -> str:
    return re.sub(r"^# (?=[a-z_]+ = \S+$)", "", text, flags=re.MULTILINE)


def _names(document: dict[str, dict[str, object]]) -> list[str]:
    return [f"{section}.{key}" for section, table in document.items() for key in table]


def test_the_manual_has_every_key_in_order_and_no_other(manual: str) -> None:
    assert _names(tomllib.loads(_uncomment(manual))) == list(KEYS)


def test_the_manual_comments_out_the_keys_without_a_default_of_their_own(manual: str) -> None:
    written = set(_names(tomllib.loads(manual)))
    assert KEYS.keys() - written == DERIVED | {n for n, k in KEYS.items() if k.default is None}


def test_the_manual_writes_every_default(manual: str) -> None:
    document = tomllib.loads(manual)
    for name in _names(document):
        key = KEYS[name]
        raw = document[key.section][key.key]
        assert read(key.kind, key.hint, raw, str(CONF)) == key.default, name


def test_the_examples_in_the_manual_are_read(manual: str) -> None:
    document = tomllib.loads(_uncomment(manual))
    for name in _names(document):
        key = KEYS[name]
        read(key.kind, key.hint, document[key.section][key.key], str(CONF))


def test_every_key_in_the_manual_is_explained(manual: str) -> None:
    """A comment stands right before each key, or before a block of keys that it explains."""
    for block in re.split(r"\n\n|^\[\w+\]\n", manual, flags=re.MULTILINE):
        if re.search(r"^(# )?[a-z_]+ = \S+$", block, flags=re.MULTILINE):
            assert re.match(r"# (?![a-z_]+ = \S+$)", block.lstrip("\n")), block


def test_the_manual_can_be_served_once_it_names_an_application() -> None:
    source = Source(
        str(CONF / "prefork.toml"), (Override("server", "app", "examples.demo:app", "--set"),)
    )
    assert load(source, {}).config.server.name == "prefork"


@pytest.mark.parametrize(
    ("name", "protocol", "app"),
    [
        ("wsgi", "auto", "examples.demo:app"),
        ("static", "static", None),
        ("tcp", "tcp", "examples.echo:handle"),
    ],
)
def test_the_small_files_can_be_served(name: str, protocol: str, app: str | None) -> None:
    config = load(Source(str(CONF / f"{name}.toml")), {}).config
    assert (config.server.protocol, config.server.app) == (protocol, app)
    if app:
        module = app.partition(":")[0].replace(".", "/")
        assert (Path(config.server.chdir) / f"{module}.py").is_file()


def test_there_is_a_test_for_every_file() -> None:
    assert {path.stem for path in CONF.glob("*.toml")} == {"prefork", "wsgi", "static", "tcp"}
