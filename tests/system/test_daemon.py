"""A server without its shell: detached, with a pidfile, limits and CPUs of its own, and syslog."""

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.support.commands import ROOT, prefork_command, run_prefork
from tests.support.processes import alive, links
from tests.support.server import Start
from tests.support.waiting import PATIENCE, until

BASIC = "tests.apps.basic:app"


class Daemon:
    """The servers that one configuration starts, and that nobody is the parent of."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.log = tmp / "error.log"
        self.pidfile = tmp / "site.pid"
        self.write()

    def write(self, app: str = BASIC, pidfile: str = "site.pid", process: str = "") -> None:
        (self.tmp / "site.toml").write_text(
            f'[server]\napp = "{app}"\nchdir = "{ROOT}"\nbind = "unix:s"\n[workers]\ncount = 2\n'
            f'[log]\nerror = "error.log"\n[control]\npath = "c"\n'
            f'[process]\ndaemon = true\npidfile = "{pidfile}"\n{process}\n'
        )

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return run_prefork(*args, cwd=self.tmp)

    def serve(self) -> subprocess.CompletedProcess[str]:
        return self.run("serve", "site.toml")

    @property
    def pid(self) -> int:
        return int(self.pidfile.read_text())

    def get(self) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self.tmp / "s"))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    pids = []
    yield daemon
    for file in tmp_path.glob("*.pid"):
        with contextlib.suppress(ValueError):
            pids.append(int(file.read_text()))
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            master = psutil.Process(pid)
            for process in (*master.children(recursive=True), master):
                process.kill()
    print(daemon.log.read_text() if daemon.log.exists() else "no log")


def test_the_life_of_a_daemon(daemon: Daemon) -> None:
    started = daemon.serve()
    pid = daemon.pid
    assert (started.returncode, started.stdout, started.stderr) == (0, f"started: pid {pid}\n", "")
    assert daemon.get().startswith(b"HTTP/1.1 200")  # it serves when the shell hears of it
    assert os.getsid(pid) != os.getsid(0)
    assert os.getsid(pid) != pid  # and is not the leader, who could get a terminal
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert [links(pid)[fd] for fd in range(3)] == ["/dev/null", *[str(daemon.log)] * 2]

    second = daemon.serve()
    assert second.returncode == 1
    assert f"site.pid is locked by process {pid}, a running server" in second.stderr
    assert daemon.pid == pid

    assert daemon.run("reload", "--control", "c").returncode == 0
    assert daemon.run("upgrade", "--control", "c").returncode == 0
    assert daemon.pid == pid
    assert daemon.serve().returncode == 1  # the lock is still held
    assert os.readlink(f"/proc/{pid}/cwd") == "/"

    daemon.write(pidfile="other.pid")
    assert daemon.run("reload", "--control", "c").returncode == 0
    assert not daemon.pidfile.exists()
    assert int((daemon.tmp / "other.pid").read_text()) == pid

    daemon.write(app="tests.apps.broken:app", pidfile="third.pid")
    assert daemon.run("reload", "--control", "c").returncode == 1
    assert not (daemon.tmp / "third.pid").exists()
    assert daemon.run("stop", "--control", "c").returncode == 0
    assert not (daemon.tmp / "other.pid").exists()
    assert not alive(pid)


def test_what_it_prints_is_in_its_log_also_after_a_rotation(daemon: Daemon) -> None:
    (daemon.tmp / "talker.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n"
        "    os.write(1, b'this was printed\\n')\n"
        "    start_response('200 OK', [])\n"
        "    return [b'']\n"
    )
    daemon.write(app="talker:app")
    text = (daemon.tmp / "site.toml").read_text().replace(str(ROOT), str(daemon.tmp))
    (daemon.tmp / "site.toml").write_text(text)
    assert daemon.serve().returncode == 0
    daemon.get()
    assert "this was printed\n" in daemon.log.read_text()
    daemon.log.rename(daemon.tmp / "error.log.1")
    assert daemon.run("reopen", "--control", "c").returncode == 0
    workers = [child.pid for child in psutil.Process(daemon.pid).children()]
    for pid in (daemon.pid, *workers):
        until(partial(writes_to, pid, str(daemon.log)), "the new file")
    daemon.get()
    assert "this was printed\n" in daemon.log.read_text()
    assert daemon.run("stop", "--control", "c").returncode == 0


def test_a_start_that_fails_is_reported_to_the_shell(daemon: Daemon) -> None:
    daemon.write(app="tests.apps.broken:app")
    failed = daemon.serve()
    assert (failed.returncode, failed.stdout) == (3, "")
    assert "RuntimeError: this application is broken on purpose" in failed.stderr
    assert not (daemon.tmp / "s").exists(), "what it listened on is free by then"
    daemon.write(process="limits = { nofiles = 3 }")
    failed = daemon.serve()
    assert failed.returncode == 1
    assert 'unknown limit "nofiles"; did you mean nofile?' in failed.stderr
    (daemon.tmp / "s").write_text("no socket")
    daemon.write()
    failed = daemon.serve()
    assert failed.returncode == 1
    assert "a file of this name exists and is not a socket" in failed.stderr
    assert list(daemon.tmp.glob("*.pid")) == []


def test_a_daemon_that_is_killed_at_its_start_has_failed(daemon: Daemon) -> None:
    daemon.write(app="tests.apps.hang:app")
    with subprocess.Popen(
        prefork_command("serve", "site.toml"),
        cwd=daemon.tmp,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    ) as shell:
        until(lambda: daemon.pidfile.exists() and daemon.pidfile.read_text(), "the pidfile")
        os.kill(daemon.pid, signal.SIGKILL)
        assert shell.stderr is not None
        assert b"ended before it was ready" in shell.stderr.read()
        assert shell.wait(PATIENCE) == 1
    assert daemon.pidfile.exists()  # left behind by the kill, and no obstacle:
    daemon.write()
    assert daemon.serve().returncode == 0


def test_what_workers_may_use(start: Start) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    server = start(
        BASIC,
        *("--workers", "2", "--set", "process.limits={ nofile = 300, core = 0 }"),
        *("--set", "workers.preload=true"),
        *("--set", 'process.cpu_affinity="auto"'),
    ).wait_ready(2)
    for slot, worker in enumerate(server.workers()):
        assert worker.cpu_affinity() == [cpus[slot % len(cpus)]]
        assert worker.rlimit(psutil.RLIMIT_NOFILE) == (300, 300)
        assert worker.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert psutil.Process(server.pid).cpu_affinity() == cpus
    assert psutil.Process(server.pid).rlimit(psutil.RLIMIT_NOFILE) != (300, 300)


def writes_to(pid: int, path: str) -> bool:
    return links(pid)[1] == path


def test_syslog_gets_each_line_with_its_level(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "syslog"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslogd:
        syslogd.bind(str(path))
        syslogd.settimeout(PATIENCE)
        server = start(
            "tests.apps.broken:app",
            *("--workers", "1", "--set", f"log.error=syslog:{path}"),
            default_format=True,
        )
        said: list[str] = []
        while not said or " stopped " not in said[-1]:
            said.append(syslogd.recv(65536).decode())
        assert server.wait_exit() == 3
    form = re.compile(r"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d prefork\[(\d+)\]: (.*)")
    found = [form.fullmatch(line) for line in said]
    assert all(found), said
    levels = {match[3]: int(match[1]) for match in found if match}
    daemon, error, info = 3 << 3, 3, 6
    assert [level for text, level in levels.items() if "[error] first boot" in text] == [
        daemon | error
    ]
    assert [level for text, level in levels.items() if "RuntimeError: this app" in text] == [
        daemon | error
    ]
    assert [level for text, level in levels.items() if "listening" in text] == [daemon | info]
