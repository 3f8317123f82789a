"""Pipes to log files: whole lines, none lost and none twice."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork.logs import LogSink
from prefork.logs import log_pipe as module
from prefork.logs.log_pipe import CopyJournal, LogPipe, create_pipe


class Way:
    """A pipe from a worker to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reader, self.writer = create_pipe()
        self.scratch = create_pipe()
        self.journal = CopyJournal()
        self.sink = LogSink("access", str(path), lambda *_: None)
        self.pipe = self.open()

    def open(self) -> LogPipe:
        """As a process does that begins."""
        return LogPipe(7, self.reader, self.sink, self.journal)

    def write(self, data: bytes) -> None:
        os.write(self.writer, data)

    def copy(self, *, ended: bool = False) -> bool:
        return self.pipe.copy(self.scratch, ended=ended)

    def close(self) -> None:
        self.sink.close()
        for fd in (self.reader, self.writer, *self.scratch):
            os.close(fd)


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    made = Way(tmp_path / "log")
    yield made
    made.close()


def test_whole_lines_are_copied_and_a_piece_waits_for_its_end(way: Way) -> None:
    way.write(b"one\ntwo\nthr")
    assert way.copy()
    assert way.path.read_bytes() == b"one\ntwo\n"
    assert way.copy()
    assert way.path.read_bytes() == b"one\ntwo\n"
    way.write(b"ee\n")
    assert way.copy()
    assert way.path.read_bytes() == b"one\ntwo\nthree\n"


def test_a_piece_is_copied_at_the_end_and_after_a_second(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    way.write(b"password: ")
    assert way.copy()
    assert way.path.read_bytes() == b""
    now += 1.5
    assert way.copy()
    assert way.path.read_bytes() == b"password: "
    way.write(b"last")
    assert way.copy(ended=True)
    assert way.path.read_bytes() == b"password: last"
    assert not way.copy(ended=True)


def test_nothing_there_is_no_end(way: Way) -> None:
    assert way.copy()
    assert way.path.read_bytes() == b""


def test_a_long_line_is_one(way: Way) -> None:
    os.set_blocking(way.writer, False)
    line = b"x" * 60_000 + b"\n"
    way.write(line)
    assert way.copy()
    assert way.path.read_bytes() == line


@pytest.mark.parametrize("written", [True, False])
def test_a_process_that_was_killed_loses_and_doubles_nothing(way: Way, written: bool) -> None:
    way.write(b"before\n")
    way.copy()
    way.write(b"same\nsame\n")
    status = way.path.stat()
    way.journal.begin(7, status.st_ino, status.st_size, 10)  # here it is killed, or after the write
    if written:
        way.sink.write(b"of the master\n")
        way.sink.write(b"same\nsame\n")
    way.write(b"same\nlater\n")
    way.pipe = way.open()
    way.copy()
    lines = way.path.read_text().split("\n")
    assert lines.count("same") == 3
    assert (lines[0], lines[-2]) == ("before", "later")


def test_what_is_pending_of_another_pipe_is_not_looked_for(way: Way) -> None:
    status = way.path.stat()
    way.sink.write(b"same\n")
    way.journal.begin(8, status.st_ino, 0, 5)
    way.write(b"same\n")
    way.pipe = way.open()
    way.copy()
    assert way.path.read_bytes() == b"same\nsame\n"


def test_a_file_that_was_rotated_meanwhile_is_another(way: Way, tmp_path: Path) -> None:
    status = way.path.stat()
    way.write(b"line\n")
    way.journal.begin(7, status.st_ino + 1, 0, 5)
    way.pipe = way.open()
    way.copy()
    assert way.path.read_bytes() == b"line\n"


def test_a_worker_that_makes_packets_of_its_pipe_does_not_block_the_process(way: Way) -> None:
    """A read drops the rest of a packet (pipe(7), O_DIRECT): fewer bytes come than were there."""
    flags = fcntl.fcntl(way.writer, fcntl.F_GETFL)
    fcntl.fcntl(way.writer, fcntl.F_SETFL, flags | os.O_DIRECT)
    way.write(b"one\nhalf")
    way.write(b"two\nhalf")
    for _ in range(4):
        assert way.copy()
    assert way.path.read_bytes().startswith(b"one\n")


def test_other_processes_lines_stay_whole_if_the_disk_is_full(way: Way) -> None:
    with open("/dev/full", "wb") as full:
        way.sink.replace(full.fileno())
        way.write(b"lost\n")
        assert way.copy()
        assert way.copy()
