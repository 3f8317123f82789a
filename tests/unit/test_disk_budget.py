"""Bodies on disk, one after the other: the next is written over the last, and never seen by it."""

import gc
import os
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from prefork.http.disk_budget import KEPT, SPARES, DiskBudget
from prefork.http.gathered_body import GatheredBody
from prefork.http.head_rules import Reject
from prefork.http.memory_budget import MemoryBudget


def body(disk: DiskBudget, data: bytes) -> GatheredBody:
    """Not complete yet; on disk from its first byte on."""
    new = GatheredBody(1, 0, MemoryBudget(), disk)
    new.write(data)
    assert new.on_disk
    return new


def whole(disk: DiskBudget, data: bytes) -> BinaryIO:
    file = body(disk, data).whole()
    assert isinstance(file, BufferedReader)
    return cast(BinaryIO, file)


def files() -> list[os.stat_result]:
    """Of what is open in this process, what has no name any more."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(fd))
        except OSError:  # the listing's own
            continue
        if status.st_nlink == 0 and os.readlink(f"/proc/self/fd/{fd}").endswith("(deleted)"):
            found.append(status)
    return found


@pytest.fixture
def opened() -> Callable[[], list[os.stat_result]]:
    """The files that were made since."""
    gc.collect()
    before = {status.st_ino for status in files()}
    return lambda: [status for status in files() if status.st_ino not in before]


def test_the_next_body_has_the_file_of_the_last_and_nothing_else_of_it(
    opened: Callable[[], list[os.stat_result]],
) -> None:
    disk = DiskBudget()
    inodes = set()
    for size in (500_000, 20, 300_000, KEPT + 10_000, 9_000):
        data = os.urandom(size)
        file = whole(disk, data)
        (status,) = opened()
        inodes.add(status.st_ino)
        assert (status.st_size, disk.used) == (size, size)
        assert file.read() == data
        assert file.seek(0, os.SEEK_END) == size
        file.close()
        assert disk.used == min(size, KEPT)
    assert len(inodes) == 1
    del disk, file
    assert opened() == []


def test_what_stays_is_bounded_in_files_and_bytes(
    opened: Callable[[], list[os.stat_result]],
) -> None:
    disk = DiskBudget()
    held = [whole(disk, bytes(100)) for _ in range(SPARES + 2)]
    assert disk.used == (SPARES + 2) * 100
    held.clear()
    assert [status.st_size for status in opened()] == [100] * SPARES
    assert disk.used == SPARES * 100
    part = KEPT // 3 + 100_000
    held.extend(whole(disk, bytes(part)) for _ in range(SPARES))
    held.clear()
    sizes = sorted(status.st_size for status in opened())
    assert sizes == [KEPT - 2 * part, part, part]
    assert disk.used == KEPT


def test_what_stays_gives_way_to_what_is_wanted() -> None:
    disk = DiskBudget(1000)
    held = [whole(disk, bytes(300)) for _ in range(3)]
    held.clear()
    assert disk.used == 900
    assert disk.take(600)  # for a response
    assert disk.used == 900
    # A body that has the one that is left needs no more than what it is larger by.
    large = body(disk, bytes(400))
    assert disk.used == 1000
    with pytest.raises(Reject):
        large.write(b"x")
    del large
    gc.collect()
    assert disk.used == 600
    assert disk.take(400)
    assert not disk.take(1)


def test_a_body_that_did_not_come_to_its_end_leaves_nothing(
    opened: Callable[[], list[os.stat_result]],
) -> None:
    disk = DiskBudget()
    body(disk, bytes(100_000))
    assert (opened(), disk.used) == ([], 0)


def test_a_body_that_only_the_garbage_collector_finds_leaves_its_file(
    opened: Callable[[], list[os.stat_result]],
) -> None:
    """Django's requests are such cycles."""
    disk = DiskBudget()
    cycle: list[object] = [whole(disk, b"first" * 10_000)]
    cycle.append(cycle)
    (before,) = opened()
    del cycle
    gc.collect()
    other = whole(disk, b"other" * 10_000)
    assert [status.st_ino for status in opened()] == [before.st_ino]
    assert other.read() == b"other" * 10_000


def test_a_holder_of_an_old_body_reads_that_body() -> None:
    disk = DiskBudget()
    kept = whole(disk, b"first" * 10_000)
    whole(disk, b"other" * 10_000).close()
    assert kept.read() == b"first" * 10_000
    kept.close()
    with pytest.raises(ValueError, match="closed"):
        kept.read()


def test_a_holder_of_the_descriptor_reads_that_body_after_it_was_closed() -> None:
    disk = DiskBudget()
    first = whole(disk, b"first" * 10_000)
    with open(os.dup(first.fileno()), "rb") as kept:
        first.close()
        whole(disk, b"other" * 10_000).close()
        assert kept.read() == b"first" * 10_000


def test_a_child_reads_the_body_that_it_was_forked_with(tmp_path: Path) -> None:
    disk = DiskBudget()
    whole(disk, b"older" * 10_000).close()
    first = whole(disk, b"first" * 10_000)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(ours, 1)
            (tmp_path / "read").write_bytes(first.read())
        finally:
            os._exit(0)
    first.close()
    whole(disk, b"other" * 10_000).close()
    os.write(theirs, b"x")
    os.waitpid(child, 0)
    os.close(ours)
    os.close(theirs)
    assert (tmp_path / "read").read_bytes() == b"first" * 10_000
