"""Writing a worker's own slot of the scoreboard."""

import mmap
from bisect import bisect_left
from time import monotonic
from typing import Final, NamedTuple

from prefork.scoreboard.slot_layout import (
    ACCEPT_FLAGS,
    BEAT,
    BLOCKED,
    BYTES,
    CELLS,
    CHANGED,
    COUNTS,
    DISPLACED,
    DURATION_BOUNDS,
    ENDED,
    ERROR_AT,
    ERROR_FIELD,
    FAILED,
    HELD,
    ID_AT,
    ID_FIELD,
    NUMBER_MAX,
    PARKED,
    PAUSE_BEGAN,
    PAUSE_ENDED,
    PEER_FIELD,
    QUEUE_SECONDS,
    QUEUED,
    READING,
    RECORD_SIZE,
    RESUMED,
    ROWS,
    SECONDS,
    START_AT,
    START_FIELDS,
    STARTED,
    TEXT_AT,
    TIMED_OUT,
    WAITED,
    WAITING,
    WEBSOCKETS,
    WRITING,
)

_pack_start: Final = START_FIELDS.pack_into


class SlotMemory(NamedTuple):
    """Writable memory as bytes, words and reals, and the byte offset at which a slot begins."""

    memory: "mmap.mmap | memoryview"
    words: "memoryview[int]"
    reals: "memoryview[float]"
    offset: int


class ThreadRecord:
    """One thread's record of its calls; written by that thread only."""

    __slots__ = (
        *("_bytes", "_counts", "_id", "_line", "_memory", "_offset", "_peer", "_reals"),
        *("_resumed", "_seconds", "_started", "_waited", "_waiting", "_words"),
    )

    def __init__(self, own: SlotMemory, offset: int) -> None:
        """`offset`: bytes from the beginning of the writable memory to the record."""
        self._memory = own.memory
        self._offset = offset
        word = offset // 8
        self._words = own.words[word : word + RECORD_SIZE // 8]
        self._reals = own.reals[word : word + RECORD_SIZE // 8]
        # What was written is kept here, too: to read it back takes as long as to write it, and the
        # application may have scribbled over it.
        self._counts = [0] * CELLS
        self._seconds = 0.0
        self._bytes = 0
        self._started = 0.0
        self._resumed = self._waiting = self._waited = 0.0
        self._peer = ""
        self._id = ""
        self._line = b""

    def start(self, now: float, line: bytes, peer: str = "", request_id: str = "") -> None:
        """A call begins: `now` in monotonic seconds, the request line and the client."""
        if line is self._line and peer == self._peer and request_id == self._id:
            # The same text again: it needs only a new start.
            self._started = self._reals[STARTED] = now
            return
        self._reals[STARTED] = 0.0
        if peer != self._peer:
            self._peer = peer
            PEER_FIELD.pack_into(self._memory, self._offset + TEXT_AT, peer.encode())
        if request_id != self._id:
            self._id = request_id
            ID_FIELD.pack_into(self._memory, self._offset + ID_AT, request_id.encode())
        self._line = line
        self._started = now
        _pack_start(self._memory, self._offset + START_AT, line, now)

    def end(self, now: float, status: int = 0, size: int = 0) -> None:
        """The call has ended: `now` in monotonic seconds, its status and the bytes of its body."""
        self.count(now - self._started, status, size)
        self._reals[ENDED] = now

    def count(self, elapsed: float, status: int, size: int) -> None:
        """Counts a call that has taken `elapsed` seconds."""
        cell = ROWS[status // 100]
        if elapsed > 0.001:  # most are not, and bisect costs a fifth of all that is done here
            cell += bisect_left(DURATION_BOUNDS, elapsed)
        counts, words, reals = self._counts, self._words, self._reals
        counts[cell] = words[COUNTS + cell] = counts[cell] + 1
        self._seconds = reals[SECONDS] = self._seconds + elapsed
        self._bytes = words[BYTES] = self._bytes + size

    # What the time limit of a call is measured from: `request_timeout` bounds the work of the
    # application on the next piece of its response, and no time that its client takes.  A time that
    # is before the start of the call was left by another one, so `start` has nothing to reset.

    def resume(self, now: float) -> None:
        """A piece of the response is out, or the client is no longer waited for: from now on the
        application is at work again."""
        if self._waiting > self._started:
            self._waited += now - self._waiting
        elif self._resumed < self._started:
            self._waited = 0.0
        reals = self._reals
        reals[WAITED] = self._waited
        # The last step: until then a reader sees a call that waits, or the moment before.
        self._resumed = reals[RESUMED] = now
        if self._waiting:
            self._waiting = reals[WAITING] = 0.0

    def wait(self, now: float) -> None:
        """From now on the call waits for its client."""
        self.resume(now)
        self._waiting = self._reals[WAITING] = now

    def overdue(self, now: float, limit: float) -> bool:
        """Whether the application has been at work on the next piece for `limit` seconds."""
        if self._waiting > self._started:
            return False
        return now - max(self._started, self._resumed) >= limit

    def end_upgraded(self, now: float) -> None:
        """The call that was upgraded has ended, and counts as an answer 101.

        How long it took is no measure of the application.
        """
        self.count_refused(101, 0)
        self._reals[ENDED] = now

    def count_refused(self, status: int, size: int) -> None:
        """A request was answered without the application, by this thread: it is counted with the
        others, and took no time in the application."""
        cell = ROWS[status // 100]
        counts, words = self._counts, self._words
        counts[cell] = words[COUNTS + cell] = counts[cell] + 1
        self._bytes = words[BYTES] = self._bytes + size

    def add_queue_time(self, seconds: float) -> None:
        """According to a proxy, the request of this call has waited for so many seconds."""
        queued = self._words[QUEUED]
        # The application may have scribbled over it: such a number starts again.
        self._words[QUEUED] = queued + 1 if queued <= NUMBER_MAX else 1
        self._reals[QUEUE_SECONDS] += seconds


class AcceptFlags:
    """At which listeners a worker waits in accept4(2); one thread at a time for each listener."""

    __slots__ = ("_word", "_words")

    def __init__(self, own: SlotMemory) -> None:
        self._words = own.words
        self._word = own.offset // 8 + ACCEPT_FLAGS

    def set(self, listener: int, waiting: bool) -> None:
        """`listener`: its number, from 0 to LISTENERS - 1."""
        self._words[self._word + listener] = waiting


class WorkerStatsWriter:
    """State of a worker as a whole, written by any of its threads."""

    __slots__ = (
        *("_beat", "_memory", "_offset", "_reals", "_websockets", "_word", "_words", "_written"),
    )

    def __init__(self, own: SlotMemory) -> None:
        self._memory, self._words, self._reals, self._offset = own
        self._word = own.offset // 8
        self._written = (0, 0, 0, 0)
        self._websockets = 0
        self._beat = 0.0

    def set_connections(self, held: int, parked: int, reading: int, writing: int) -> None:
        """Numbers of connections, as `slot_reader.WorkerStats` has them."""
        numbers = (held, parked, reading, writing)
        if numbers != self._written:
            self._written = numbers
            words, word = self._words, self._word
            (
                words[word + HELD],
                words[word + PARKED],
                words[word + READING],
                words[word + WRITING],
            ) = numbers
            self._reals[word + CHANGED] = monotonic()

    def set_websockets(self, count: int) -> None:
        """The number of open WebSockets."""
        if count != self._websockets:
            self._websockets = self._words[self._word + WEBSOCKETS] = count

    def set_displaced(self, count: int) -> None:
        """The connections that were ended for others, so far."""
        self._words[self._word + DISPLACED] = count

    def set_timed_out(self, count: int) -> None:
        """The calls that the worker itself has found to be over `request_timeout`, so far."""
        self._words[self._word + TIMED_OUT] = count

    def beat(self, now: float) -> None:
        """The worker's event loop turns, at `now` in monotonic seconds."""
        reals, word = self._reals, self._word
        if now - self._beat >= BLOCKED:
            # If calls ran, the loop was blocked: the master sees the beat stand still, and here how
            # long it did.
            reals[word + PAUSE_BEGAN], reals[word + PAUSE_ENDED] = self._beat, now
        self._beat = reals[word + BEAT] = now

    def set_error(self, text: str) -> None:
        """An error that happened now; two threads that fail at one time may mix their texts."""
        word = self._word
        self._reals[word + FAILED] = 0.0
        data = text.encode("latin-1", "backslashreplace")
        ERROR_FIELD.pack_into(self._memory, self._offset + ERROR_AT, data)
        self._reals[word + FAILED] = monotonic()
