"""The directory in which a command is started is gone, now or later."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import ROOT, prefork_command
from tests.support.server import Start
from tests.support.waiting import PATIENCE

APP = "tests.apps.basic:app"
_REMOVE = 'cd "$1" && rmdir "$1" && shift && exec "$@"'


@pytest.fixture
def here(tmp_path: Path) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    return place


def run_in_removed(here: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs `prefork ARGS` in a directory that is removed before."""
    return subprocess.run(
        ["sh", "-c", _REMOVE, "sh", str(here), *prefork_command(*args)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )


@pytest.mark.parametrize(
    "args",
    [
        ("serve", APP),
        ("serve", "site.toml"),
        ("check", APP),
        ("check", "site.toml"),
        ("status", "site.toml"),
        ("stop", "site.toml"),
        ("reload", APP),
        ("upgrade", APP),
        ("scale", "2", APP),
        ("reopen", APP),
        ("init", "site.toml"),
        ("migrate", "gunicorn", "site.py"),
        ("migrate", "uwsgi", "site.ini"),
        ("get", "http://127.0.0.1:1/"),
    ],
    ids=" ".join,
)
def test_a_command_in_a_removed_directory_ends_with_a_line(
    here: Path, args: tuple[str, ...]
) -> None:
    done = run_in_removed(here, *args)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert 1 <= len(said.splitlines()) <= 2  # one for each problem
    assert "Traceback" not in said
    if args[-1] == APP and args[0] in ("serve", "check"):
        assert f'server.chdir: "{here}": no such directory' in said


def test_what_is_absolute_works_in_a_removed_directory(here: Path, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(f'[server]\napp = "{APP}"\nbind = ["127.0.0.1:0"]\n')
    assert run_in_removed(here, "check", file).stdout == "ok\n"


def test_an_upgrade_after_the_directory_of_the_start_was_removed(
    start: Start, here: Path, tmp_path: Path
) -> None:
    (tmp_path / "site.toml").write_text(f'[server]\napp = "{APP}"\nchdir = "{ROOT}"\n')
    server = start(str(tmp_path / "site.toml"), cwd=here).wait_settled(1)
    shutil.rmtree(here)
    server.ask("upgrade")
    server.ask("reload")
    server.ask("upgrade")
    assert server.get("/")[0] == 200


@pytest.mark.parametrize("target", ["site.toml", APP])
def test_an_upgrade_says_what_is_relative_to_the_removed_directory(
    start: Start, here: Path, target: str
) -> None:
    (here / "site.toml").write_text(f'[server]\napp = "{APP}"\n')
    server = start(target, cwd=here).wait_settled(1)
    server.expected_errors.add("upgrade failed")
    shutil.rmtree(here)
    said = server.refusal("upgrade")
    assert f"{here}, in which the server was started, is gone" in said
    assert ("site.toml: cannot be read" if target == "site.toml" else "server.chdir") in said
    assert server.get("/")[0] == 200
    here.mkdir()
    (here / "site.toml").write_text(f'[server]\napp = "{APP}"\n')
    server.ask("upgrade")
