"""The memory of a request's body while it comes."""

import sys
from io import BufferedReader
from itertools import pairwise

import pytest

from prefork.http import gathered_body
from prefork.http.disk_budget import DiskBudget
from prefork.http.gathered_body import GatheredBody
from prefork.http.memory_budget import MemoryBudget

MB = 1024 * 1024


def body(length: int, budget: MemoryBudget | None = None, memory: int = MB) -> GatheredBody:
    return GatheredBody(memory, 0, budget or MemoryBudget(), DiskBudget(), length)


def test_a_client_sends_something_for_the_memory_that_it_takes() -> None:
    budget = MemoryBudget()
    one = body(MB, budget)
    taken: list[int] = []
    while one.size < MB:
        room = one.room()
        assert room is not None
        with room:
            size = min(len(room), 16 * 1024)
            room[:size] = bytes([len(taken) % 256]) * size
        before = one.size
        one.received(size)
        taken.append(budget.used)
        assert budget.used <= max(gathered_body._FIRST, gathered_body._GROWTH * before)
    assert budget.used == MB
    assert taken == sorted(taken)
    assert len([1 for a, b in pairwise(taken) if a != b]) <= 3  # each step copies all
    data = one.whole().read()
    assert data == b"".join(bytes([n % 256]) * 16 * 1024 for n in range(MB // (16 * 1024)))
    del one
    assert budget.used == 0


@pytest.mark.parametrize("length", [-1, 300_000])
@pytest.mark.parametrize("piece", [1000, 100_000])
def test_bytes_that_are_written_are_there_in_their_order(length: int, piece: int) -> None:
    data = bytes(range(256)) * 1000 + b"x" * 44_000
    for memory in (0, MB, 1000):
        one = body(length, memory=memory)
        for at in range(0, len(data), piece):
            one.write(data[at : at + piece])
        assert one.on_disk is (memory == 1000)
        assert one.size == len(data)
        with one.whole() as file:
            assert file.read() == data


def test_a_body_that_was_in_memory_goes_on_on_the_disk() -> None:
    budget = MemoryBudget(4 * MB)
    one = body(MB, budget)
    one.write(b"a" * 1000)
    assert not one.on_disk
    assert budget.take(3 * MB)
    one.write(b"b" * (MB - 1000))
    assert one.on_disk
    assert one.room() is None
    assert budget.used == 3 * MB
    with one.whole() as file:
        assert file.read() == b"a" * 1000 + b"b" * (MB - 1000)


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_body_on_the_disk_has_a_small_buffer(size: int) -> None:
    """Which no budget counts; the default of CPython 3.14 is 128 KiB."""
    one = body(-1, memory=1)
    one.write(b"x" * size)
    writer = one._file
    assert sys.getsizeof(writer) < 9000
    with one.whole() as reader:
        assert isinstance(reader, BufferedReader)
        assert len(reader.peek()) == min(size, 8192)
        assert sys.getsizeof(reader) < 9000


def test_large_bodies_leave_half_of_the_memory_to_all_else() -> None:
    budget = MemoryBudget(400_000)
    large = [body(100_000, budget) for _ in range(4)]
    for each in large:
        each.write(b"x")
    assert [each.on_disk for each in large] == [False, False, True, True]
    small = body(1000, budget)
    small.write(b"x")
    assert not small.on_disk
