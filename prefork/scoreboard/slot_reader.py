"""Reading the scoreboard.

A worker can write into its own slot, and its application's code in C can scribble over that.  So a
reader takes only values that make sense: nonsense neither crashes the reader nor lasts in a sum.
"""

import mmap
from collections.abc import Iterable
from math import inf
from time import monotonic
from typing import NamedTuple

from prefork.capacity import THREADS_MAX
from prefork.scoreboard.slot_layout import (
    ACCEPT_FLAGS,
    BEAT,
    BYTES,
    CELLS,
    CHANGED,
    COUNTS,
    DISPLACED,
    ENDED,
    ERROR,
    ERROR_AT,
    FAILED,
    HANDOVER_KIND,
    HELD,
    INBOX_READ,
    NUMBER_MAX,
    PAUSE_BEGAN,
    PAUSE_ENDED,
    QUEUE_SECONDS,
    QUEUED,
    RESUMED,
    ROW,
    SECONDS,
    STARTED,
    TEXT_AT,
    TEXT_FIELDS,
    THREADS,
    TIMED_OUT,
    WAITED,
    WAITING,
    WEBSOCKETS,
    record_offset,
    slot_offset,
)

_BYTES_MAX = 1 << 50
_SUM_MAX = 1 << 62

_AHEAD = 1.0
"""Seconds that a time may be in the future: it may be written after the reader read the clock."""

_ATTEMPTS = 100
"""Reads of a text that is being written; a writer that was killed meanwhile never completes it."""


class CallRecord(NamedTuple):
    """What one thread of a worker is doing; times are monotonic seconds."""

    thread: int
    started: float
    """0.0 if no call runs."""
    line: str
    peer: str
    id: str
    ended: float = 0.0
    """When the last call ended; 0.0 if there was none."""
    resumed: float = 0.0
    """Since when the application has been at work on the next piece of its response; 0.0 if that is
    the first one, and the client was never waited for."""
    waiting: float = 0.0
    """Since when the call has waited for its client, 0.0 if it does not wait."""
    waited: float = 0.0
    """Seconds that the call has waited for its client before."""

    def at_work_since(self, earliest: float = 0.0) -> float:
        """Since when `request_timeout` and `slow_request` count, `earliest` at least; infinity
        while the call waits for its client."""
        return inf if self.waiting else max(self.started, self.resumed, earliest)


class WorkerStats(NamedTuple):
    """State of a worker as a whole; times are monotonic seconds, 0.0 for never."""

    held: int
    """Open connections."""
    parked: int
    """Open connections that wait for their client: idle ones, and the two kinds that follow."""
    reading: int
    """Open connections with an incomplete request."""
    writing: int
    """Open connections with a response that the client has not taken completely."""
    changed: float
    """When one of these numbers changed last."""
    error: str
    failed: float
    """When the last error was."""
    websockets: int = 0
    """Open WebSockets."""


class Counters(NamedTuple):
    """What a worker has done so far: numbers that only grow."""

    cells: tuple[int, ...] = (0,) * CELLS
    """Calls by the first digit of the status, and within that by duration (DURATION_BOUNDS)."""
    bytes: int = 0
    """Of response bodies."""
    seconds: float = 0.0
    """In the application."""
    queued: int = 0
    """Requests for which a proxy said when it received them."""
    waited: float = 0.0
    """Seconds that these requests had waited before they reached the application."""
    displaced: int = 0
    """Connections that were ended to make room for others."""
    timed_out: int = 0
    """Calls that a worker with an event loop has found to be over `request_timeout`."""

    @property
    def requests(self) -> int:
        return sum(self.cells)

    def by_class(self) -> list[int]:
        """Calls by the first digit of their status."""
        return [sum(self.cells[row : row + ROW]) for row in range(0, CELLS, ROW)]

    def by_duration(self) -> list[int]:
        """Calls by duration: a number for each of DURATION_BOUNDS, and one for longer calls."""
        return [sum(self.cells[column::ROW]) for column in range(ROW)]

    def plus(self, other: "Counters") -> "Counters":
        """The sums, which do not outgrow what status and snapshot can hold."""
        return Counters(
            tuple(map(int.__add__, self.cells, other.cells)),
            min(self.bytes + other.bytes, _SUM_MAX),
            self.seconds + other.seconds,
            self.queued + other.queued,
            self.waited + other.waited,
            self.displaced + other.displaced,
            self.timed_out + other.timed_out,
        )


class SlotReader:
    """Reads all slots from a mapping of the whole scoreboard."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._map(memory)

    def _map(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self._words = memoryview(memory).cast("Q")
        self._reals = memoryview(memory).cast("d")

    # What the master reports.

    def calls(self, slot: int, threads: int) -> list[CallRecord]:
        """What each of a worker's threads is doing."""
        return [self._call(record_offset(slot, thread), thread) for thread in range(threads)]

    def _call(self, offset: int, thread: int) -> CallRecord:
        word = offset // 8
        ended = _time(self._reals[word + ENDED])
        text = self._consistent(offset + TEXT_AT, TEXT_FIELDS.size, word + STARTED)
        peer, request_id, line, since = TEXT_FIELDS.unpack(text)
        started = _time(since)
        if started <= ended:
            return CallRecord(thread, 0.0, _text(line), _text(peer), _text(request_id), ended)
        # The order of these reads is that in which `ThreadRecord` does not write.
        waiting = _time(self._reals[word + WAITING])
        waited = _seconds(self._reals[word + WAITED])
        resumed = _time(self._reals[word + RESUMED])
        call = CallRecord(thread, started, _text(line), _text(peer), _text(request_id), ended)
        if resumed <= started:  # of another call
            return call
        return call._replace(
            resumed=resumed, waiting=waiting if waiting > started else 0.0, waited=waited
        )

    def _consistent(self, start: int, size: int, sequence: int) -> bytes:
        """Bytes that belong together; zeros if there are none, or if their writer was killed while
        it wrote them."""
        words = self._words
        for _ in range(_ATTEMPTS):
            number = words[sequence]
            data = self.memory[start : start + size]
            if words[sequence] == number and (number or not any(data)):
                return data
        return bytes(size)

    def worker_stats(self, slot: int) -> WorkerStats:
        """The state of a worker as a whole."""
        start = slot_offset(slot)
        word = start // 8
        numbers = self._words[word + HELD : word + CHANGED]
        held, parked, reading, writing = (_number(each) for each in numbers)
        error = self._consistent(start + ERROR_AT, ERROR, word + FAILED)
        return WorkerStats(
            *(held, parked, reading, writing, _time(self._reals[word + CHANGED])),
            *(_text(error), _time(self._reals[word + FAILED])),
            websockets=_number(self._words[word + WEBSOCKETS]),
        )

    def beat(self, slot: int) -> float:
        """Monotonic seconds at which the event loop of a worker turned last; 0.0 if it has none."""
        return _time(self._reals[slot_offset(slot) // 8 + BEAT])

    def pause(self, slot: int) -> tuple[float, float]:
        """(begin, end) of the last time that the event loop of a worker did not turn for BLOCKED
        seconds, or had nothing to do, in monotonic seconds."""
        word = slot_offset(slot) // 8
        return _time(self._reals[word + PAUSE_BEGAN]), _time(self._reals[word + PAUSE_ENDED])

    def requests(self, slot: int, threads: int) -> int:
        """The number of calls that have ended."""
        return sum(sum(self._counts(record_offset(slot, thread))) for thread in range(threads))

    def counters(self, slot: int, threads: int) -> Counters:
        """What a slot's worker has done so far."""
        total = Counters()
        for thread in range(threads):
            offset = record_offset(slot, thread)
            word = offset // 8
            words, reals = self._words, self._reals
            total = total.plus(
                Counters(
                    tuple(self._counts(offset)),
                    _number(words[word + BYTES], _BYTES_MAX),
                    _seconds(reals[word + SECONDS]),
                    _number(words[word + QUEUED]),
                    _seconds(reals[word + QUEUE_SECONDS]),
                )
            )
        first = slot_offset(slot) // 8
        return total._replace(
            displaced=_number(self._words[first + DISPLACED]),
            timed_out=_number(self._words[first + TIMED_OUT]),
        )

    def _counts(self, offset: int) -> list[int]:
        first = offset // 8 + COUNTS
        return [_number(each) for each in self._words[first : first + CELLS]]

    # What a worker asks about its siblings before it hands a connection over.

    def held(self, slot: int) -> int:
        """Open connections of the worker of a slot."""
        return _number(self._words[slot_offset(slot) // 8 + HELD])

    def handover_kind(self, slot: int) -> int:
        """The kind of connections that the worker of a slot receives; 0 if it receives none.

        See `prefork.worker.schedule.handover.kind_of`.
        """
        return self._words[slot_offset(slot) // 8 + HANDOVER_KIND]

    def inbox_read_at(self, slot: int) -> float:
        """Monotonic seconds at which the worker of a slot read its inbox last; 0.0 for never."""
        return _time(self._reals[slot_offset(slot) // 8 + INBOX_READ])

    def is_idle(self, slot: int, kind: int) -> bool:
        """Whether the worker of a slot receives connections of a kind and has a free thread.

        As of this moment: between two short calls a busy worker looks idle.
        """
        words, reals, word = self._words, self._reals, slot_offset(slot) // 8
        if words[word + HANDOVER_KIND] != kind:
            return False
        threads = min(words[word + THREADS], THREADS_MAX)
        records = (record_offset(slot, thread) // 8 for thread in range(threads))
        return any(reals[first + STARTED] <= reals[first + ENDED] for first in records)

    def count_waiting(self, slots: Iterable[int], kind: int, listener: int) -> int:
        """How many idle workers of these slots wait in accept4(2) on a listener, or did so when a
        connection came, and have not got a CPU since."""
        words = self._words
        return sum(
            words[slot_offset(slot) // 8 + ACCEPT_FLAGS + listener] == 1
            and self.is_idle(slot, kind)
            for slot in slots
        )


# Values as far as they make sense.


def _text(data: bytes) -> str:
    text = data.rstrip(b"\0").decode("latin-1")
    if text.isprintable():
        return text
    # It will be shown on a terminal.
    return "".join(char if char.isprintable() else "?" for char in text)


def _number(value: int, most: int = NUMBER_MAX) -> int:
    return value if value <= most else 0


def _seconds(value: float) -> float:
    return value if 0.0 <= value <= NUMBER_MAX else 0.0  # a NaN is neither


def _time(value: float) -> float:
    return value if 0.0 <= value <= monotonic() + _AHEAD else 0.0
