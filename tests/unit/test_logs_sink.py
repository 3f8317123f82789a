"""A destination of log lines: whole lines, nothing raised, losses counted, rotation."""

import contextlib
import fcntl
import os
import select
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefork import unpatched
from prefork.logs import LogError, LogSink
from prefork.logs import sink as sink_module

Losses = list[tuple[str, int, str]]


@pytest.fixture
def losses() -> Losses:
    return []


@pytest.fixture
def open_sink(losses: Losses) -> Iterator[Callable[[object], LogSink]]:
    """Makes sinks that report to `losses`."""
    made = []

    def open_sink(target: object) -> LogSink:
        sink = LogSink("error", str(target), lambda *loss: losses.append(loss))
        made.append(sink)
        return sink

    yield open_sink
    for sink in made:
        sink.close()


class Reader:
    """The reading end of a pipe."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def take(self) -> bytes:
        """What is in the pipe now."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.fd, 65536):
                data += piece
        return data


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[Path, Reader]]:
    """A named pipe of one page, and its reader."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = Reader(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    fcntl.fcntl(reader.fd, fcntl.F_SETPIPE_SZ, 4096)
    yield path, reader
    with contextlib.suppress(OSError):
        os.close(reader.fd)


@pytest.fixture
def as_stderr() -> Iterator[Callable[[int], None]]:
    """Puts a descriptor in the place of stderr for the test."""
    saved = os.dup(2)

    def replace(fd: int) -> None:
        os.dup2(fd, 2)

    yield replace
    os.dup2(saved, 2)
    os.close(saved)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "WRITE_TIMEOUT", 0.0)


def test_a_file_is_made_for_its_owner_and_group_and_closed_on_exec(
    tmp_path: Path, open_sink: Callable[[object], LogSink]
) -> None:
    before = os.umask(0)
    try:
        sink = open_sink(tmp_path / "log")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640
    assert not os.get_inheritable(sink.fd)


def test_lines_are_added_to_those_of_earlier_runs_and_other_processes(
    tmp_path: Path, open_sink: Callable[[object], LogSink]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    one, other = open_sink(path), open_sink(path)
    one.write(b"one\n")
    other.write(b"other\n")
    one.write(b"one again\n")
    assert path.read_bytes() == b"before\none\nother\none again\n"


def fifo_without_a_reader(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(parents=True), "Is a directory"),
        (fifo_without_a_reader, "No such device or address"),
    ],
    ids=["no directory", "a directory", "a FIFO without a reader"],
)
def test_what_cannot_be_opened_is_named_in_one_line(
    tmp_path: Path, make: Callable[[Path], Any], reason: str, open_sink: Callable[[object], LogSink]
) -> None:
    path = tmp_path / "logs" / "error.log"
    make(path)
    with pytest.raises(LogError) as caught:
        open_sink(path)
    assert str(caught.value) == f"log.error: cannot open '{path}': {reason}"


def test_a_nul_in_a_path_is_an_error_like_others(open_sink: Callable[[object], LogSink]) -> None:
    with pytest.raises(LogError, match=r"cannot open '/tmp/a\\x00b': .*embedded null"):
        open_sink("/tmp/a\0b")


def test_lines_go_to_a_file_in_one_write(
    tmp_path: Path, open_sink: Callable[[object], LogSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_sink(tmp_path / "log")
    sizes: list[int] = []
    write = os.write

    def counted(fd: int, data: bytes) -> int:
        sizes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr(unpatched.os, "write", counted)
    sink.write(b"a line\n" * 20_000)
    assert sizes == [140_000]


def test_short_writes_are_continued(
    tmp_path: Path, open_sink: Callable[[object], LogSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_sink(tmp_path / "log")
    write = os.write
    monkeypatch.setattr(unpatched.os, "write", lambda fd, data: write(fd, data[:7]))
    sink.write(b"the first line\nthe second\n")
    assert (tmp_path / "log").read_bytes() == b"the first line\nthe second\n"


def test_writes_to_a_pipe_are_atomic_and_end_at_line_borders(
    open_sink: Callable[[object], LogSink], as_stderr: Callable[[int], None]
) -> None:
    # Packet mode (pipe(2), O_DIRECT): a read returns what one write put in.
    reading, writing = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    as_stderr(writing)
    lines = b"".join(b"%d %b\n" % (number, b"x" * (number * 37 % 900)) for number in range(40))
    open_sink("stderr").write(lines)
    os.close(writing)
    as_stderr(os.open(os.devnull, os.O_WRONLY))
    packets = []
    while packet := os.read(reading, 65536):
        packets.append(packet)
    os.close(reading)
    assert b"".join(packets) == lines
    assert all(len(packet) <= select.PIPE_BUF and packet[-1:] == b"\n" for packet in packets)
    assert len(packets) < 8  # as many lines as fit


def test_a_line_of_exactly_the_atomic_size_stays_whole_and_a_longer_one_arrives(
    open_sink: Callable[[object], LogSink], as_stderr: Callable[[int], None]
) -> None:
    reading, writing = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    as_stderr(writing)
    fits, longer = b"a" * 4095 + b"\n", b"b" * 5000 + b"\n"
    open_sink("stderr").write(b"first\n" + fits + longer + b"last\n")
    packets = [os.read(reading, 65536) for _ in range(4)]
    os.close(reading)
    os.close(writing)
    assert packets == [b"first\n", fits, longer[:4096], longer[4096:] + b"last\n"]


def test_a_slow_reader_of_a_non_blocking_pipe_is_waited_for(
    fifo: tuple[Path, Reader],
    open_sink: Callable[[object], LogSink],
    losses: Losses,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, reader = fifo
    sink = open_sink(path)
    sink.write(b"x" * 4095 + b"\n")  # now it is full
    waits = threading.Event()
    wait = sink._wait

    def reported_wait(until: float) -> None:
        waits.set()
        wait(until)

    monkeypatch.setattr(sink, "_wait", reported_wait)
    lines = b"".join(b"line %d\n" % number for number in range(5000))
    writer = threading.Thread(target=sink.write, args=(lines,))
    writer.start()
    assert waits.wait(60)
    received = b""
    while len(received) < 4096 + len(lines):
        select.select([reader.fd], [], [], 60)
        received += reader.take()
    writer.join()
    assert received[4096:] == lines
    assert losses == []


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.usefixtures("impatient")
def test_a_reader_that_is_stuck_does_not_stop_the_server(
    blocking: bool,
    fifo: tuple[Path, Reader],
    open_sink: Callable[[object], LogSink],
    losses: Losses,
) -> None:
    path, reader = fifo
    sink = open_sink(path)
    os.set_blocking(sink.fd, blocking)
    sink.write(b"x" * 4095 + b"\n")
    sink.write(b"lost\nlost too\n")
    sink.write(b"lost as well\n")
    assert losses == []
    assert len(reader.take()) == 4096
    sink.write(b"it goes on\n")
    assert reader.take() == b"it goes on\n"
    assert losses == [(str(path), 3, "the reader does not read")]
    sink.write(b"and on\n")
    assert reader.take() == b"and on\n"
    assert len(losses) == 1


def test_patience_is_spent_once_and_comes_back(
    fifo: tuple[Path, Reader],
    open_sink: Callable[[object], LogSink],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = []
    monkeypatch.setattr(sink_module, "monotonic", lambda: 1000.0)

    class Poll:
        def __init__(self) -> None:
            self._poll = poll()

        def register(self, fd: int, events: int) -> None:
            self._poll.register(fd, events)

        def poll(self, limit: float) -> list[tuple[int, int]]:
            limits.append(limit)
            return self._poll.poll(0)

    poll = select.poll
    monkeypatch.setattr(unpatched.select, "poll", Poll)
    path, reader = fifo
    sink = open_sink(path)
    for line in (b"x" * 4095 + b"\n", b"lost\n", b"lost\n"):
        sink.write(line)
    assert limits == [5000.0, 5000.0, 0.0]
    reader.take()
    sink.write(b"through\n")
    sink.write(b"through\n")
    assert limits[3:] == [0.0, 5000.0]


@pytest.mark.usefixtures("impatient")
def test_a_line_that_was_cut_short_spoils_no_other(
    fifo: tuple[Path, Reader], open_sink: Callable[[object], LogSink], losses: Losses
) -> None:
    path, reader = fifo
    sink = open_sink(path)
    sink.write(b"x" * 5000 + b"\n")
    assert reader.take() == b"x" * 4096
    sink.write(b"next\n")
    assert reader.take() == b"\nnext\n"
    sink.write(b"and next\n")
    assert reader.take() == b"and next\n"
    assert losses == [(str(path), 1, "the reader does not read")]


@pytest.mark.usefixtures("impatient")
def test_ending_a_fragment_is_not_counted_as_a_line(
    fifo: tuple[Path, Reader], open_sink: Callable[[object], LogSink], losses: Losses
) -> None:
    path, reader = fifo
    sink = open_sink(path)
    sink.write(b"x" * 5000 + b"\n")
    sink.write(b"lost\n")
    reader.take()
    sink.write(b"next\n")
    assert reader.take() == b"\nnext\n"
    assert losses == [(str(path), 2, "the reader does not read")]


def test_a_full_disk_loses_lines_and_says_how_many(
    tmp_path: Path, open_sink: Callable[[object], LogSink], losses: Losses
) -> None:
    sink = open_sink("/dev/full")
    sink.write(b"one\ntwo\n")
    sink.write(b"three\n")
    with open(tmp_path / "log", "wb") as file:
        sink.replace(file.fileno())
    sink.write(b"four\n")
    assert (tmp_path / "log").read_bytes() == b"four\n"
    assert losses == [("/dev/full", 3, "No space left on device")]


def test_a_pipe_whose_reader_is_gone_loses_lines_until_there_is_another(
    fifo: tuple[Path, Reader], open_sink: Callable[[object], LogSink], losses: Losses
) -> None:
    path, reader = fifo
    sink = open_sink(path)
    os.close(reader.fd)
    sink.write(b"lost\n")
    reader.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink.write(b"read\n")
    assert reader.take() == b"read\n"
    assert losses == [(str(path), 1, "Broken pipe")]


def test_a_closed_sink_writes_into_no_other_file(
    tmp_path: Path, open_sink: Callable[[object], LogSink]
) -> None:
    sink = open_sink(tmp_path / "log")
    number = sink.fd
    sink.close()
    with open(tmp_path / "other", "wb") as other:
        assert other.fileno() == number
        sink.write(b"late\n")
    sink.close()
    assert (tmp_path / "other").read_bytes() == (tmp_path / "log").read_bytes() == b""


def reopen(sink: LogSink) -> None:
    """As `Logs.reopen` does it for one file."""
    fd = sink.open()
    sink.replace(fd)
    os.close(fd)


def test_reopening_keeps_the_descriptor_and_leaves_the_renamed_file(
    tmp_path: Path, open_sink: Callable[[object], LogSink]
) -> None:
    path = tmp_path / "log"
    sink = open_sink(path)
    number = sink.fd
    sink.write(b"old\n")
    path.rename(tmp_path / "log.1")
    reopen(sink)
    sink.write(b"new\n")
    assert sink.fd == number
    assert not os.get_inheritable(number)
    assert (tmp_path / "log.1").read_bytes() == b"old\n"
    assert path.read_bytes() == b"new\n"


def test_a_failed_reopening_goes_on_in_the_old_file(
    tmp_path: Path, open_sink: Callable[[object], LogSink]
) -> None:
    (tmp_path / "logs").mkdir()
    sink = open_sink(tmp_path / "logs" / "log")
    (tmp_path / "logs").rename(tmp_path / "moved")
    with pytest.raises(LogError):
        reopen(sink)
    sink.write(b"still\n")
    assert (tmp_path / "moved" / "log").read_bytes() == b"still\n"


@pytest.mark.parametrize("target", ["stdout", "stderr"])
def test_standard_streams_are_neither_replaced_nor_closed(
    tmp_path: Path, target: str, open_sink: Callable[[object], LogSink], capfd: Any
) -> None:
    sink = open_sink(target)
    assert not sink.is_file  # and so it is not reopened
    with open(tmp_path / "log", "wb") as file:
        sink.replace(file.fileno())
    sink.close()
    sink.write(b"seen\n")
    out, err = capfd.readouterr()
    assert (out, err) == (("seen\n", "") if target == "stdout" else ("", "seen\n"))
    assert (tmp_path / "log").read_bytes() == b""


def test_no_line_is_lost_or_torn_while_threads_write_and_the_file_is_rotated(
    tmp_path: Path, open_sink: Callable[[object], LogSink], losses: Losses
) -> None:
    path = tmp_path / "log"
    sink = open_sink(path)
    rotated, wrote = threading.Event(), threading.Event()
    counts = [0] * 4

    def write(writer: int) -> None:
        while not rotated.is_set():
            sink.write(b"writer %d line %d end\n" % (writer, counts[writer]))
            counts[writer] += 1
            wrote.set()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(len(counts))]
    for writer in writers:
        writer.start()
    files = []
    for number in range(30):
        wrote.clear()
        assert wrote.wait(60)
        files.append(path.rename(tmp_path / f"log.{number}"))
        reopen(sink)
    rotated.set()
    for writer in writers:
        writer.join()
    lines = b"".join(file.read_bytes() for file in [*files, path]).splitlines()
    expected = [
        b"writer %d line %d end" % (writer, number)
        for writer, count in enumerate(counts)
        for number in range(count)
    ]
    assert sorted(lines) == sorted(expected)
    assert losses == []
