"""`prefork serve` reads its plain arguments as click would."""

import re
import sys
from subprocess import run
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from prefork.cli import serve as serve_module
from prefork.cli.serve import command
from prefork.cli.serving import Arguments, read, words_of
from prefork.config import Source

WORDS = st.sampled_from(
    [
        *("--bind", "--workers", "--threads", "--set", "--tcp", "--reload", "--help", "--", "-"),
        *("--bind=:80", "--bind=", "--workers=2", "--set=a.b=c", "--tcp=1", "--work", "-h", "-x"),
        *("-b", "-w", "-t", "-w2", "-b=:80", "--host", "--port", "--timeout", "--host=::1", "-k"),
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
        (
            ["-b", ":80", "-w", "3", "-t", "60", "a:b"],
            Arguments("a:b", bind=(":80",), workers="3", timeout="60"),
        ),
        (["--host", "::1", "--port=81"], Arguments(host="::1", port="81")),
    ],
)
def test_plain_arguments_are_read(args: list[str], expected: Arguments) -> None:
    assert read(args) == expected


@pytest.mark.parametrize(
    "args",
    [["-h"], ["--help"], ["a", "b"], ["--workers"], ["--tcp=1"], ["--", "a"], ["--bin=x"], ["-w3"]],
)
def test_all_else_is_left_to_click(args: list[str]) -> None:
    assert read(args) is None


def test_a_server_has_no_use_for_what_reads_command_lines() -> None:
    code = "import sys, prefork.cli.serving; print(*sys.modules)"
    loaded = run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"click", "dataclasses", "tomllib", "tempfile", "hashlib", "ssl", "subprocess", "email"}
    if sys.version_info[:2] == (3, 14):
        heavy.remove("dataclasses")  # by traceback of CPython 3.14, for its colours
    assert not heavy & set(loaded.split())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Arguments(host="0.0.0.0"), ("server", "bind", ["0.0.0.0:8000"], "--host")),
        (Arguments(port="81"), ("server", "bind", ["127.0.0.1:81"], "--port")),
        (Arguments(host="::1", port="81"), ("server", "bind", ["[::1]:81"], "--host")),
        (Arguments(timeout="90"), ("workers", "request_timeout", 90, "--timeout")),
    ],
)
def test_options_of_other_servers(given: Arguments, expected: tuple[object, ...]) -> None:
    (override,) = given.source().overrides
    assert (override.section, override.key, override.value, override.origin) == expected


def test_bind_excludes_host_and_port() -> None:
    with pytest.raises(ValueError, match="use one of them"):
        Arguments(bind=(":80",), port="81").source()


def test_the_command_line_takes_precedence_over_the_variable() -> None:
    defaults = read(words_of({"PREFORK_CMD_ARGS": "-w 3 -b :80 --set 'log.level=debug' a:b --tcp"}))
    assert defaults is not None
    assert Arguments("c:d", workers="5", port="81").over(defaults) == Arguments(
        "c:d", True, (), "5", settings=("log.level=debug",), port="81"
    )
    assert Arguments().over(defaults) == defaults
    with pytest.raises(ValueError, match="PREFORK_CMD_ARGS: No closing quotation"):
        words_of({"PREFORK_CMD_ARGS": "'"})


def test_arguments_in_the_variable_are_checked_by_click(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Source] = []

    def record(source: Source, *, watch: bool) -> int:
        served.append(source)
        return 0

    monkeypatch.setattr(serve_module, "run", record)
    monkeypatch.setenv("PREFORK_CMD_ARGS", "-w3 --threads 2")
    assert CliRunner().invoke(command, ["-w5", "a:b"]).exit_code == 0
    assert [(each.key, each.value) for each in served[0].overrides] == [
        ("count", 5),
        ("threads", 2),
    ]
    monkeypatch.setenv("PREFORK_CMD_ARGS", "--wrokers 3")
    done = CliRunner().invoke(command, ["a:b"])
    assert done.exit_code == 2
    assert re.search(r"PREFORK_CMD_ARGS: No such option:? '?--wrokers", done.stderr)


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (
            ["-k", "gevent"],
            "a WSGI application that waits a lot has --threads N",
        ),
        (["--worker-class", "sync"], "an ASGI application is recognized"),
        (["-D"], "--set process.daemon=true"),
        (["-c", "conf.py"], "prefork migrate gunicorn FILE"),
        (["--preload"], "--set workers.preload=VALUE"),
        (["--log-level", "debug"], "--set log.level=VALUE"),
        (["--uds", "x"], "--bind unix:PATH"),
        (["--http", ":8000"], "--bind ADDRESS"),
        (["--wsgi-file", "app.py"], "the application is TARGET"),
        (["--harakiri", "30"], "--set workers.request_timeout=VALUE"),
        (["--home", "/srv/venv"], "DIRECTORY/bin/prefork"),
        (["--vacuum"], "socket and pid files are removed"),
        (["--worker"], "--workers"),
    ],
)
def test_options_of_other_servers_are_explained(args: list[str], hint: str) -> None:
    done = CliRunner().invoke(command, args)
    assert done.exit_code == 2
    assert hint in " ".join(done.stderr.split())
