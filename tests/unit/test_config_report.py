"""--set, what changed between two configurations, and `prefork check`."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from prefork.cli.check import command
from prefork.config import (
    KEYS,
    Config,
    Override,
    Server,
    Workers,
    changes,
    describe,
    parse_set,
    parse_value,
)
from tests.support.config_site import APP, Write, loaded, problems, site_in


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    return site_in(tmp_path, monkeypatch)


# --set


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("workers.count=4", "count", 4),
        ("workers.count = auto", "count", "auto"),
        ("workers.x=", "x", ""),
        ("workers.x=a=b", "x", "a=b"),
        ("workers.x=true", "x", True),
        ("workers.x=['a', 'b']", "x", ["a", "b"]),
        ('workers.x={"/a/" = "b"}', "x", {"/a/": "b"}),
        ("workers.x=1\ny = 2", "x", "1\ny = 2"),
        ("workers.x.y=1", "x.y", 1),
    ],
)
def test_set_reads_toml_or_else_text(text: str, key: str, value: object) -> None:
    assert parse_set(text) == Override("workers", key, value, "--set")


@pytest.mark.parametrize("text", ["", "=", "workers", "workers=1", "workers.=1", ".x=1", "a.b"])
def test_set_wants_section_key_and_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected SECTION\.KEY=VALUE"):
        parse_set(text)


def test_a_value_of_too_many_brackets_is_text() -> None:
    assert parse_value("[" * 5000) == "[" * 5000


# What is reported


def test_changes_name_what_differs_in_the_schemas_order() -> None:
    old = Config(server=Server(bind=("a:1",)), workers=Workers(count=2))
    new = Config(server=Server(bind=("a:1", "b:2"), app="x:y"), workers=Workers(count=4))
    assert changes(old, new) == [
        'server.app: none -> "x:y"',
        'server.bind: ["a:1"] -> ["a:1", "b:2"]',
        "workers.count: 2 -> 4",
    ]
    assert changes(old, old) == []


def test_the_environments_values_are_not_shown(site: Write) -> None:
    old = loaded(site(APP + 'env = { PASSWORD = "hunter2" }\n'))
    new = loaded(site(APP + 'env = { PASSWORD = "swordfish" }\n'))
    assert not any("hunter2" in line for line in describe(old))
    assert changes(old.config, new.config) == [
        'server.env: { "PASSWORD" = "***" } -> { "PASSWORD" = "***" } (other values)'
    ]
    (line,) = problems(site(APP + "env = { PASSWORD = 12345 }\n"))
    assert "12345" not in line


def test_check_says_ok(site: Write) -> None:
    result = CliRunner().invoke(command, [site(APP)])
    assert (result.exit_code, result.output) == (0, "ok\n")


def test_check_takes_any_target(site: Write) -> None:
    for target in ("no_such_module:app", "."):
        result = CliRunner().invoke(command, [target])
        assert (result.exit_code, result.output) == (0, "ok\n")


def test_check_prints_every_problem(site: Write) -> None:
    keys = [key.key for key in KEYS.values() if key.section == "workers"]
    result = CliRunner().invoke(command, [site("[workers]\ncount = 0\nx = 1\n"), "--show"])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        'site.toml: workers.count: expected an integer of at least 1 or "auto", got 0',
        f"site.toml: workers.x: unknown key; [workers] has {', '.join(keys)}",
    ]


def test_check_shows_every_value_and_its_origin(site: Write) -> None:
    name = site(APP + "unix_mode = 0o600\n[http]\nmax_body = 1048576\nkeepalive = 1.5\n")
    result = CliRunner().invoke(command, [name, "--show"])
    assert result.exit_code == 0
    *lines, last = result.output.splitlines()
    assert last == "ok"
    shown = {line.split(" = ")[0]: line.split(" = ", 1)[1] for line in lines}
    assert list(shown) == list(KEYS)
    parts = {name: text.split("  # ") for name, text in shown.items()}
    values = {name: (value.rstrip(), origin) for name, (value, origin) in parts.items()}
    assert values["server.app"] == ('"a:app"', "site.toml")
    assert values["server.unix_mode"] == ('"0600"', "site.toml")
    assert values["http.max_body"] == ('"1MiB"', "site.toml")
    assert values["http.keepalive"] == ("1.5", "site.toml")
    assert values["http.header_timeout"] == ("10", "default")
    assert values["static.root"] == ("none", "default")
    assert len({line.index("  # ") for line in lines if len(line.split("  # ")[0]) <= 60}) == 1
