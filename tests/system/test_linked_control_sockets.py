"""Servers with a control.path of their own are found and listed by their names."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.commands import run_prefork
from tests.support.server import Start

APP = "tests.apps.basic:app"


@pytest.fixture
def run(tmp_path: Path) -> dict[str, str]:
    """The environment of servers and commands: a directory for control sockets of their own."""
    place = tmp_path / "run"
    place.mkdir()
    return {"PREFORK_RUN_DIR": str(place), "XDG_RUNTIME_DIR": "", "TMPDIR": str(tmp_path)}


def test_a_server_with_a_control_path_is_listed_and_found(
    start: Start, run: dict[str, str]
) -> None:
    one = start(APP, "--workers", "1", "--set", "server.name=one", env=run).wait_ready(1)
    two = start(
        APP, "--workers", "1", "--set", "server.name=two", env=run, default_control=True
    ).wait_ready(1)
    listed = json.loads(run_prefork("status", "--json", env=run).stdout)
    assert {server["pid"] for server in listed} == {one.pid, two.pid}
    assert run_prefork("reload", "one", env=run).returncode == 0
    assert run_prefork("upgrade", one.addresses[0], env=run).returncode == 0
    assert run_prefork("stop", "one", env=run).returncode == 0
    assert set(os.listdir(run["PREFORK_RUN_DIR"])) == {"two.sock", "two.sock.lock"}


def test_a_link_takes_no_name_from_another_server(start: Start, run: dict[str, str]) -> None:
    name = ("--set", "server.name=same")
    default = start(APP, "--workers", "1", *name, env=run, default_control=True).wait_ready(1)
    other = start(APP, "--workers", "1", *name, env=run).wait_ready(1)
    found = json.loads(run_prefork("status", "same", "--json", env=run).stdout)
    assert found["pid"] == default.pid
    other.stop()
    default.stop()
    linked = start(APP, "--workers", "1", *name, env=run).wait_ready(1)
    second = start(APP, "--workers", "1", *name, env=run, default_control=True).wait_ready(1)
    found = json.loads(run_prefork("status", "same", "--json", env=run).stdout)
    assert found["pid"] == second.pid
    assert linked.status()["pid"] == linked.pid


def test_the_link_of_a_killed_server_is_stale_and_is_replaced(
    start: Start, run: dict[str, str]
) -> None:
    name = ("--set", "server.name=site")
    server = start(APP, "--workers", "1", *name, env=run).wait_ready(1)
    server.signal(signal.SIGKILL)
    server.process.wait()
    assert "no server of this user" in run_prefork("status", env=run).stderr
    again = start(APP, "--workers", "1", *name, env=run).wait_ready(1)
    assert json.loads(run_prefork("status", "--json", env=run).stdout)["pid"] == again.pid
