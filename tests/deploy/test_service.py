"""What systemd is told, and its units, checked by its own programs."""

import fcntl
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from tests.support.commands import ROOT, prefork_command
from tests.support.load import Gate
from tests.support.processes import stopped
from tests.support.server import Start
from tests.support.sockets import accepts
from tests.support.waiting import PATIENCE, until

UNITS = ROOT / "deploy" / "systemd"
WATCHDOG = 0.2

APP = """
import fcntl, os
from urllib.parse import parse_qs

with open(__file__) as here:
    fcntl.flock(here, fcntl.LOCK_SH)  # loaded no sooner than the test lets it

def app(environ, start_response):
    if environ["PATH_INFO"] == "/hold":
        open(parse_qs(environ["QUERY_STRING"])["fifo"][0]).read()
    start_response("200 OK", [])
    return [" ".join({"NOTIFY_SOCKET", "WATCHDOG_USEC"} & os.environ.keys()).encode()]
"""


class Manager:
    """A service manager, as far as a service speaks to it: its notify socket.

    A thread reads it, as systemd does at any time: its queue holds 10 datagrams only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.watchdogs = 0
        self.extensions = 0
        self.said: list[dict[str, str]] = []
        self.came = 0
        """Datagrams that have come, read by `next` or not."""
        self._marks = 0
        self._states: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while (data := self._sock.recv(65536)) != b"end":
            if data == b"mark":
                self._marks += 1
                continue
            self.came += 1
            self._states.put(dict(line.split("=", 1) for line in data.decode().split("\n")))

    def next(self) -> dict[str, str]:
        """The next datagram, as a table."""
        state = self._states.get(timeout=PATIENCE)
        self.watchdogs += "WATCHDOG" in state
        self.extensions += "EXTEND_TIMEOUT_USEC" in state
        self.said.append(state)
        return state

    def until(self, name: str) -> dict[str, str]:
        """The next state of that name; any other that says more than how it goes is wrong."""
        while True:
            state = self.next()
            if name in state:
                return state
            assert state.keys() <= {"STATUS", "WATCHDOG", "EXTEND_TIMEOUT_USEC"}, self.said

    def environ(self) -> dict[str, str]:
        return {
            "NOTIFY_SOCKET": str(self.path),
            "WATCHDOG_USEC": str(int(WATCHDOG * 1e6)),
        }

    def read_so_far(self) -> int:
        """How many datagrams have come, when all that were sent before now are read."""
        marks = self._marks
        self._send(b"mark")
        until(lambda: self._marks > marks, "the mark is read")
        return self.came

    def _send(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(data, str(self.path))

    def close(self) -> None:
        self._send(b"end")
        self._reader.join(PATIENCE)
        self._sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_the_order_of_notifications(start: Start, tmp_path: Path, manager: Manager) -> None:
    (tmp_path / "told.py").write_text(APP)
    config = tmp_path / "site.toml"
    config.write_text('[server]\napp = "told:app"\n[workers]\ncount = 2\n')
    with open(tmp_path / "told.py") as application:
        fcntl.flock(application, fcntl.LOCK_EX)
        server = start(str(config), env=manager.environ())
        while not manager.extensions:  # a start that takes long is given its time
            assert "READY" not in manager.next()
    ready = manager.until("READY")
    server.wait_ready(2)  # its log may be read a little later
    assert re.fullmatch(
        r"generation 1, 2 of 2 workers ready, 0 busy, \S+ requests/s", ready["STATUS"]
    )
    assert server.get("/") == (200, b"")  # no application thinks that all this is meant for it

    # A reload; one that fails at once; one whose application fails, and an upgrade to that; an
    # upgrade.
    before = int(monotonic() * 1e6)
    server.ask("reload")
    reloading = manager.until("RELOADING")
    assert before <= int(reloading["MONOTONIC_USEC"]) <= monotonic() * 1e6
    assert manager.until("READY")["STATUS"].startswith("generation 2, ")
    text = config.read_text()
    unreadable, broken = "[server]\nap = 1\n", text.replace("told:app", "tests.apps.broken:app")
    for wrong, command in ((unreadable, "reload"), (broken, "reload"), (broken, "upgrade")):
        config.write_text(wrong)
        server.refusal(command)
        manager.until("RELOADING")
        assert manager.until("READY")["STATUS"].startswith("generation 2, ")
    server.expected_errors |= {"reload failed", "upgrade failed"}
    config.write_text(text)
    server.ask("upgrade")
    manager.until("RELOADING")
    manager.until("READY")

    # The watchdog is fed, also by the new code, and not by a master that stands still.
    fed = manager.watchdogs
    while manager.watchdogs < fed + 3:
        manager.next()
    server.signal(signal.SIGSTOP)
    until(lambda: stopped(server.pid), "the master stands still")
    before = manager.read_so_far()
    threading.Event().wait(WATCHDOG * 3)
    assert manager.read_so_far() == before
    server.signal(signal.SIGCONT)
    while manager.watchdogs < fed + 6:
        manager.next()

    # A stop waits for a request in flight, and asks for time.
    extended = manager.extensions
    gate = Gate(tmp_path / "gate")
    with server.connect() as client:
        client.sendall(f"GET {gate.target} HTTP/1.0\r\n\r\n".encode())
        gate.arrived()
        server.signal(signal.SIGTERM)
        stopping = manager.until("STOPPING")["STATUS"]
        assert re.fullmatch(r"stopping: .* 1 busy, .*", stopping)
        while manager.extensions == extended:
            manager.next()
        gate.open()
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    assert server.wait_exit() == 0


def test_a_first_boot_that_fails_is_no_success(start: Start, manager: Manager) -> None:
    server = start("tests.apps.broken:app", "--workers", "1", env=manager.environ())
    while "first boot failed" not in manager.next().get("STATUS", ""):
        pass
    assert manager.said[-1]["STATUS"].endswith(
        "RuntimeError: this application is broken on purpose"
    )
    assert server.wait_exit() == 3
    server.expected_errors.add("first boot failed")
    assert not any("READY" in state for state in manager.said)


# The units.

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as they are once prefork is installed in /opt/prefork: verify looks for it."""
    directory = tmp_path / "system"
    directory.mkdir()
    program = tmp_path / "prefork"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ("service", "socket"):
        text = (UNITS / f"prefork@.{name}").read_text()
        text = text.replace("/opt/prefork/bin/prefork", str(program))
        (directory / f"prefork@.{name}").write_text(text)
        (directory / f"prefork@site.{name}").symlink_to(f"prefork@.{name}")
    return directory


def analyze(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *args], capture_output=True, text=True, timeout=PATIENCE
    )


@needs_systemd
def test_the_units_are_right(units: Path) -> None:
    for name in ("prefork@site.service", "prefork@site.socket"):
        done = analyze("--man=no", "verify", str(units / name))
        assert done.returncode == 0, done.stderr
        mine = [line for line in done.stderr.splitlines() if "prefork" in line]
        assert not mine


@needs_systemd
def test_the_service_is_hardened(units: Path) -> None:
    done = analyze(
        "security", "--offline=yes", "--threshold=29", str(units / "prefork@site.service")
    )
    assert done.returncode == 0, done.stdout[-400:]


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="systemd is not installed"
)
def test_a_socket_of_systemd(tmp_path: Path) -> None:
    path = tmp_path / "s"
    control = tmp_path / "c"
    with subprocess.Popen(
        [
            *("systemd-socket-activate", "-l", path, "--fdname=http"),
            *("-E", f"PYTHONPATH={ROOT}", "-E", f"PATH={os.environ['PATH']}"),
            *prefork_command("serve", "tests.apps.basic:app"),
            *("--bind", "systemd:http", "--workers", "1", "--set", f"control.path={control}"),
        ],
        cwd=ROOT,
    ) as server:
        try:
            until(lambda: accepts(path), "systemd's socket")  # its connection starts the server
            for _ in range(2):  # the first request waits for it
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(PATIENCE)
                    sock.connect(str(path))
                    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    assert sock.recv(65536).startswith(b"HTTP/1.1 200")
            server.terminate()
            assert server.wait(PATIENCE) == 0
            assert path.exists()  # it is systemd's
        finally:
            server.kill()
