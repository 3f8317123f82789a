"""[process] user, group, no_new_privs and umask: what workers may do, and the master."""

import json
import os
import pwd
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.certificates import Authority, talk_tls
from tests.support.passable import passable
from tests.support.raw_http import request
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE, until

APP = "tests.apps.rights:app"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = pwd.getpwnam("nobody")


def told(server: Server) -> dict[str, Any]:
    status, body = server.get("/")
    assert status == 200
    answer: dict[str, Any] = json.loads(body)
    return answer


@needs_root
@pytest.mark.parametrize("preload", ["false", "true"])
def test_workers_drop_to_the_user_before_the_import(
    start: Start, tmp_path: Path, preload: str
) -> None:
    """The master's groups are gone; key and logs are opened by the master alone."""
    authority = Authority(tmp_path / "authority")
    certificate = authority.issue("site.pem", "localhost")
    certificate.chmod(0o600)
    access, before = tmp_path / "access.log", tmp_path / "access.log.1"
    server = start(
        *(APP, "--workers", "2", "--set", f"workers.preload={preload}"),
        *("--set", "process.user=nobody", "--set", "process.umask=0027"),
        *("--set", f"tls.certificate={certificate}", "--set", f"log.access={access}"),
        wrapper=(*passable(), "setpriv", "--groups=0,4242"),
    ).wait_ready(2)
    with talk_tls(server, authority.client()) as client:
        answer = json.loads(client.ask(request()).body)
    expected = {
        "users": [NOBODY.pw_uid] * 3,
        "groups": [NOBODY.pw_gid] * 4,
        "capabilities": [0, 0, 0],
        "no_new_privs": True,
        "umask": 0o027,
        "home": NOBODY.pw_dir,
        "name": "nobody",
    }
    assert answer == {"imported": expected, "now": expected}
    master = psutil.Process(server.pid)
    assert master.uids().real == 0
    [log_process] = until(lambda: server.children("logs"), "it has its title")
    others = [child.uids() for child in master.children(recursive=True) if child != log_process]
    assert log_process.uids().real == 0  # it has the files, and runs no code of the application
    assert len(others) == (3 if preload == "true" else 2)
    assert {uid for uids in others for uid in uids} == {NOBODY.pw_uid}

    # They go on in new log files, and in a new generation.
    until(lambda: "GET / " in access.read_text(), "the request in the access log")
    access.rename(before)
    server.ask("reopen")
    server.ask("reload")
    with talk_tls(server, authority.client()) as client:
        assert json.loads(client.ask(request()).body)["now"] == expected
    until(lambda: "GET / " in access.read_text(), "the request in the new access log")

    # And they do not outlive the master, though the change of users has cleared the signal for it.
    left = master.children(recursive=True)
    server.signal(signal.SIGKILL)
    psutil.wait_procs(left, PATIENCE)
    assert not [each for each in left if each.is_running() and each.status() != "zombie"]
    server.process.wait()


@needs_root
def test_a_group_alone_and_rights_that_stay(start: Start) -> None:
    server = start(
        *(APP, "--workers", "1", "--set", "process.group=4243"),
        *("--set", "process.no_new_privs=false", "--set", 'server.env={ HOME = "/own" }'),
        wrapper=("setpriv", "--groups=0,4242"),
    ).wait_ready(1)
    now = told(server)["now"]
    assert now["users"] == [0, 0, 0]
    assert now["groups"] == [4243] * 4
    assert now["no_new_privs"] is False
    assert now["home"] == "/own"


@needs_root
def test_a_directory_that_the_user_may_not_enter(start: Start, tmp_path: Path) -> None:
    place = tmp_path / "closed"
    place.mkdir(mode=0o700)
    server = start(
        *(APP, "--set", "process.user=nobody", "--set", f"server.chdir={place}"),
        wrapper=passable(),
    )
    assert server.wait_exit() == 3
    assert f"server.chdir: {place}: Permission denied" in server.log()
    server.expected_errors = {"first boot failed"}


def test_without_a_user_nothing_changes_but_what_is_gained(prefork_server: Server) -> None:
    [worker, *_] = prefork_server.workers()
    status = Path(f"/proc/{worker.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert worker.uids() == psutil.Process().uids()
    assert "NoNewPrivs:\t0" in Path(f"/proc/{prefork_server.pid}/status").read_text()
