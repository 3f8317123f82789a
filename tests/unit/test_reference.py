"""The reference configuration: key by key, and as a file to begin with."""

import re
import tomllib

import pytest

from prefork.config import KEYS, reference


def test_each_key_is_explained_once_in_the_order_of_the_schema() -> None:
    lines = [line for each in reference.explanations() for line in each.lines]
    assert [line.key for line in lines] == list(KEYS.values())
    for line in lines:
        assert list(tomllib.loads(line.line)) == [line.key.key]


def test_defaults_and_examples_are_told_apart() -> None:
    defaults = tomllib.loads(reference.text())
    for each in reference.explanations():
        assert each.comment
        for line in each.lines:
            assert line.is_default == (line.key.key in defaults[line.key.section])


def test_a_paragraph_is_one_line_and_a_list_stays_a_list() -> None:
    (hooks,) = reference.find("workers.hooks")
    first, *middle, last = hooks.paragraphs()
    assert first.startswith("Functions to call, as ")
    assert [line.split()[0] for line in middle] == [
        *("before_fork", "after_fork", "ready", "before_exit")
    ]
    assert "If one of the first three raises" in last


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("workers.threads", ["workers.threads"]),
        ("threads", ["workers.threads"]),
        ("workers.spare", ["workers.min", "workers.max", "workers.spare"]),
        ("bind", ["server.bind", "tls.bind", "metrics.bind"]),
        ("control", ["control.path"]),
    ],
)
def test_a_key_is_found_by_its_name_and_by_its_section(name: str, keys: list[str]) -> None:
    found = [line.key.name for each in reference.find(name) for line in each.lines]
    assert found == keys


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("workers.thread", "did you mean workers.threads?"),
        ("thread", "did you mean workers.threads?"),
        ("worker", "did you mean [workers]?"),
        ("timeout", "did you mean one of workers.boot_timeout, workers.request_timeout, "),
        ("nothing", "the sections are server, workers, "),
        ("workers.", "[workers] has count, "),
        ("", "the sections are "),
    ],
)
def test_an_unknown_name_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(KeyError, match=re.escape(hint)):
        reference.find(name)


def test_the_starter_sets_nothing_and_says_everything() -> None:
    text = reference.starter("shop.toml")
    sections = list(tomllib.loads(reference.text()))
    assert tomllib.loads(text) == {section: {} for section in sections}
    manual = reference.text().partition("\n[")[2]
    written = text.partition("\n[")[2]
    for before, after in zip(manual.splitlines(), written.splitlines(), strict=True):
        assert after in (before, f"# {before}")
    assert "site.toml" not in text
    assert "prefork serve shop.toml" in text
