"""`prefork init` and `prefork explain`."""

from pathlib import Path

import pytest

from prefork.config import KEYS, reference
from tests.support.commands import run_prefork
from tests.support.server import Start


def test_a_new_file_serves_once_it_names_an_application(start: Start, tmp_path: Path) -> None:
    done = run_prefork("init", "shop.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "prefork serve shop.toml" in done.stdout
    file = tmp_path / "shop.toml"
    assert file.read_text() == reference.starter("shop.toml")
    assert "server.app: missing" in run_prefork("check", file).stdout

    (tmp_path / "shop.py").write_text(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'the shop']\n"
    )
    text = file.read_text()
    file.write_text(text.replace('# app = "shop.wsgi:application"', 'app = "shop:application"'))
    server = start(str(file)).wait_ready(1)
    assert server.get("/") == (200, b"the shop")


def test_the_environment_counts_beside_a_new_file(tmp_path: Path) -> None:
    """The file sets no default, so PORT and WEB_CONCURRENCY are not overridden by it."""
    run_prefork("init", cwd=tmp_path)
    file = tmp_path / "prefork.toml"
    file.write_text(file.read_text().replace("\n[static]\n", '\n[static]\nroot = "."\n'))
    environ = {"PORT": "8123", "WEB_CONCURRENCY": "3"}
    shown = run_prefork("check", file, "--show", env=environ).stdout
    assert 'server.bind = ["0.0.0.0:8123"]' in shown
    assert "workers.count = 3 " in shown


def test_a_file_that_exists_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "prefork.toml").write_text("mine")
    done = run_prefork("init", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "Error: prefork.toml exists: remove it, or name another file\n"
    assert (tmp_path / "prefork.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("file", "reason"), [("no/such.toml", "cannot be written: No such file"), ("site", ".toml")]
)
def test_a_file_that_cannot_be_written_is_a_clear_error(
    file: str, reason: str, tmp_path: Path
) -> None:
    done = run_prefork("init", file, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {file}")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_dash_writes_to_the_standard_output(tmp_path: Path) -> None:
    done = run_prefork("init", "-", cwd=tmp_path)
    assert done.stdout == reference.starter("prefork.toml")
    assert not list(tmp_path.iterdir())


def test_a_key_is_explained() -> None:
    done = run_prefork("explain", "workers.threads")
    first, second, empty, *comment = done.stdout.splitlines()
    assert first == "workers.threads: an integer from 1 to 255"
    assert second == "default: threads = 1"
    assert empty == ""
    assert "thread-safe" in " ".join(comment)


def test_a_section_is_explained_and_all_keys_are_listed() -> None:
    control = run_prefork("explain", "control").stdout
    assert 'example: path = "/run/shop/control.sock"' in control
    listed = run_prefork("explain").stdout.splitlines()
    assert [line.partition(": ")[0] for line in listed] == list(KEYS)


def test_an_unknown_key_is_a_clear_error() -> None:
    done = run_prefork("explain", "workers.thread")
    assert done.returncode == 1
    assert done.stderr == "Error: workers.thread: unknown key; did you mean workers.threads?\n"
