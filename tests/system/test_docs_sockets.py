"""docs/sockets.md is run: every command on the page, in its order, and what it prints is compared.

    PREFORK_WRITE_DOCS=1 python -m pytest tests/system/test_docs_sockets.py

writes the transcripts anew instead.  On the page a server listens on port 18000 and nobody on
18001; here the kernel chooses both, of as many digits, since a request's length depends on them.
"""

import contextlib
import importlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from bench import threads_and_processes
from prefork.wire.capture import Capture, CaptureError
from tests.support.commands import ROOT
from tests.support.server import Server
from tests.support.sockets import closed_port
from tests.support.waiting import PATIENCE

PAGE = ROOT / "docs" / "sockets.md"
PORT, CLOSED = "18000", "18001"

ATTEMPTS = 25
"""On a busy machine an acknowledgement may come before what it usually travels with. What is
wrong on the page is wrong each time."""

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def normal(text: str) -> str:
    """Without what differs from run to run: times, client ports, descriptors, the machine's TCP."""
    for pattern, put in (
        (r" +[\d.]+ (us|ms|s)\b", " TIME"),
        (r"\[[\d.]+ (us|ms|s)\]", "[TIME]"),
        (rf"(127\.0\.0\.\d):(?!{PORT}|{CLOSED})\d+", r"\1:CLIENT"),
        (r"^(\w+)\(\d+, ", r"\1(FD, "),
        (r"^close\(\d+\)", "close(FD)"),
        (r"^(socket\(.*\)) = \d+", r"\1 = FD"),
        (r"(MSS|window scale) \d+", r"\1 N"),
    ):
        text = re.sub(pattern, put, text, flags=re.MULTILINE)
    return text


class Terminal:
    """A shell in which `prefork` is the one under test, and the ports are those of this run."""

    def __init__(self, place: Path, port: int) -> None:
        self.place = place
        self.ports = {PORT: str(port), CLOSED: str(closed_port())}
        script = place / "bin" / "prefork"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m prefork "$@"\n')
        script.chmod(0o755)

    def start(self, command: str) -> "subprocess.Popen[str]":
        for name, port in self.ports.items():
            command = command.replace(name, port)
        path = f"{self.place}/bin:{os.environ.get('PATH', os.defpath)}"
        return subprocess.Popen(
            ["sh", "-c", f"exec 2>&1; {command}"],
            cwd=self.place,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def shown(self, output: str) -> str:
        """With the ports of the page."""
        for name, port in self.ports.items():
            output = re.sub(rf"\b{port}\b", name, output)
        return output

    def run(self, command: str) -> str:
        process = self.start(command)
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        finally:
            end(process)
        return self.shown(output)


def end(process: "subprocess.Popen[str]") -> None:
    """Nothing of the command is left, whatever became of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Looking:
    """A command that goes on until Ctrl-C."""

    def __init__(self, terminal: Terminal, command: str) -> None:
        self._terminal = terminal
        self._process = terminal.start(f"exec {command}")
        assert self._process.stdout is not None
        self._lines = [self._process.stdout.readline()]
        assert "stop with Ctrl-C" in self._lines[0], self._lines

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        end(self._process)
        self._process.communicate()

    def end(self) -> str:
        """Interrupts the command when the connection has ended, as a user would."""
        assert self._process.stdout is not None
        while not self._lines[-1].endswith("closed\n"):
            line = self._process.stdout.readline()
            assert line, self._lines
            self._lines.append(line)
        self._process.send_signal(signal.SIGINT)
        rest, _ = self._process.communicate(timeout=PATIENCE)
        return self._terminal.shown("".join([*self._lines, "^C\n", rest]))


class Run:
    """The page from top to bottom: what each of its blocks should be."""

    def __init__(self, text: str, tmp: Path) -> None:
        self.blocks = BLOCK.findall(text)
        self._tmp = tmp
        self._place = tmp / "work"
        self._place.mkdir()
        self._server: Server | None = None
        self._terminal = Terminal(self._place, 0)
        self._count = 0

    def play(self) -> Iterator[tuple[str, str]]:
        """Each console block as it is and as it comes out now."""
        blocks = iter(self.blocks)
        for kind, content in blocks:
            first = content.partition("\n")[0]
            if kind == "python":
                (self._place / first.removeprefix("# ")).write_text(content)
            if kind != "console":
                continue
            command = first.removeprefix("$ ")
            if command.startswith("prefork serve "):
                self._serve(command)
                yield content, f"$ {command}\n"
            elif "^C" in content:
                # It goes on in one terminal, and the next block happens in the other.
                _, other = next(blocks)
                beside = other.partition("\n")[0].removeprefix("$ ")
                play = partial(self._together, command, beside)
                yield from zip((content, other), settled((content, other), play), strict=True)
            else:
                yield from zip(
                    (content,), settled((content,), partial(self._alone, command)), strict=True
                )
        if self._server is not None:
            self._server.stop()

    def close(self) -> None:
        if self._server is not None:
            self._server.kill()

    def _serve(self, command: str) -> None:
        if self._server is not None:
            self._server.stop()
        arguments = shlex.split(command)[2:]
        where = arguments.index("--bind")
        _, address = arguments.pop(where), arguments.pop(where)
        self._count += 1
        place = self._tmp / f"server-{self._count}"
        place.mkdir()
        bind = (address.replace(PORT, "0"),)
        self._server = Server(*arguments, tmp=place, bind=bind, cwd=self._place).wait_ready(1)
        self._terminal = Terminal(self._place, self._server.port)
        digits = {len(port) for port in self._terminal.ports.values()}
        assert digits == {len(PORT)}, "net.ipv4.ip_local_port_range gives ports of other lengths"

    def _alone(self, command: str) -> tuple[str, ...]:
        return (f"$ {command}\n{self._terminal.run(command)}",)

    def _together(self, command: str, other: str) -> tuple[str, ...]:
        with Looking(self._terminal, command) as looking:
            said = f"$ {other}\n{self._terminal.run(other)}"
            return f"$ {command}\n{looking.end()}", said


def settled(contents: tuple[str, ...], play: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """What the page says, if it comes out within ATTEMPTS; else what comes out most often."""
    outcomes = []
    for _ in range(ATTEMPTS):
        outcomes.append(play())
        if normals(outcomes[-1]) == normals(contents):
            return outcomes[-1]
    often, _ = Counter(map(normals, outcomes)).most_common(1)[0]
    return next(outcome for outcome in outcomes if normals(outcome) == often)


def normals(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(normal, texts))


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Run]:
    try:
        Capture("lo", 1).__exit__(None, None, None)
    except CaptureError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    run = Run(PAGE.read_text(), tmp_path)
    yield run
    run.close()


def test_the_transcripts_are_what_the_commands_print(page: Run) -> None:
    writing = os.environ.get("PREFORK_WRITE_DOCS") == "1"
    text = PAGE.read_text()
    start = 0
    compared = 0
    for content, found in page.play():
        compared += 1
        if writing:
            start = text.index(content, start)
            text = text[:start] + found + text[start + len(content) :]
            start += len(found)
        else:
            assert normal(found) == normal(content)
    assert compared == len([kind for kind, _ in page.blocks if kind == "console"]) > 10
    if writing:
        PAGE.write_text(text)


def test_the_comparison_sees_a_difference() -> None:
    line = "  1     22 us |<-------------- SYN,ACK seq=0 ack=1 len=0 --|  handshake 2 of 3: agreed"
    call = 'recv(3, 65536) = 124 bytes "HTTP/1.1 200 OK"... [40 us]'
    assert normal(line) == normal(line.replace("   22 us", " 1.22 ms"))
    assert normal(call) == normal(call.replace("(3,", "(12,").replace("40 us", "1.2 s"))
    for text, old, new in [
        (line, "SYN,ACK", "RST,ACK"),
        (line, "ack=1", "ack=2"),
        (line, "2 of 3", "3 of 3"),
        (call, "124", "125"),
        (call, "200", "404"),
    ]:
        assert normal(text) != normal(text.replace(old, new))


def test_the_page_shows_the_table_that_the_measurement_prints() -> None:
    shown = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    where = shown.index(threads_and_processes.HEADER)
    pools = [pool.name for pool in threads_and_processes.pools(threads_and_processes.WORKS[0], 4)]
    expected = [(work.name, pool) for work in threads_and_processes.WORKS for pool in pools]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in shown[where + 1 :]]
    assert [tuple(row) for row in rows] == expected


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_measurement_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = threads_and_processes.Work("waits", "bench.works:wait", 40)
    monkeypatch.setattr(threads_and_processes, "WORKS", (work,))
    assert threads_and_processes.main(["--rounds", "1", "--count", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == threads_and_processes.HEADER
    assert [line.split("|")[2].strip() for line in lines[2:5]] == [
        "1 worker, 1 thread",
        "1 worker, 2 threads",
        "2 workers, 1 thread",
    ]
    assert lines[-1].startswith("1 rounds on ")


def names() -> list[str]:
    return sorted(set(re.findall(r"`((?:prefork|bench)(?:\.\w+)+)`", PAGE.read_text())))


@pytest.mark.parametrize("name", names())
def test_what_the_page_names_is_there(name: str) -> None:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return
    pytest.fail(f"{name} is not there")


def test_the_page_names_the_code_it_speaks_of() -> None:
    assert len(names()) > 15
