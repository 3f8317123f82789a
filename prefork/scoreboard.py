"""The scoreboard: shared memory, one slot a worker; the worker writes, the master reads.

It is a memfd (memfd_create(2), Linux 3.17), mapped before the fork, so that a worker tells what it
does without a system call.  A slot is a whole number of pages of its own: first what the worker as
a whole tells (`WorkerStats`), then one record for each thread that calls the application
(`ThreadRecord`). Untouched pages cost nothing, so there are slots and records to spare.

Numbers are aligned words that are stored whole, each for itself: none is ever read torn, and one
that only grows never seems to go back.  What belongs together, a request's text and its start, is
a sequence lock, with the start as its number: it is 0 while the text is being written, and another
one each time.  The reader takes what it has read if the number was the same before and after.
(Stores keep their order on x86-64; elsewhere they are an interpreter's steps apart.)

A worker can write its own slot and nothing else (`confine`).  What stands in there is its word, and
an application's code in C can scribble over it: whoever reads it takes what makes sense, so that
nonsense neither crashes the reader nor lasts in a sum.
"""

import mmap
import os
import struct
from bisect import bisect_left
from collections.abc import Iterable
from time import monotonic
from typing import NamedTuple

from prefork import linux

SLOTS = 1024
"""Workers alive at one time, retiring ones included."""

THREADS = 255
"""Records in a slot: the largest `workers.threads`."""

LINE = 104
"""Bytes kept of a request line; the rest is cut."""

PEER = 48
"""Bytes kept of a client's address."""

LISTENERS = 8
"""Listeners, the first ones, of which is told who waits there."""

REQUEST_ID = 64
"""Bytes kept of a request's id."""

ERROR = 200
"""Bytes kept of a worker's last error."""

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds: the upper bounds of the classes by which calls are counted; the last class has none."""

CLASSES = 6
"""Calls are counted by the first digit of their status; 0: no HTTP."""

_ROW = len(BOUNDS) + 1
CELLS = CLASSES * _ROW
_ROWS = (*range(0, CELLS, _ROW), 0, 0, 0, 0)
"""Where the cells of a status begin, by its first digit."""

# A record, in words of eight bytes from its beginning.
_ENDED, _BYTES, _SECONDS, _QUEUED, _WAITED = range(5)
_COUNTS = 8
_TEXT = (_COUNTS + CELLS) * 8  # bytes from the record's beginning

_PEER = struct.Struct(f"<{PEER}s")
_ID = struct.Struct(f"<{REQUEST_ID}s")
_START = struct.Struct(f"<{LINE}sd")  # line, started
_REQUEST = struct.Struct(f"<{PEER}s{REQUEST_ID}s{LINE}sd")
_ID_AT = _TEXT + PEER
_START_AT = _ID_AT + REQUEST_ID
_STARTED = (_START_AT + LINE) // 8
_pack_start = _START.pack_into
_RECORD_SIZE = 1024

# What the worker as a whole tells stands before its records: in words, and then a text.
_KIND, _THREADS, _HELD, _PARKED, _READING, _WRITING, _CHANGED, _FAILED = range(8)
_WAITS = 8
_ERROR = struct.Struct(f"<{ERROR}s")
_ERROR_AT = 128
_PLACE_SIZE = 512

_HEADER = mmap.PAGESIZE
"""The first page is the master's: what it tells all workers, and then how this memory is laid out,
which a master of other code that takes it over has to understand."""

VERSION = 3
"""Rises with every change of meaning; a change of size shows by itself."""

_LAYOUT_AT = 16
_LAYOUT = struct.Struct("<8s4I")

_SLOT_SIZE = -(-(_PLACE_SIZE + _RECORD_SIZE * THREADS) // mmap.PAGESIZE) * mmap.PAGESIZE

_MOST = 1 << 40
"""Calls, connections and seconds beyond which a number is nonsense."""

_MOST_BYTES = 1 << 50

_AHEAD = 1.0
"""Seconds that a time may be in the future: it was read after the clock was."""

_ATTEMPTS = 100
"""Reads of a text that is being written; a writer that was killed meanwhile never ends."""

assert _START_AT + _START.size <= _RECORD_SIZE
assert (_WAITS + LISTENERS) * 8 <= _ERROR_AT
assert _ERROR_AT + ERROR <= _PLACE_SIZE


class CallRecord(NamedTuple):
    """What one thread of a worker is doing; times are monotonic seconds."""

    thread: int
    started: float
    """0.0 where no call runs."""
    line: str
    peer: str
    id: str
    ended: float = 0.0
    """When the last one was over; 0.0 where there was none."""


class WorkerStats(NamedTuple):
    """What a worker as a whole has told; times are monotonic seconds, 0.0 for never."""

    held: int
    """Connections that it has."""
    parked: int
    """Those of them that wait for their client: idle, or as follows."""
    reading: int
    """Those of them in the middle of a request that has not come whole."""
    writing: int
    """Those of them with a response that the client has not taken whole."""
    changed: float
    """When one of these numbers changed last."""
    error: str
    failed: float
    """When the last error was."""


class Counters(NamedTuple):
    """What has been done so far: numbers that only grow."""

    cells: tuple[int, ...] = (0,) * CELLS
    """Calls by the first digit of the status, and within it by duration (BOUNDS)."""
    bytes: int = 0
    """Of response bodies."""
    seconds: float = 0.0
    """In the application."""
    queued: int = 0
    """Requests of which a proxy said when it had them."""
    waited: float = 0.0
    """Seconds that these had waited before the application got them."""

    @property
    def requests(self) -> int:
        return sum(self.cells)

    def by_class(self) -> list[int]:
        """Calls by the first digit of their status."""
        return [sum(self.cells[row : row + _ROW]) for row in range(0, CELLS, _ROW)]

    def by_duration(self) -> list[int]:
        """Calls by their duration: a number for each of BOUNDS, and one for what is longer."""
        return [sum(self.cells[column::_ROW]) for column in range(_ROW)]

    def plus(self, other: "Counters") -> "Counters":
        return Counters(
            tuple(map(int.__add__, self.cells, other.cells)),
            self.bytes + other.bytes,
            self.seconds + other.seconds,
            self.queued + other.queued,
            self.waited + other.waited,
        )


class ScoreboardError(Exception):
    """A scoreboard that was handed over is of another layout; one line."""


class Scoreboard:
    """All slots; made once by the master and inherited by every worker."""

    def __init__(self, fd: int | None = None) -> None:
        """Makes one, or takes over the one behind a descriptor.

        Raises ScoreboardError where that is of another version.
        """
        self.fd = os.memfd_create("prefork-scoreboard") if fd is None else fd
        os.set_inheritable(self.fd, False)
        layout = _LAYOUT.pack(b"prefork", VERSION, SLOTS, _SLOT_SIZE, _RECORD_SIZE)
        size = _HEADER + SLOTS * _SLOT_SIZE
        if fd is None:
            os.ftruncate(self.fd, size)
            os.pwrite(self.fd, layout, _LAYOUT_AT)
        elif os.pread(fd, len(layout), _LAYOUT_AT) != layout:
            raise ScoreboardError(
                "the scoreboard that was handed over is of another version: restart the server"
                " instead"
            )
        # Not for another user, who may open what /proc shows of a worker's descriptors.
        os.fchmod(self.fd, 0o600)
        self._readable = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        self._own: tuple[int, memoryview] | None = None
        self._look_at(mmap.mmap(self.fd, size))

    def _look_at(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self._words = memoryview(memory).cast("Q")
        self._reals = memoryview(memory).cast("d")

    def confine(self, slot: int | None) -> None:
        """In a worker, for good: only its own slot can be written, all else only read.

        The mapping that was inherited goes, and with it each descriptor by which another could be
        made.  None: in a zygote, which has no slot but forks workers that will have one.
        """
        everything = mmap.mmap(self._readable, len(self.memory), prot=mmap.PROT_READ)
        self._words.release()
        self._reals.release()
        self.memory.close()
        self._look_at(everything)
        if slot is not None:
            self._own = slot, linux.map_shared(self.fd, _slot(slot), _SLOT_SIZE)
            os.close(self.fd)
            os.close(self._readable)
            self.fd = self._readable = -1

    def _writable(self, slot: int) -> "_Memory":
        """What can be written of a slot: in the master any, in a worker its own."""
        if self._own is None:
            return _Memory(self.memory, self._words, self._reals, _slot(slot))
        own, memory = self._own
        if own != slot:
            raise ValueError(f"slot {slot} is another worker's")
        return _Memory(memory, memory.cast("Q"), memory.cast("d"), 0)

    @property
    def draining(self) -> bool:
        """The server is about to stop: whoever sends clients here should send them elsewhere."""
        return self.memory[0] != 0

    @draining.setter
    def draining(self, value: bool) -> None:
        self.memory[0] = value

    @property
    def single(self) -> bool:
        """There is one worker, and no other being born."""
        return self.memory[1] != 0

    @single.setter
    def single(self, value: bool) -> None:
        self.memory[1] = value

    def clear(self, slot: int, threads: int) -> None:
        """Empties a slot before a worker is born into it (master only)."""
        start = _slot(slot)
        size = _PLACE_SIZE + _RECORD_SIZE * threads
        self.memory[start : start + size] = bytes(size)

    # The master's side.

    def calls(self, slot: int, threads: int) -> list[CallRecord]:
        """What each of a slot's threads is doing."""
        return [self._call(_record(slot, thread), thread) for thread in range(threads)]

    def _call(self, offset: int, thread: int) -> CallRecord:
        ended = _time(self._reals[offset // 8 + _ENDED])
        text = self._settled(offset + _TEXT, _REQUEST.size, offset // 8 + _STARTED)
        peer, request_id, line, since = _REQUEST.unpack(text)
        started = _time(since)
        running = started > ended
        return CallRecord(
            thread, started if running else 0.0, _text(line), _text(peer), _text(request_id), ended
        )

    def _settled(self, start: int, size: int, sequence: int) -> bytes:
        """Bytes that belong together; zeros where there are none, or where their writer died in
        the middle of them."""
        words = self._words
        for _ in range(_ATTEMPTS):
            number = words[sequence]
            data = self.memory[start : start + size]
            if words[sequence] == number and (number or not any(data)):
                return data
        return bytes(size)

    def place(self, slot: int) -> WorkerStats:
        """What a worker as a whole has told."""
        start = _slot(slot)
        word = start // 8
        numbers = self._words[word + _HELD : word + _CHANGED]
        held, parked, reading, writing = (_number(each) for each in numbers)
        error = self._settled(start + _ERROR_AT, ERROR, word + _FAILED)
        return WorkerStats(
            *(held, parked, reading, writing, _time(self._reals[word + _CHANGED])),
            *(_text(error), _time(self._reals[word + _FAILED])),
        )

    def requests(self, slot: int, threads: int) -> int:
        """How many calls are over."""
        return sum(sum(self._counts(_record(slot, thread))) for thread in range(threads))

    def counters(self, slot: int, threads: int) -> Counters:
        """What a slot's worker has done so far."""
        total = Counters()
        for thread in range(threads):
            offset = _record(slot, thread)
            word = offset // 8
            words, reals = self._words, self._reals
            total = total.plus(
                Counters(
                    tuple(self._counts(offset)),
                    _number(words[word + _BYTES], _MOST_BYTES),
                    _seconds(reals[word + _SECONDS]),
                    _number(words[word + _QUEUED]),
                    _seconds(reals[word + _WAITED]),
                )
            )
        return total

    def _counts(self, offset: int) -> list[int]:
        first = offset // 8 + _COUNTS
        return [_number(each) for each in self._words[first : first + CELLS]]

    # The worker's.

    def record(self, slot: int, thread: int) -> "ThreadRecord":
        """The record that one thread of a worker writes."""
        own = self._writable(slot)
        start = own.offset + _record(slot, thread) - _slot(slot)
        return ThreadRecord(own, start)

    def teller(self, slot: int) -> "WorkerStatsWriter":
        """Where a worker tells about itself as a whole."""
        return WorkerStatsWriter(*self._writable(slot))

    def waits(self, slot: int) -> "AcceptFlags":
        """Where a worker tells at which listeners it waits."""
        own = self._writable(slot)
        return AcceptFlags(own.words, own.offset // 8 + _WAITS)

    # Who takes connections that another worker hands over (prefork.worker.schedule.handover).

    def open(self, slot: int, kind: int, threads: int) -> None:
        """The worker of a slot takes connections of a kind, not 0 (the worker only)."""
        own = self._writable(slot)
        word = own.offset // 8
        own.words[word + _THREADS] = threads
        own.words[word + _KIND] = kind

    def shut(self, slot: int) -> None:
        """It takes none: it leaves, is short of descriptors, or (the master says so) is dead."""
        own = self._writable(slot)
        own.words[own.offset // 8 + _KIND] = 0

    def kind(self, slot: int) -> int:
        """Of the connections that the worker of a slot takes; 0 for none."""
        return self._words[_slot(slot) // 8 + _KIND]

    def idle(self, slot: int, kind: int) -> bool:
        """Whether the worker of a slot takes connections of a kind and has a thread to spare.

        As of this moment: between two short calls a busy worker looks idle.
        """
        words, reals, word = self._words, self._reals, _slot(slot) // 8
        if words[word + _KIND] != kind:
            return False
        threads = min(words[word + _THREADS], THREADS)
        records = (_record(slot, thread) // 8 for thread in range(threads))
        return any(reals[first + _STARTED] <= reals[first + _ENDED] for first in records)

    def waiting(self, slots: Iterable[int], kind: int, listener: int) -> int:
        """How many idle workers of these slots wait in accept4(2) on a listener, or did so when a
        connection came, and have not got a CPU since."""
        words = self._words
        return sum(
            words[_slot(slot) // 8 + _WAITS + listener] == 1 and self.idle(slot, kind)
            for slot in slots
        )


def _slot(slot: int) -> int:
    return _HEADER + slot * _SLOT_SIZE


def _record(slot: int, thread: int) -> int:
    return _slot(slot) + _PLACE_SIZE + thread * _RECORD_SIZE


class _Memory(NamedTuple):
    """Memory that can be written, as bytes, words and reals, and where in it a slot begins."""

    memory: "mmap.mmap | memoryview"
    words: "memoryview[int]"
    reals: "memoryview[float]"
    offset: int


# What is read, as far as it makes sense.


def _text(data: bytes) -> str:
    text = data.rstrip(b"\0").decode("latin-1")
    if text.isprintable():
        return text
    # It will be shown on a terminal.
    return "".join(char if char.isprintable() else "?" for char in text)


def _number(value: int, most: int = _MOST) -> int:
    return value if value <= most else 0


def _seconds(value: float) -> float:
    return value if 0.0 <= value <= _MOST else 0.0  # a NaN is neither


def _time(value: float) -> float:
    return value if 0.0 <= value <= monotonic() + _AHEAD else 0.0


class ThreadRecord:
    """One thread's own record."""

    __slots__ = (
        *("_bytes", "_counts", "_id", "_line", "_memory", "_offset", "_peer", "_reals"),
        *("_seconds", "_started", "_words"),
    )

    def __init__(self, own: "_Memory", offset: int) -> None:
        """`offset`: bytes from the beginning of what can be written."""
        self._memory = own.memory
        self._offset = offset
        word = offset // 8
        self._words = own.words[word : word + _RECORD_SIZE // 8]
        self._reals = own.reals[word : word + _RECORD_SIZE // 8]
        # What was told is kept here, too: to read it back takes as long as to tell it, and the
        # application may have scribbled over it.
        self._counts = [0] * CELLS
        self._seconds = 0.0
        self._bytes = 0
        self._started = 0.0
        self._peer = ""
        self._id = ""
        self._line = b""

    def start(self, now: float, line: bytes, peer: str = "", request_id: str = "") -> None:
        """A call begins: `now` in monotonic seconds, the request line and who asks."""
        if line is self._line and peer == self._peer and request_id == self._id:
            # The same text again: a start of its own is all that it needs.
            self._started = self._reals[_STARTED] = now
            return
        self._reals[_STARTED] = 0.0
        if peer != self._peer:
            self._peer = peer
            _PEER.pack_into(self._memory, self._offset + _TEXT, peer.encode())
        if request_id != self._id:
            self._id = request_id
            _ID.pack_into(self._memory, self._offset + _ID_AT, request_id.encode())
        self._line = line
        self._started = now
        _pack_start(self._memory, self._offset + _START_AT, line, now)

    def end(self, now: float, status: int = 0, size: int = 0) -> None:
        """The call is over: `now` in monotonic seconds, its status and the bytes of its body."""
        elapsed = now - self._started
        cell = _ROWS[status // 100]
        if elapsed > 0.001:  # most are not, and bisect costs a fifth of all that is done here
            cell += bisect_left(BOUNDS, elapsed)
        counts, words, reals = self._counts, self._words, self._reals
        counts[cell] = words[_COUNTS + cell] = counts[cell] + 1
        self._seconds = reals[_SECONDS] = self._seconds + elapsed
        self._bytes = words[_BYTES] = self._bytes + size
        reals[_ENDED] = now

    def waited(self, seconds: float) -> None:
        """A proxy has said that the call which begins had waited so long."""
        self._words[_QUEUED] = _number(self._words[_QUEUED]) + 1
        self._reals[_WAITED] += seconds


class AcceptFlags:
    """A worker's word on where it waits for connections, a listener's from one thread at a time."""

    __slots__ = ("_word", "_words")

    def __init__(self, words: "memoryview[int]", word: int) -> None:
        self._words = words
        self._word = word

    def tell(self, listener: int, waits: bool) -> None:
        """`listener`: its number, below LISTENERS."""
        self._words[self._word + listener] = waits


class WorkerStatsWriter:
    """A worker's word about itself as a whole, from any of its threads."""

    __slots__ = ("_memory", "_offset", "_reals", "_told", "_word", "_words")

    def __init__(
        self,
        memory: "mmap.mmap | memoryview",
        words: "memoryview[int]",
        reals: "memoryview[float]",
        offset: int,
    ) -> None:
        self._memory = memory
        self._words = words
        self._reals = reals
        self._offset = offset
        self._word = offset // 8
        self._told = (0, 0, 0, 0)

    def holds(self, held: int, parked: int, reading: int, writing: int) -> None:
        """Connections, as Place has them."""
        told = (held, parked, reading, writing)
        if told != self._told:
            self._told = told
            words, word = self._words, self._word
            (
                words[word + _HELD],
                words[word + _PARKED],
                words[word + _READING],
                words[word + _WRITING],
            ) = told
            self._reals[word + _CHANGED] = monotonic()

    def failed(self, text: str) -> None:
        """An error, now; two threads that fail at one time may mix their texts."""
        word = self._word
        self._reals[word + _FAILED] = 0.0
        data = text.encode("latin-1", "backslashreplace")
        _ERROR.pack_into(self._memory, self._offset + _ERROR_AT, data)
        self._reals[word + _FAILED] = monotonic()
