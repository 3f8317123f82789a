"""[process] landlock, seccomp, dumpable: workers try what they may not."""

import json
import os
import signal
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from prefork import landlock, seccomp
from tests.support.commands import ROOT, run_prefork
from tests.support.passable import passable
from tests.support.server import Server, Start
from tests.support.waiting import until

APP = "tests.apps.sandboxed:app"
PRELOAD = pytest.mark.parametrize("preload", ["false", "true"])
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_landlock = pytest.mark.skipif(
    landlock.version() < landlock.FILES, reason=f"Landlock has version {landlock.version()} here"
)
needs_seccomp = pytest.mark.skipif(not seccomp.is_supported(), reason="no seccomp filter here")

LANDLOCK = ("--set", "process.landlock=require")
SECCOMP = ("--set", "process.seccomp=require")

REFUSED = {
    **dict.fromkeys(("ptrace", "bpf", "keyctl", "unshare", "perf_event_open"), "EPERM"),
    "io_uring_setup": "EPERM",
    "TIOCSTI": "EPERM",
    "clone3": "ENOSYS",
    "getppid": "",
}
"""System calls, and the error with which each fails."""

CLOSED = {
    **dict.fromkeys(("make", "truncate", "remove", "rename", "program", "process"), "EACCES"),
    "inside": "",
    "temporary": "",
    "null": "",
    "signal": "EPERM",
}
"""What is done to files, and to processes, and the error with which it fails."""

if landlock.version() < 6:
    del CLOSED["signal"]


class Place:
    """A directory that may be written, one that may not, and one for temporary files."""

    def __init__(self, path: Path) -> None:
        path.chmod(0o755)
        self.inside, self.outside, self.temporary = (
            path / name for name in ("inside", "outside", "temporary")
        )
        for each in (self.inside, self.outside, self.temporary):
            each.mkdir()
            each.chmod(0o777)
        (self.outside / "old").write_text("old")
        (self.outside / "old").chmod(0o666)

    def options(self) -> tuple[str, ...]:
        env = json.dumps({"DENIED": str(self.outside), "TMPDIR": str(self.temporary)})
        return (
            *("--set", f'process.writable=["{self.inside}"]'),
            *("--set", f"server.env={env}".replace('":', '" =')),
        )

    @property
    def is_untouched(self) -> bool:
        [left] = self.outside.iterdir()
        return left.name == "old" and left.read_text() == "old"


@pytest.fixture
def place() -> Iterator[Place]:
    """Not below pytest's directory, which other users cannot enter."""
    with tempfile.TemporaryDirectory() as path:
        yield Place(Path(path))


def told(server: Server, **query: object) -> dict[str, Any]:
    status, body = server.get(f"/?{urllib.parse.urlencode(query)}")
    assert status == 200, body
    answer: dict[str, Any] = json.loads(body)
    return answer


def attempted(server: Server, place: Place) -> dict[str, Any]:
    """What came of all that a worker tried, against the master, too."""
    return told(server, allowed=place.inside, denied=place.outside, pid=server.pid)


def only(names: Iterable[str], found: dict[str, str]) -> dict[str, str | None]:
    return {name: found.get(name) for name in names}


@needs_landlock
@needs_seccomp
@PRELOAD
def test_workers_of_each_kind_are_confined(start: Start, place: Place, preload: str) -> None:
    """Those of the first start, of a respawn, of a reload and of an upgrade."""
    server = start(
        *(APP, "--workers", "2", "--set", f"workers.preload={preload}", *LANDLOCK, *SECCOMP),
        *place.options(),
    ).wait_ready(2)
    server.expected_errors = {"worker died"}
    expected = CLOSED | REFUSED

    def all_hold() -> None:
        answer = attempted(server, place)
        assert only(expected, answer["now"]) == expected
        del answer["imported"]["signal"]  # under preload the parent is another then
        imported = {name: expected[name] for name in answer["imported"]}
        assert answer["imported"] == imported
        assert {"make", "ptrace"} < answer["imported"].keys()
        # No thread is left out: an attacker could go on in that.
        assert answer["names"] > 1
        assert answer["threads"]["NoNewPrivs"] == ["1"]
        assert answer["threads"]["Seccomp"] == ["2"]
        assert place.is_untouched

    all_hold()
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    server.wait("worker ready", 4)
    all_hold()
    server.ask("reload")
    all_hold()
    server.ask("upgrade")
    all_hold()
    shown = server.command("status").stdout
    assert f"sandbox: no_new_privs, landlock {landlock.version()}, seccomp" in shown
    # Bodies beyond body_memory go to a temporary file.
    connection = server.http()
    connection.request("POST", "/", bytes(200_000))
    assert json.loads(connection.getresponse().read())["size"] == 200_000
    connection.close()
    assert "most recent call first" in server.command("status", "--stack", "0").stdout


@needs_landlock
@PRELOAD
def test_workers_cannot_signal_each_other(start: Start, preload: str) -> None:
    if "signal" not in CLOSED:
        pytest.skip("this kernel's Landlock knows no signals")
    options = (APP, "--workers", "2", "--set", f"workers.preload={preload}")
    server = start(*options, *LANDLOCK).wait_ready(2)
    for _ in range(4):
        for pid in server.worker_pids():
            answer = told(server, pid=pid)
            own = answer["pid"] == pid
            assert answer["now"]["signal"] == ("" if own else "EPERM")
    open_one = start(*options).wait_ready(2)
    assert {told(open_one, pid=pid)["now"]["signal"] for pid in open_one.worker_pids()} == {""}


@needs_root
@needs_landlock
@needs_seccomp
@PRELOAD
def test_a_user_and_a_sandbox(start: Start, place: Place, preload: str) -> None:
    """The logs, opened by the master, are written all the same, and opened anew."""
    access = place.outside / "access.log"
    server = start(
        *(APP, "--workers", "1", "--set", f"workers.preload={preload}", *LANDLOCK, *SECCOMP),
        *("--set", "process.user=nobody", "--set", f"log.access={access}"),
        *("--set", "process.dumpable=false", *place.options()),
        wrapper=passable(),
    ).wait_ready(1)
    answer = attempted(server, place)
    assert only(CLOSED | REFUSED, answer["now"]) == CLOSED | REFUSED
    assert answer["threads"]["CapEff"] == ["0" * 16]
    until(lambda: "GET /" in access.read_text(), "the access log")
    access.unlink()
    server.ask("reopen")

    # The worker may not have heard of it when it takes the first of them.
    def logged_in_the_new_file() -> bool:
        told(server)
        return "GET /" in access.read_text()

    until(logged_in_the_new_file, "the new access log")
    shown = server.command("status").stdout
    assert "sandbox: user nobody, no_new_privs, not dumpable, landlock" in shown
    assert psutil.Process(server.worker_pids()[0]).memory_info().rss


@PRELOAD
def test_without_a_sandbox_only_new_privileges_are_refused(
    start: Start, place: Place, preload: str
) -> None:
    """Of all threads: prctl(2) binds only the one that calls it, and those that it starts."""
    server = start(APP, "--workers", "1", "--set", f"workers.preload={preload}").wait_ready(1)
    answer = attempted(server, place)
    assert answer["names"] > 1
    assert answer["threads"]["NoNewPrivs"] == ["1"]
    assert answer["threads"]["Seccomp"] == ["0"]
    assert not {"EPERM", "EACCES"} & {answer["now"]["inside"], answer["now"]["signal"]}
    assert "sandbox" not in server.command("status").stdout


@needs_seccomp
def test_a_refused_call_can_be_allowed(start: Start) -> None:
    server = start(
        *(APP, "--workers", "1", *SECCOMP),
        *("--set", 'process.seccomp_allow=["unshare", "ptrace"]'),
    ).wait_ready(1)
    now = told(server, pid=1)["now"]
    assert now["unshare"] == "EINVAL"
    assert now["ptrace"] != "EPERM"
    assert now["clone3"] not in ("EPERM", "ENOSYS")
    assert now["bpf"] == "EPERM"


@needs_root
@pytest.mark.parametrize("dumpable", ["true", "false"])
def test_a_worker_is_dumpable_or_not(start: Start, dumpable: str) -> None:
    server = start(
        *(APP, "--workers", "1", "--set", f"process.dumpable={dumpable}"),
        *("--set", "process.user=nobody"),
        wrapper=passable(),
    ).wait_ready(1)
    [pid] = server.worker_pids()
    owner = Path(f"/proc/{pid}/environ").stat().st_uid
    assert (owner != 0) == (dumpable == "true")
    assert "most recent call first" in server.command("status", "--stack", "0").stdout


OLD_KERNEL = """
import errno
from prefork import linux
def system_call(number, *arguments):
    raise OSError(errno.ENOSYS, "Function not implemented")
linux.system_call = system_call
"""
"""A sitecustomize for a kernel that has neither Landlock nor seccomp."""


@pytest.fixture
def old_kernel(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(OLD_KERNEL)
    return {"PYTHONPATH": f"{tmp_path}:{ROOT}"}


@PRELOAD
def test_what_the_kernel_lacks_is_logged_and_shown(
    start: Start, old_kernel: dict[str, str], preload: str
) -> None:
    best = ("--set", "process.landlock=best-effort", "--set", "process.seccomp=best-effort")
    server = start(
        *(APP, "--workers", "2", "--set", f"workers.preload={preload}", *best), env=old_kernel
    ).wait_ready(2)
    for generation in (1, 2, 3):
        for key in ("process.landlock", "process.seccomp"):
            assert server.wait("sandbox incomplete", generation, key=key)["reason"]
        assert told(server, pid=server.pid)["now"]["unshare"] == "EINVAL"
        if generation < 3:
            server.ask("reload")
    assert len(server.find("sandbox incomplete")) == 6
    assert server.status()["sandbox"] == ["no_new_privs"]


@pytest.mark.parametrize("key", ["landlock", "seccomp"])
def test_a_required_sandbox_that_is_not_there_is_an_error(
    old_kernel: dict[str, str], tmp_path: Path, key: str
) -> None:
    site = tmp_path / "site.toml"
    site.write_text(f"""
[server]
app = "{APP}"
pythonpath = ["{ROOT}"]
[process]
{key} = "require"
""")
    for command in ("check", "serve"):
        failed = run_prefork(command, site, env=old_kernel)
        assert failed.returncode == 1
        assert f"site.toml: process.{key}: " in failed.stdout + failed.stderr
        assert 'set it to "best-effort" to serve without it' in failed.stdout + failed.stderr
    site.write_text(site.read_text().replace("require", "best-effort"))
    checked = run_prefork("check", site, "--show", env=old_kernel)
    assert checked.returncode == 0
    assert f"warning: process.{key}: " in checked.stderr
    assert f'process.{key} = "best-effort"' in checked.stdout


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("process.landlock=require", "process.no_new_privs=false"), "needs process.no_new_privs"),
        (("process.seccomp=require", "process.no_new_privs=false"), "needs process.no_new_privs"),
        (('process.writable=["/tmp"]',), "has no effect without process.landlock"),
        (('process.seccomp_allow=["bpf"]',), "has no effect without process.seccomp"),
        (
            ("process.landlock=require", 'process.writable=["/nowhere"]'),
            'process.writable: "/nowhere": no such file or directory; make it first',
        ),
        (
            ("process.seccomp=require", 'process.seccomp_allow=["ptrac"]'),
            '"ptrac" is not among the calls that are refused; did you mean ptrace?',
        ),
        (("process.landlock=yes",), 'expected "off", "best-effort" or "require", got "yes"'),
    ],
)
def test_mistakes_are_named_before_the_start(options: tuple[str, ...], problem: str) -> None:
    sets = [part for option in options for part in ("--set", option)]
    failed = run_prefork("serve", APP, "--bind", "127.0.0.1:0", *sets)
    assert failed.returncode == 1
    assert problem in failed.stderr
    assert "Traceback" not in failed.stderr
