"""`serve --reload`: an edit is served, a broken one is not, and the watcher is nobody's orphan."""

import os
import py_compile
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.support.changing_app import copy_app, set_version
from tests.support.commands import ROOT, prefork_command
from tests.support.processes import alive, links
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE, until

pytest.importorskip("watchfiles")


class Site:
    """A directory with an application, and a server of it that watches."""

    def __init__(self, start: Start, directory: Path, *args: str) -> None:
        self.app = copy_app(directory)
        target = args or ("changing:app",)
        self.server = start(
            *(*target, "--reload", "--workers", "1"), cwd=directory, env={"PWD": ""}
        )
        self.server.wait_ready(1).wait("watching")

    def change(self, version: str, before: str = "") -> None:
        """As an editor does: a file takes the place of the old one."""
        set_version(self.app, version, before)

    def wait_served(self, version: str) -> None:
        """Once a generation has settled; on a busy machine one edit can be two reloads."""
        until(lambda: self.server.get() == (200, version.encode()), version)


@pytest.fixture
def site(start: Start, tmp_path: Path) -> Site:
    return Site(start, tmp_path / "site")


def watcher_of(server: Server) -> psutil.Process:
    (watcher,) = until(lambda: server.children("watcher"), "there is a watcher")
    assert isinstance(watcher, psutil.Process)
    return watcher


def test_an_edit_is_served(site: Site) -> None:
    assert site.server.get() == (200, b"one")
    for generation, version in enumerate(("second", "third time", "the fourth"), 2):
        site.change(version)
        site.server.wait_settled(generation)
        site.wait_served(version)
    changed = site.server.find("files changed")
    assert str(site.app) in changed[0]["files"]


def test_a_new_directory_is_seen_with_what_is_in_it_and_watched(site: Site) -> None:
    (site.app.parent / "empty").mkdir()
    package = site.app.parent / "package"
    package.mkdir()
    (package / "part.py").write_text("x = 1\n")
    site.server.wait_settled(2)
    with (package / "part.py").open("a") as file:
        file.write("y = 2\n")
    site.server.wait_settled(3)


def test_a_broken_edit_changes_nothing_until_it_is_mended(site: Site) -> None:
    site.server.expected_errors |= {"worker failed to boot", "reload failed"}
    site.change("second", "this is no Python\n")
    site.server.wait("reload failed", generation=2)
    assert site.server.get() == (200, b"one")
    site.change("third time")
    site.server.wait_settled(3)
    assert site.server.get() == (200, b"third time")


def test_compiled_modules_drafts_and_data_are_no_reason(site: Site) -> None:
    """What is written last is one: when it is served, all before has been looked at."""
    place = site.app.parent
    compiled = py_compile.compile(str(site.app), doraise=True)
    assert compiled is not None
    assert "__pycache__" in compiled
    (place / "__pycache__" / "leftover.py").write_text("")
    (place / ".git").mkdir()
    (place / ".git" / "hook.py").write_text("")
    (place / "data.json").write_text("{}")
    (place / ".changing.py.swp").write_text("")
    site.change("second")
    site.server.wait_settled(2)
    told = ", ".join(event["files"] for event in site.server.find("files changed"))
    assert told == str(site.app)
    assert len(site.server.find("reload started")) == 1


def test_a_directory_below_one_that_is_ignored_is_watched(start: Start, tmp_path: Path) -> None:
    place = tmp_path / "node_modules" / "site"
    place.mkdir(parents=True)
    site = Site(start, place)
    site.change("second")
    site.server.wait_settled(2)


def test_the_files_of_the_configuration_are_watched(start: Start, tmp_path: Path) -> None:
    """Where they are not among the application's, and when an editor replaces them."""
    place, config, env = tmp_path / "site", tmp_path / "conf" / "site.toml", tmp_path / "site.env"
    config.parent.mkdir()
    env.write_text("A=1\n")
    text = f'[server]\napp = "changing:app"\nchdir = "{place}"\nenv_file = "{env}"\n'
    config.write_text(text)
    site = Site(start, place, str(config))
    (config.parent / "other.toml").write_text("")
    draft = config.with_suffix(".draft")
    draft.write_text(text + "[http]\nkeepalive = 7\n")
    draft.rename(config)
    site.server.wait("generation settled", generation=2, changes=1)
    env.write_text("A=2\n")
    site.server.wait("generation settled", generation=3, changes=1)
    assert {event["files"] for event in site.server.find("files changed")} == {
        str(config),
        str(env),
    }


def test_it_follows_the_application_to_another_directory(start: Start, tmp_path: Path) -> None:
    place, config = tmp_path / "site", tmp_path / "site.toml"
    config.write_text(f'[server]\napp = "changing:app"\nchdir = "{place}"\n')
    site = Site(start, place, str(config))
    first = watcher_of(site.server)
    other = tmp_path / "other"
    shutil.copytree(place, other)
    config.write_text(f'[server]\napp = "changing:app"\nchdir = "{other}"\n')
    site.server.wait_settled(2)
    site.server.wait("watching", 2)
    site.app = other / "changing.py"
    site.change("second")
    site.server.wait_settled(3)
    assert site.server.get() == (200, b"second")
    until(lambda: not psutil.pid_exists(first.pid), "the first watcher is gone, and reaped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_watcher_goes_with_its_master(site: Site, number: signal.Signals) -> None:
    watcher = watcher_of(site.server)
    site.server.signal(number)
    status = site.server.process.wait(PATIENCE)
    assert status == (-number if number == signal.SIGKILL else 0)
    until(lambda: not alive(watcher.pid), "the watcher is gone")


def test_the_watcher_holds_none_of_the_servers_sockets(site: Site) -> None:
    watcher = watcher_of(site.server)
    held = set(links(watcher.pid).values())
    assert not {link for link in held if link.startswith("socket:")}
    (worker,) = site.server.workers()
    assert not set(links(worker.pid).values()) & {link for link in held if "pipe" in link} - {
        links(worker.pid)[2]
    }


def test_a_watcher_that_dies_is_reported_and_the_server_continues(site: Site) -> None:
    site.server.expected_errors.add("watcher ended")
    watcher = watcher_of(site.server)
    watcher.kill()
    site.server.wait("watcher ended")
    until(lambda: not psutil.pid_exists(watcher.pid), "it is reaped")
    site.change("second")
    site.server.ask("reload")
    site.server.wait_settled(2)
    assert site.server.get() == (200, b"second")


def test_without_watchfiles_it_does_not_start(tmp_path: Path) -> None:
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text("import sys\nsys.modules['watchfiles'] = None\n")
    control, path = tmp_path / "control.sock", tmp_path / "site.sock"
    options = ("--reload", "--bind", f"unix:{path}", "--set", f"control.path={control}")
    done = subprocess.run(
        prefork_command("serve", "tests.apps.version_app:app", *options),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{shim}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )
    assert done.returncode == 1
    assert done.stderr == "prefork: --reload needs watchfiles: pip install 'prefork[reload]'\n"
    assert not control.exists()
    assert not path.exists()


def test_a_watchfiles_that_cannot_be_imported_is_reported_and_the_server_continues(
    start: Start, tmp_path: Path
) -> None:
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "watchfiles.py").write_text("raise ImportError('built for another machine')\n")
    server = start(
        *("tests.apps.version_app:app", "--reload", "--workers", "1"),
        env={"PYTHONPATH": f"{shim}:{ROOT}"},
    ).wait_ready(1)
    server.expected_errors.add("watcher ended")
    told = server.wait("watcher ended")
    assert told["reason"] == "ImportError: built for another machine"
    assert server.get() == (200, b"one")
