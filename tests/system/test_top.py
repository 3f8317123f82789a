"""`prefork top` in a terminal, as somebody at the keys sees it."""

import re
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pexpect
import pyte
import pytest

from tests.support.commands import ROOT
from tests.support.load import Gate
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE

HELD = "tests.apps.supervised:app"


class Screen:
    """A terminal of 80 columns with `prefork top` in it."""

    def __init__(self, server: Server, columns: int = 80, lines: int = 24) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.process = pexpect.spawn(
            sys.executable,
            ["-m", "prefork", "top", "--control", str(server.control)],
            cwd=str(ROOT),
            env={"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PATH": "/usr/bin:/bin"},
            dimensions=(lines, columns),
            timeout=PATIENCE,
        )
        self.before = termios.tcgetattr(self.process.child_fd)

    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display)

    def until(self, condition: Callable[[str], Any], what: str) -> str:
        """Reads until the screen fulfils that."""
        deadline = monotonic() + PATIENCE
        while not condition(self.text()):
            if monotonic() > deadline:
                raise AssertionError(f"never: {what}\n{self.text()}")
            try:
                self._read(0.2)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                raise AssertionError(f"it ended before: {what}\n{self.text()}") from None
        return self.text()

    def _read(self, seconds: float) -> None:
        # Bytes, since no encoding was given; the stubs know the other case alone.
        data: Any = self.process.read_nonblocking(65536, seconds)
        self.raw += data
        self._stream.feed(data)

    def shows(self, pattern: str) -> str:
        return self.until(lambda text: re.search(pattern, text, re.MULTILINE), pattern)

    def press(self, keys: str) -> None:
        self.process.send(keys)

    def ended(self) -> int:
        """Reads to the end; the exit status."""
        while True:
            try:
                self._read(PATIENCE)
            except pexpect.EOF:
                break
        self.process.wait()
        assert self.process.exitstatus is not None
        return self.process.exitstatus

    def assert_clean(self) -> None:
        """The screen before, the cursor and the settings are back."""
        assert self.raw.count(b"\x1b[?1049h") == self.raw.count(b"\x1b[?1049l") == 1
        assert self.raw.rindex(b"\x1b[?25h") > self.raw.rindex(b"\x1b[?25l")


@pytest.fixture
def opened() -> Iterator[list[Screen]]:
    screens: list[Screen] = []
    yield screens
    for screen in screens:
        screen.process.close(force=True)


def test_it_shows_the_workers_and_obeys_the_keys(
    start: Start, opened: list[Screen], tmp_path: Path
) -> None:
    server = start(HELD, "--workers", "2", "--set", "server.name=shop").wait_ready(2)
    gate = Gate(tmp_path / "gate")
    with server.connect() as client:
        client.sendall(f"GET {gate.target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        gate.arrived()
        screen = Screen(server)
        opened.append(screen)
        text = screen.shows(r"GET /hold")
        assert re.search(r"^shop  prefork \S+  pid \d+  generation 1  up ", text)
        assert "2 of 2 workers: 1 busy 1 idle" in text
        assert re.search(rf"queue {re.escape(server.addresses[0])}  0 of \d+", text)
        (busy,) = (line for line in text.splitlines() if "GET /hold" in line)
        slot, pid, generation, state = busy.split()[:4]
        assert (generation, state) == ("1", "busy")
        assert int(pid) in {worker.pid for worker in server.workers()}

        screen.press("s")
        text = screen.shows(r"sort \(time\)")
        rows = [line.split() for line in text.splitlines() if re.match(r"\s+\d+\s+\d+\s", line)]
        assert next(row[0] for row in rows) == slot
        screen.press("\x1b[A\x1b[A\r")  # the first row, whatever was chosen before
        text = screen.shows(r"in hold$")
        assert f"slot {slot}, its threads" in text
        screen.press("\r")
        screen.until(lambda text: "its threads" not in text, "the stack is gone")
        gate.open()
        assert client.recv(15) == b"HTTP/1.1 200 OK"

    screen.press("+")
    screen.shows("3 of 3 workers: .*3 idle")
    screen.press("-")
    screen.shows("2 of 2 workers: 2 idle")
    before = {worker.pid for worker in server.workers()}
    screen.press("x")
    screen.shows(r"replace the worker in slot \d+ by a new one\? \(y/n\)")
    screen.press("n")
    screen.shows("q quit")
    screen.press("xy")
    screen.shows("is retired once another is ready")
    server.wait("worker to be recycled", reason="by hand")
    server.wait("worker exited", 2)
    screen.shows("2 of 2 workers: 2 idle")
    assert len({worker.pid for worker in server.workers()} & before) == 1

    screen.press("q")
    assert screen.ended() == 0
    screen.assert_clean()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_terminal_clean(
    start: Start, opened: list[Screen], number: signal.Signals
) -> None:
    server = start(HELD, "--workers", "1").wait_ready(1)
    screen = Screen(server)
    opened.append(screen)
    screen.shows("q quit")
    assert not termios.tcgetattr(screen.process.child_fd)[3] & termios.ECHO
    screen.process.kill(number)
    assert screen.ended() == 0
    screen.assert_clean()


def test_the_end_of_the_server_is_shown(start: Start, opened: list[Screen]) -> None:
    server = start(HELD, "--workers", "1").wait_ready(1)
    screen = Screen(server)
    opened.append(screen)
    screen.shows("q quit")
    server.stop()
    assert screen.ended() == 1
    screen.assert_clean()
    assert b"Error: " in screen.raw.rpartition(b"\x1b[?1049l")[2]


def test_a_picture_and_a_place_without_a_terminal(start: Start, tmp_path: Path) -> None:
    server = start(HELD, "--workers", "1").wait_ready(1)
    server.command("top", "--svg", str(tmp_path / "top.svg"))
    picture = (tmp_path / "top.svg").read_text()
    assert picture.startswith("<svg")
    assert "idle" in picture
    refused = server.command("top", check=False)
    assert refused.returncode == 2
    assert "needs a terminal" in refused.stderr
