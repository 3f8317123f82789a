"""The scoreboard: what one side writes, the other reads."""

import mmap
import multiprocessing
import os
import struct
from collections.abc import Callable
from math import inf
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.capacity import THREADS_MAX, WORKER_SLOTS
from prefork.scoreboard import (
    DURATION_BOUNDS,
    ERROR,
    LINE,
    PEER,
    REQUEST_ID,
    CallRecord,
    Counters,
    Scoreboard,
)
from prefork.scoreboard.slot_layout import STARTED, slot_offset


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard()


def idle(thread: int = 0) -> CallRecord:
    return CallRecord(thread, 0.0, "", "", "")


def test_a_fresh_slot_is_idle(board: Scoreboard) -> None:
    assert board.calls(0, 2) == [idle(0), idle(1)]
    assert board.counters(0, 2) == Counters()
    assert (board.draining, board.only_worker) == (False, False)


def test_a_call_is_seen_while_it_runs_and_counted_when_it_is_over(board: Scoreboard) -> None:
    record = board.record(3, 0)
    record.start(12.5, b"GET /a", "10.0.0.1", "id-1")
    assert board.calls(3, 1) == [CallRecord(0, 12.5, "GET /a", "10.0.0.1", "id-1")]
    assert board.requests(3, 1) == 0
    record.end(12.75, 200, 5)
    (call,) = board.calls(3, 1)
    assert (call.started, call.ended) == (0.0, 12.75)
    assert board.requests(3, 1) == 1
    record.start(13.5, b"GET /")
    record.end(13.75, 404, 7)
    counters = board.counters(3, 1)
    assert (counters.requests, counters.bytes, counters.seconds) == (2, 12, 0.5)
    assert counters.by_class() == [0, 0, 1, 0, 1, 0]


def test_a_loop_that_did_not_turn_for_long_shows_from_when_to_when(board: Scoreboard) -> None:
    stats = board.stats_writer(3)
    for now in (1.0, 2.5, 6.0, 7.0):
        stats.beat(now)
    assert board.beat(3) == 7.0
    assert board.pause(3) == (2.5, 6.0)


def test_the_same_call_again_is_another_one(board: Scoreboard) -> None:
    record = board.record(3, 0)
    line = b"GET /a"
    for number in range(3):
        record.start(12.0 + number, line, "10.0.0.1", "id-1")
        assert board.calls(3, 1) == [
            CallRecord(
                0, 12.0 + number, "GET /a", "10.0.0.1", "id-1", 11.5 + number if number else 0.0
            )
        ]
        record.end(12.5 + number, 200)
    record.start(15.0, line, "10.0.0.2", "id-1")
    assert board.calls(3, 1)[0].peer == "10.0.0.2"
    record.start(16.0, line, "10.0.0.2", "id-2")
    assert board.calls(3, 1)[0].id == "id-2"
    assert board.requests(3, 1) == 3


def test_what_an_application_scribbles_over_a_record_does_not_last(board: Scoreboard) -> None:
    record = board.record(3, 0)
    for byte in (b"\xff", b"\0"):
        record.start(1.0, b"GET /")
        start = slot_offset(3)
        board.memory[start : start + 4096] = byte * 4096
        record.end(1.5, 200, 5)
    counters = board.counters(3, 1)
    assert (counters.by_class()[2], counters.bytes, counters.seconds) == (2, 10, 1.0)


@pytest.mark.parametrize("place", range(len(DURATION_BOUNDS)))
def test_a_duration_belongs_to_the_class_that_its_bound_ends(board: Scoreboard, place: int) -> None:
    """Prometheus' `le`: less or equal."""
    bound = DURATION_BOUNDS[place]
    record = board.record(0, 0)
    for now, seconds in ((0.0, bound), (100.0, bound * 1.0001)):
        record.start(now, b"GET /")
        record.end(now + seconds, 200)
    counts = board.counters(0, 1).by_duration()
    assert [number for number, count in enumerate(counts) if count] == [place, place + 1]


def test_threads_are_counted_together(board: Scoreboard) -> None:
    for thread in range(3):
        record = board.record(1, thread)
        record.start(1.0, b"GET /")
        record.add_queue_time(0.25)
        record.end(2.0, 500, 10)
    counters = board.counters(1, 3)
    assert (counters.requests, counters.bytes, counters.seconds) == (3, 30, 3.0)
    assert (counters.queued, counters.waited) == (3, 0.75)
    assert counters.plus(counters).by_class() == [0, 0, 0, 0, 0, 6]


def test_a_shorter_text_leaves_nothing_of_the_longer(board: Scoreboard) -> None:
    record = board.record(0, 0)
    record.start(1.0, b"GET /a-long-path-indeed", "192.168.100.100", "a-long-id")
    record.end(1.5)
    record.start(2.0, b"GET /b", "10.1.1.1", "b")
    assert board.calls(0, 1) == [CallRecord(0, 2.0, "GET /b", "10.1.1.1", "b", 1.5)]


@pytest.mark.parametrize("more", [-1, 0, 1, 10_000])
def test_long_texts_are_cut_and_touch_no_neighbour(board: Scoreboard, more: int) -> None:
    before, after = board.record(0, 0), board.record(0, 2)
    before.start(1.0, b"before", "before", "before")
    after.start(3.0, b"after", "after", "after")
    board.record(0, 1).start(
        2.0, b"x" * (LINE + more), "y" * (PEER + more), "z" * (REQUEST_ID + more)
    )
    cut = min(more, 0)
    assert board.calls(0, 3) == [
        CallRecord(0, 1.0, "before", "before", "before"),
        CallRecord(1, 2.0, "x" * (LINE + cut), "y" * (PEER + cut), "z" * (REQUEST_ID + cut)),
        CallRecord(2, 3.0, "after", "after", "after"),
    ]
    assert board.counters(0, 3) == Counters()


def test_any_byte_may_stand_in_a_line(board: Scoreboard) -> None:
    board.record(0, 0).start(1.0, b"GET /caf\xe9\xff")
    assert board.calls(0, 1)[0].line == "GET /caf\xe9\xff"


def test_a_worker_publishes_its_connections(board: Scoreboard) -> None:
    teller = board.stats_writer(2)
    teller.set_connections(5, 4, 2, 1)
    place = board.worker_stats(2)
    assert place[:4] == (5, 4, 2, 1)
    assert place.changed > 0
    teller.set_connections(5, 4, 2, 1)
    assert board.worker_stats(2) == place
    assert board.worker_stats(1)[:4] == (0, 0, 0, 0)


def test_a_worker_publishes_its_last_error(board: Scoreboard) -> None:
    teller = board.stats_writer(2)
    assert (board.worker_stats(2).error, board.worker_stats(2).failed) == ("", 0.0)
    teller.set_error("GET /: ValueError: " + "x" * ERROR)
    teller.set_error("GET /b: KeyError: 'b'")
    place = board.worker_stats(2)
    assert place.error == "GET /b: KeyError: 'b'"
    assert place.failed > 0


def test_the_corners_are_apart(board: Scoreboard) -> None:
    """The last thread of a slot and the first of the next; the very last record there is."""
    places = [(0, 0), (0, THREADS_MAX - 1), (1, 0), (WORKER_SLOTS - 1, THREADS_MAX - 1)]
    for number, (slot, thread) in enumerate(places, 1):
        board.record(slot, thread).start(float(number), b"%d" % number)
        board.stats_writer(slot).set_error("x" * ERROR)
    board.draining = board.only_worker = True
    for number, (slot, thread) in enumerate(places, 1):
        call = board.calls(slot, THREADS_MAX)[thread]
        assert (call.started, call.line) == (float(number), str(number))
    assert (board.draining, board.only_worker) == (True, True)
    board.draining = False
    assert (board.draining, board.only_worker) == (False, True)


def test_clearing_a_slot_leaves_the_others(board: Scoreboard) -> None:
    for slot in (1, 2, 3):
        board.stats_writer(slot).set_connections(1, 1, 1, 1)
        for thread in (0, 1):
            board.record(slot, thread).start(1.0, b"GET /")
    board.draining = True
    board.clear(2, 2)
    assert board.calls(2, 2) == [idle(0), idle(1)]
    assert board.worker_stats(2).held == 0
    assert all(call.started for slot in (1, 3) for call in board.calls(slot, 2))
    assert board.worker_stats(3).held == 1
    assert board.draining


def test_a_new_worker_counts_from_nought(board: Scoreboard) -> None:
    for _ in range(2):
        board.clear(0, 1)
        record = board.record(0, 0)
        record.start(1.0, b"")
        record.end(2.0, 200, 3)
        counters = board.counters(0, 1)
        assert (counters.requests, counters.bytes, counters.seconds) == (1, 3, 1.0)


def _write(fd: int, stop: int) -> None:
    record = Scoreboard(fd).record(0, 0)
    texts = [(b"a" * LINE, "a" * PEER, "a" * REQUEST_ID), (b"b" * 50, "b" * 20, "b" * 30)]
    now = 1.0
    while not os.pread(stop, 1, 0):
        for line, peer, request_id in texts:
            record.start(now, line, peer, request_id)
            record.end(now + 0.5)
            now += 1.0


def test_no_torn_read_gets_out(board: Scoreboard) -> None:
    """A reader beside a writer that does nothing else: each text is of one request."""
    stop = os.memfd_create("stop")
    writer = multiprocessing.get_context("fork").Process(target=_write, args=(board.fd, stop))
    writer.start()
    try:
        seen = set()
        before = 0
        for _ in range(20_000):
            (call,) = board.calls(0, 1)
            seen.add((call.line[:1], call.peer[:1], call.id[:1], len(set(call.line))))
            requests = board.requests(0, 1)
            assert requests >= before
            before = requests
        assert seen <= {("", "", "", 0), ("a", "a", "a", 1), ("b", "b", "b", 1)}
    finally:
        os.pwrite(stop, b"x", 0)
        writer.join()
        os.close(stop)


def test_what_a_writer_left_half_written_is_no_call(board: Scoreboard) -> None:
    """It was killed in the middle of it: no reader waits for the rest."""
    record = board.record(0, 0)
    record.start(1.0, b"GET /", "peer")
    record._reals[STARTED] = 0.0
    assert board.calls(0, 1) == [idle()]


def test_its_size_stays(board: Scoreboard) -> None:
    """The master would get SIGBUS beyond the end of a file that a zygote has truncated."""
    for size in (0, 4096, 1 << 40):
        with pytest.raises(PermissionError):
            os.ftruncate(board.fd, size)


def test_it_is_shared_by_its_descriptor(board: Scoreboard) -> None:
    """As a process that was given the descriptor sees it."""
    size = os.fstat(board.fd).st_size
    with mmap.mmap(os.dup(board.fd), size) as other:
        board.record(0, 0).start(1.0, b"GET /shared")
        assert other.find(b"GET /shared") > 0


def test_pages_that_were_never_touched_cost_nothing() -> None:
    fresh = Scoreboard()
    before = os.fstat(fresh.fd).st_blocks
    fresh.record(7, 0).start(1.0, b"GET /")
    assert before * 512 <= mmap.PAGESIZE  # the header, which says how it is laid out
    assert os.fstat(fresh.fd).st_blocks * 512 <= 2 * mmap.PAGESIZE


KIND = 2**64 - 2


def test_a_worker_takes_connections_of_one_kind_until_it_says_otherwise(board: Scoreboard) -> None:
    assert (board.handover_kind(1), board.is_idle(1, KIND)) == (0, False)
    board.start_receiving(1, KIND, 1)
    assert (board.handover_kind(1), board.is_idle(1, KIND)) == (KIND, True)
    assert not board.is_idle(1, KIND - 1)
    assert not board.is_idle(2, KIND)
    board.stop_receiving(1)
    assert (board.handover_kind(1), board.is_idle(1, KIND)) == (0, False)


def test_a_worker_is_idle_while_one_of_its_threads_is(board: Scoreboard) -> None:
    board.start_receiving(0, KIND, 2)
    first, second = board.record(0, 0), board.record(0, 1)
    first.start(1.0, b"GET /")
    assert board.is_idle(0, KIND)
    second.start(2.0, b"GET /")
    assert not board.is_idle(0, KIND)
    first.end(2.5)
    assert board.is_idle(0, KIND)


def test_what_a_dead_worker_took_its_successor_does_not(board: Scoreboard) -> None:
    board.start_receiving(5, KIND, 3)
    board.clear(5, 3)
    assert board.handover_kind(5) == 0


def test_the_sign_of_a_slot_is_no_part_of_a_record(board: Scoreboard) -> None:
    board.record(4, THREADS_MAX - 1).start(1.0, b"x" * LINE)
    board.start_receiving(5, KIND, THREADS_MAX)
    assert board.calls(5, 1) == [idle()]
    assert board.calls(4, THREADS_MAX)[-1].line == "x" * LINE


# A worker's own slot, and what it may have written there.


def in_child(board: Scoreboard, slot: int | None, deed: Callable[[], object]) -> str:
    """What comes of a deed in a process that is confined to a slot."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            board.confine(slot)
            os.write(tell, str(deed()).encode())
        except BaseException as problem:
            os.write(tell, f"{type(problem).__name__}: {problem}".encode())
        finally:
            os._exit(0)
    os.close(tell)
    os.waitpid(pid, 0)
    with open(told) as file:
        return file.read()


def test_a_confined_worker_writes_its_own_slot_and_reads_the_others(board: Scoreboard) -> None:
    board.start_receiving(4, KIND, 1)
    board.draining = True

    def work() -> object:
        board.record(3, 1).start(12.5, b"GET /own")
        board.stats_writer(3).set_error("an error")
        board.start_receiving(3, KIND, 2)
        return board.draining, board.is_idle(4, KIND), board.handover_kind(3) == KIND, board.fd

    assert in_child(board, 3, work) == "(True, True, True, -1)"
    assert board.calls(3, 2)[1].line == "GET /own"
    assert board.worker_stats(3).error == "an error"
    assert board.is_idle(3, KIND)
    assert in_child(board, 3, lambda: board.record(4, 0)).startswith("ValueError: slot 4 ")
    assert in_child(board, 3, lambda: board.stop_receiving(4)).startswith("ValueError: slot 4 ")
    assert in_child(board, 3, lambda: board.clear(4, 1)).startswith("TypeError: ")
    assert in_child(board, None, lambda: board.clear(4, 1)).startswith("TypeError: ")
    assert board.handover_kind(4) == KIND


def test_a_status_that_http_does_not_know_is_counted_with_none(board: Scoreboard) -> None:
    record = board.record(0, THREADS_MAX - 1)
    record.start(1.0, b"GET /")
    record.end(2.0, 999, 1)
    assert board.counters(0, THREADS_MAX).by_class() == [1, 0, 0, 0, 0, 0]


NONSENSE = [
    b"\xff" * 8,
    struct.pack("<d", float("nan")),
    struct.pack("<d", 1e300),
    b"\x1b[2J\n\0\r\x9b",
]
WRITTEN = st.one_of(
    st.sampled_from(NONSENSE).map(lambda word: word * 600),
    st.binary(max_size=4096),
    st.lists(st.sampled_from([*NONSENSE, bytes(8)]), max_size=400).map(b"".join),
)


@given(WRITTEN)
def test_whatever_a_worker_writes_is_read_as_something_that_makes_sense(data: bytes) -> None:
    start = slot_offset(7)
    SCRIBBLED.memory[start : start + 4096] = data.ljust(4096, b"\0")[:4096]
    calls, place = SCRIBBLED.calls(7, 3), SCRIBBLED.worker_stats(7)
    counters = SCRIBBLED.counters(7, 3)
    for call in calls:
        assert 0.0 <= call.started <= monotonic() + 1
        assert 0.0 <= call.ended <= monotonic() + 1
        assert (call.line + call.peer + call.id).isprintable()
        assert min(call.resumed, call.waiting) >= 0.0
        assert max(call.resumed, call.waiting) <= monotonic() + 1
        assert 0.0 <= call.waited < 2**63
        assert call.at_work_since(5.0) >= 5.0
    numbers = (*place[:4], place.websockets, *counters.cells, counters.bytes, counters.displaced)
    numbers += (counters.timed_out,)
    assert all(0 <= number < 2**63 for number in numbers)
    total = Counters()
    for _ in range(3):
        total = total.plus(counters)
    assert 0 <= total.bytes < 2**63
    assert place.error.isprintable()
    assert 0.0 <= place.failed <= monotonic() + 1
    assert 0.0 <= counters.seconds < 2**63
    assert 0.0 <= counters.waited < 2**63
    assert SCRIBBLED.is_idle(7, KIND) in (False, True)
    record = SCRIBBLED.record(7, 0)
    record.start(1.0, b"GET /")
    record.add_queue_time(0.5)
    record.end(2.0, 200, 1)


SCRIBBLED = Scoreboard()


def test_the_time_of_a_call_is_that_of_the_application_at_work(board: Scoreboard) -> None:
    record = board.record(3, 0)

    def call() -> CallRecord:
        return board.calls(3, 1)[0]

    record.start(10.0, b"GET /a")
    assert call().at_work_since() == 10.0
    assert (record.overdue(11.9, 2.0), record.overdue(12.0, 2.0)) == (False, True)
    record.resume(11.0)  # a piece of the response is out
    assert (call().resumed, call().at_work_since(), call().waited) == (11.0, 11.0, 0.0)
    assert not record.overdue(12.0, 2.0)
    record.wait(12.0)
    assert (call().waiting, call().at_work_since()) == (12.0, inf)
    assert not record.overdue(99.0, 2.0)
    record.resume(15.0)
    record.wait(15.5)
    record.resume(16.5)
    assert (call().waiting, call().waited, call().at_work_since()) == (0.0, 4.0, 16.5)
    assert record.overdue(18.5, 2.0)
    record.end(17.0, 200)
    assert call().started == 0.0


def test_what_a_call_has_waited_is_no_other_calls(board: Scoreboard) -> None:
    record = board.record(3, 0)
    record.start(10.0, b"GET /a")
    record.wait(11.0)
    record.end(12.0, 200)  # a thread of the application's still waits for the client
    record.start(13.0, b"GET /b")
    (call,) = board.calls(3, 1)
    assert (call.resumed, call.waiting, call.waited, call.at_work_since()) == (0.0, 0.0, 0.0, 13.0)
    assert record.overdue(15.0, 2.0)
    record.resume(16.0)
    (call,) = board.calls(3, 1)
    assert (call.waiting, call.waited, call.at_work_since(20.0)) == (0.0, 0.0, 20.0)
