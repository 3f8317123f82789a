"""What a client has not taken yet, with a client that takes as much as a test says."""

import contextlib
import errno
import gc
import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from prefork.http.disk_budget import DiskBudget
from prefork.http.memory_budget import MemoryBudget
from prefork.worker.transport.client_limits import ClientLimits
from prefork.worker.transport.output_buffer import OutputBuffer
from tests.support.client_limits import client_limits
from tests.support.waiting import PATIENCE


class Wire:
    """What a socket and sendfile(2) are to it."""

    def __init__(self) -> None:
        self.room = 0
        self.problem = 0
        self.queued = 0
        """Bytes that the kernel has for the client."""
        self.got = b""
        self.calls = 0
        self.blocking = True

    def fileno(self) -> int:
        return -1

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return self.problem

    def _take(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        self.calls += 1
        taken = data[: self.room]
        self.room -= len(taken)
        self.got += taken
        return len(taken)

    def send(self, data: bytearray, flags: int) -> int:
        assert flags == socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        return self._take(bytes(data))

    def send_file(self, fd: int, offset: int, count: int) -> int:
        assert not self.blocking
        data = os.pread(fd, count, offset)
        return self._take(data) if data else 0

    def setblocking(self, flag: bool) -> None:
        self.blocking = flag


def little_room(**changed: Any) -> ClientLimits:
    """With little room, so that a response is soon on disk."""
    return client_limits(**{"response_memory": 100, "response_spill": 1000, **changed})


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    monkeypatch.setattr("prefork.linux.not_acknowledged", lambda sock: wire.queued)
    return wire


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    gc.collect()  # what other tests have left is not closed in the middle of this one
    before = descriptors()
    yield
    assert descriptors() <= before  # the collector may have closed others


def kept(wire: Wire, *pieces: bytes, **changed: Any) -> OutputBuffer:
    unsent = OutputBuffer(wire, wire.send_file, little_room(**changed))  # type: ignore[arg-type]
    for piece in pieces:
        unsent.add(memoryview(piece))
    return unsent


def drain(unsent: OutputBuffer, wire: Wire, step: int = 7) -> bytes:
    """All of it, taken by the step."""
    while unsent:
        wire.room = step
        unsent.flush()
    return wire.got


def test_what_is_kept_goes_out_as_the_client_takes_it(wire: Wire) -> None:
    unsent = kept(wire, b"one", b"two", b"three")
    unsent.flush()
    assert wire.got == b""
    wire.room = 4
    unsent.flush()
    assert (wire.got, unsent.memory, bool(unsent)) == (b"onet", 7, True)
    unsent.add(memoryview(b"four"))
    wire.room = 100
    unsent.flush()
    assert (wire.got, unsent.memory, bool(unsent)) == (b"onetwothreefour", 0, False)


def test_many_small_pieces_are_sent_as_one(wire: Wire) -> None:
    unsent = kept(wire, *(b"%d" % (n % 10) for n in range(100)))
    wire.room = 1000
    unsent.flush()
    assert (wire.got, wire.calls) == (b"0123456789" * 10, 1)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_memory_then_disk_then_memory_go_out_in_their_order(wire: Wire, step: int) -> None:
    pieces = b"a" * 90, b"b" * 200, b"c" * 5, b"d" * 300, b"e" * 5
    unsent = kept(wire, *pieces)
    # Beyond the memory only what is too large for what is left of it is on disk.
    assert unsent.memory == 100
    assert drain(unsent, wire, step) == b"".join(pieces)
    assert unsent.memory == 0
    # And once more: the disk is used anew from its beginning.
    unsent.add(memoryview(b"f" * 990))
    assert drain(unsent, wire, step) == b"".join(pieces) + b"f" * 990


def test_no_memory_left_to_the_worker_is_as_none_left_to_the_response(wire: Wire) -> None:
    budget = MemoryBudget(10)
    unsent = kept(wire, b"a" * 8, b"b" * 8, b"c" * 2, budget=budget)
    assert (unsent.memory, budget.used) == (10, 10)
    assert drain(unsent, wire) == b"a" * 8 + b"b" * 8 + b"c" * 2
    assert budget.used == 0


def test_the_disk_is_given_back_once_all_of_it_is_sent(wire: Wire) -> None:
    disk = DiskBudget(1000)
    unsent = kept(wire, b"a" * 300, b"b" * 100, b"c" * 300, disk=disk)
    assert disk.used == 600
    wire.room = 350
    unsent.flush()
    # One file has both: it stays until the last byte is out.
    assert disk.used == 600
    assert drain(unsent, wire) == b"a" * 300 + b"b" * 100 + b"c" * 300
    assert disk.used == 0


def test_a_file_stands_in_its_place_and_may_be_closed_at_once(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    unsent = kept(wire, b"before ")
    with open(tmp_path / "file", "rb") as file:
        unsent.add_file(file.fileno(), 2, 5)
    unsent.add(memoryview(b" behind"))
    assert drain(unsent, wire, 3) == b"before 23456 behind"


def test_a_file_that_has_shrunk_is_the_end(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    unsent = kept(wire)
    with open(path, "rb") as file:
        unsent.add_file(file.fileno(), 0, 10)
    path.write_bytes(b"01")
    wire.room = 100
    with pytest.raises(OSError, match="shrunk"):
        unsent.flush()
    assert wire.got == b"01"
    unsent.close()


def test_a_client_that_leaves_what_the_kernel_has_for_it_is_gone(wire: Wire) -> None:
    unsent = kept(wire)
    unsent.flush()
    wire.problem = errno.ECONNRESET
    with pytest.raises(ConnectionResetError):
        unsent.flush()


def test_others_get_a_turn_between_many_pieces_of_files(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    unsent = kept(wire)
    with open(tmp_path / "file", "rb") as file:
        for _ in range(20):
            unsent.add_file(file.fileno(), 0, 1)
    wire.room = 1000
    unsent.flush()
    assert unsent
    assert 0 < len(wire.got) < 20
    assert drain(unsent, wire) == b"x" * 20


def test_all_is_let_go_of_when_the_client_is_gone(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    budget = MemoryBudget(100)
    disk = DiskBudget(1000)
    unsent = kept(wire, b"a" * 50, b"b" * 500, b"c" * 20, budget=budget, disk=disk)
    with open(tmp_path / "file", "rb") as file:
        unsent.add_file(file.fileno(), 0, 1)
    assert (budget.used, disk.used) == (70, 500)
    unsent.close()
    assert (budget.used, disk.used, bool(unsent)) == (0, 0, False)


def test_when_a_client_is_given_up(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("prefork.worker.transport.output_buffer.monotonic", lambda: clock[0])
    assert kept(wire, write_timeout=0.0).due() == 0  # never
    assert kept(wire, write_timeout=0.0, min_write_rate=10).due() == 1030
    slow = kept(wire, b"a" * 100, min_write_rate=10)
    assert slow.due() == 1020
    # A second for each ten bytes, but never more than the time of silence.
    clock[0], wire.room = 1001.0, 10
    slow.flush()
    assert slow.due() == 1021
    clock[0], wire.room = 1019.0, 40
    slow.flush()
    assert slow.due() == 1025
    # Only what it takes gains time: not a look, and not what is added.
    clock[0] = 1024.0
    slow.add(memoryview(b"a"))
    slow.flush()
    assert slow.due() == 1025


def test_a_client_that_takes_what_the_kernel_had_is_not_silent(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("prefork.worker.transport.output_buffer.monotonic", lambda: clock[0])
    wire.queued = 1000
    slow = kept(wire, b"a" * 100, min_write_rate=10)
    # The epoll has told nothing, since the kernel still has more than half of what it had.
    clock[0], wire.queued = 1020.0, 700
    assert not slow.given_up()
    assert slow.due() == 1040
    clock[0], wire.queued = 1040.0, 650
    assert not slow.given_up()
    clock[0] = 1055.0
    assert slow.given_up()
    clock[0], wire.queued = 1056.0, 649
    assert slow.given_up()
    # What goes to the kernel is not taken yet, and what was there before is not counted twice.
    wire.room, wire.queued = 50, 699
    slow.flush()
    assert slow.given_up()


# With a real socket: the only thing that is waited for.


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(PATIENCE)
        while True:  # until nothing more goes in
            try:
                ours.send(b"x" * 65536)
            except BlockingIOError:
                break
        yield ours, theirs


def full(fd: int, data: bytes, offset: int) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def nearly_full(fd: int, data: bytes, offset: int) -> int:
    return _pwrite(fd, data[:40], offset) if offset < 40 else full(fd, data, offset)


_pwrite = os.pwrite


@pytest.mark.parametrize(
    ("limits", "pwrite"),
    [
        ({"response_spill": 1}, os.pwrite),
        ({"disk": DiskBudget(50)}, os.pwrite),
        ({}, full),
        ({}, nearly_full),
    ],
    ids=["its own limit", "the limit of all", "a full disk", "a disk that becomes full"],
)
def test_what_outgrows_all_limits_waits_for_the_client(
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, Any],
    pwrite: Any,
) -> None:
    monkeypatch.setattr(os, "pwrite", pwrite)
    ours, theirs = pair
    unsent = OutputBuffer(
        ours, partial(os.sendfile, ours.fileno()), little_room(write_timeout=0.01, **limits)
    )
    unsent.add(memoryview(b"a" * 100))
    rest = unsent.add(memoryview(b"b" * 100))
    with pytest.raises(TimeoutError):
        unsent.wait_for_reader(rest)
    had = 40 if pwrite is nearly_full else 0
    theirs.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while theirs.recv(1 << 20):
            pass
    rest = unsent.wait_for_reader(memoryview(b"c" * 100))
    assert not rest
    assert not unsent
    assert theirs.recv(1 << 20) == b"a" * 100 + b"b" * had + b"c" * 100
    disk = limits.get("disk")
    assert disk is None or disk.used == 0
    unsent.close()


def test_a_client_that_leaves_while_it_is_waited_for_is_gone(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    unsent = OutputBuffer(ours, os.sendfile, little_room(response_spill=1))  # type: ignore[arg-type]
    unsent.add(memoryview(b"a" * 100))
    theirs.close()
    rest = unsent.add(memoryview(b"b" * 100))
    with pytest.raises(OSError, match=r"."):
        unsent.wait_for_reader(rest)
    unsent.close()
