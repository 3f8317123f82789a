"""`prefork serve` reads its plain arguments as click would."""

import sys
from subprocess import run
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.cli.serve import command
from prefork.cli.serving import Arguments, read

WORDS = st.sampled_from(
    [
        *("--bind", "--workers", "--threads", "--set", "--tcp", "--reload", "--help", "--", "-"),
        *("--bind=:80", "--bind=", "--workers=2", "--set=a.b=c", "--tcp=1", "--work", "-h", "-x"),
        *("shop:app", "site.toml", "", "2", ":8000", "http.keepalive=3", "serve", "-1", "--bindx"),
    ]
)


def by_click(args: list[str]) -> dict[str, Any] | None:
    try:
        return command.make_context("serve", list(args)).params
    except (click.ClickException, click.exceptions.Exit):
        return None


@given(args=st.lists(WORDS, max_size=7))
def test_what_is_read_without_click_is_what_click_reads(args: list[str]) -> None:
    found = read(args)
    if found is not None:
        params = by_click(args)
        assert params is not None
        assert found == Arguments(**params)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], Arguments()),
        (["shop:app", "--workers", "4"], Arguments("shop:app", workers="4")),
        (
            ["--bind=:80", "--bind", ":81", "x.toml", "--set", "a.b=c=d", "--tcp", "--reload"],
            Arguments("x.toml", True, (":80", ":81"), watch=True, settings=("a.b=c=d",)),
        ),
        (["--workers", "1", "--workers=2"], Arguments(workers="2")),
    ],
)
def test_plain_arguments_are_read(args: list[str], expected: Arguments) -> None:
    assert read(args) == expected


@pytest.mark.parametrize(
    "args", [["-h"], ["--help"], ["a", "b"], ["--workers"], ["--tcp=1"], ["--", "a"], ["--bin=x"]]
)
def test_all_else_is_left_to_click(args: list[str]) -> None:
    assert read(args) is None


def test_a_server_has_no_use_for_what_reads_command_lines() -> None:
    code = "import sys, prefork.cli.serving; print(*sys.modules)"
    loaded = run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"click", "dataclasses", "tomllib", "tempfile", "hashlib", "ssl", "subprocess", "email"}
    assert not heavy & set(loaded.split())
