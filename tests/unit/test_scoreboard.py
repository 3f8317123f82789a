"""The scoreboard: what one side writes, the other reads."""

import mmap
import os

import pytest

from prefork.scoreboard import LINE, SLOTS, THREADS, Call, Scoreboard


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard()


def test_a_fresh_slot_is_idle(board: Scoreboard) -> None:
    assert board.calls(0, 2) == [Call(0, 0.0, 0, ""), Call(1, 0.0, 0, "")]
    assert not board.draining


def test_a_call_is_seen_while_it_runs_and_counted_when_it_is_over(board: Scoreboard) -> None:
    record = board.record(3, 0)
    record.start(12.5, b"GET /a")
    assert board.calls(3, 1) == [Call(0, 12.5, 0, "GET /a")]
    record.end()
    (call,) = board.calls(3, 1)
    assert (call.started, call.requests) == (0.0, 1)
    record.start(13.5, b"GET /")
    record.end()
    assert board.calls(3, 1)[0].requests == 2


def test_a_shorter_line_leaves_nothing_of_the_longer(board: Scoreboard) -> None:
    record = board.record(0, 0)
    record.start(1.0, b"GET /a-long-path-indeed")
    record.end()
    record.start(2.0, b"GET /b")
    assert board.calls(0, 1)[0].line == "GET /b"


@pytest.mark.parametrize("size", [LINE - 1, LINE, LINE + 1, 100 * LINE])
def test_a_long_line_is_cut_and_touches_no_neighbour(board: Scoreboard, size: int) -> None:
    before, after = board.record(0, 0), board.record(0, 2)
    before.start(1.0, b"before")
    after.start(3.0, b"after")
    board.record(0, 1).start(2.0, b"x" * size)
    assert board.calls(0, 3) == [
        Call(0, 1.0, 0, "before"),
        Call(1, 2.0, 0, "x" * min(size, LINE)),
        Call(2, 3.0, 0, "after"),
    ]


def test_any_byte_may_stand_in_a_line(board: Scoreboard) -> None:
    board.record(0, 0).start(1.0, b"GET /caf\xe9\xff")
    assert board.calls(0, 1)[0].line == "GET /caf\xe9\xff"


def test_the_corners_are_apart(board: Scoreboard) -> None:
    """The last thread of a slot and the first of the next; the very last record there is."""
    places = [(0, 0), (0, THREADS - 1), (1, 0), (SLOTS - 1, THREADS - 1)]
    for number, (slot, thread) in enumerate(places, 1):
        board.record(slot, thread).start(float(number), b"%d" % number)
    board.draining = True
    for number, (slot, thread) in enumerate(places, 1):
        call = board.calls(slot, THREADS)[thread]
        assert (call.started, call.line) == (float(number), str(number))
    assert board.draining


def test_clearing_a_slot_leaves_the_others(board: Scoreboard) -> None:
    for slot in (1, 2, 3):
        for thread in (0, 1):
            board.record(slot, thread).start(1.0, b"GET /")
    board.draining = True
    board.clear(2, 2)
    assert board.calls(2, 2) == [Call(0, 0.0, 0, ""), Call(1, 0.0, 0, "")]
    assert all(call.started for slot in (1, 3) for call in board.calls(slot, 2))
    assert board.draining


def test_a_new_worker_counts_from_nought(board: Scoreboard) -> None:
    record = board.record(0, 0)
    record.start(1.0, b"")
    record.end()
    board.clear(0, 1)
    successor = board.record(0, 0)
    successor.start(2.0, b"")
    successor.end()
    assert board.calls(0, 1)[0].requests == 1


def test_it_is_shared_by_its_descriptor(board: Scoreboard) -> None:
    """As a process that was given the descriptor sees it."""
    size = os.fstat(board.fd).st_size
    with mmap.mmap(os.dup(board.fd), size) as other:
        board.record(0, 0).start(1.0, b"GET /shared")
        assert other.find(b"GET /shared") > 0


def test_pages_that_nobody_touched_cost_nothing() -> None:
    fresh = Scoreboard()
    before = os.fstat(fresh.fd).st_blocks
    fresh.record(7, 0).start(1.0, b"GET /")
    assert before * 512 <= mmap.PAGESIZE  # the header, which says how it is laid out
    assert os.fstat(fresh.fd).st_blocks * 512 <= 2 * mmap.PAGESIZE


KIND = 2**64 - 2


def test_a_worker_takes_connections_of_one_kind_until_it_says_otherwise(board: Scoreboard) -> None:
    assert (board.kind(1), board.idle(1, KIND)) == (0, False)
    board.open(1, KIND, 1)
    assert (board.kind(1), board.idle(1, KIND)) == (KIND, True)
    assert not board.idle(1, KIND - 1)
    assert not board.idle(2, KIND)
    board.shut(1)
    assert (board.kind(1), board.idle(1, KIND)) == (0, False)


def test_a_worker_is_idle_while_one_of_its_threads_is(board: Scoreboard) -> None:
    board.open(0, KIND, 2)
    first, second = board.record(0, 0), board.record(0, 1)
    first.start(1.0, b"GET /")
    assert board.idle(0, KIND)
    second.start(2.0, b"GET /")
    assert not board.idle(0, KIND)
    first.end()
    assert board.idle(0, KIND)


def test_what_a_dead_worker_took_its_successor_does_not(board: Scoreboard) -> None:
    board.open(5, KIND, 3)
    board.clear(5, 3)
    assert board.kind(5) == 0


def test_the_sign_of_a_slot_is_no_part_of_a_record(board: Scoreboard) -> None:
    board.record(4, THREADS - 1).start(1.0, b"x" * LINE)
    board.open(5, KIND, THREADS)
    assert board.calls(5, 1) == [Call(0, 0.0, 0, "")]
    assert board.calls(4, THREADS)[-1].line == "x" * LINE
