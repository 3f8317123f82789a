"""Where each number and each text of the scoreboard stands.

A slot is a whole number of pages.  It begins with the fields of the worker as a whole
(`slot_reader.WorkerStats`), and one record follows for each thread that calls the application
(`slot_writer.ThreadRecord`).  Untouched pages cost nothing, so slots and records are plentiful.

Numbers are aligned words that are stored whole, each for itself: no reader sees a torn number, and
a number that only grows never appears to go back.  What belongs together, such as a request's text
and its start, is protected by a sequence lock.  The start is the sequence number: it is 0 while the
text is being written, and it differs from call to call.  A reader accepts the text if the number
was the same before and after the read.  (Stores keep their order on x86-64; on other machines they
are at least an interpreter's step apart.)
"""

import mmap
import struct
from typing import Final

from prefork.capacity import THREADS_MAX, WORKER_SLOTS

LINE: Final = 104
"""Bytes kept of a request line; the rest is cut."""

PEER: Final = 48
"""Bytes kept of a client's address."""

LISTENERS: Final = 8
"""The first so many listeners have accept flags."""

REQUEST_ID: Final = 64
"""Bytes kept of a request's id."""

ERROR: Final = 200
"""Bytes kept of a worker's last error."""

BLOCKED: Final = 2.0
"""Seconds without a turn, while calls run, after which an event loop counts as blocked."""

DURATION_BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0),
)
"""Seconds: the upper bounds of the classes by which calls are counted; the last class has none."""

STATUS_CLASSES: Final = 6
"""Calls are counted by the first digit of their status; 0: the call is not HTTP."""

ROW: Final = len(DURATION_BOUNDS) + 1
"""Counters of one class of status."""

CELLS: Final = STATUS_CLASSES * ROW
"""Counters of a thread: one for each class of status and class of duration."""

ROWS: Final = (*range(0, CELLS, ROW), 0, 0, 0, 0)
"""The first cell of a status, by the first digit of that."""

# A thread's record, in words of eight bytes from its beginning.
ENDED: Final = 0
BYTES: Final = 1
SECONDS: Final = 2
QUEUED: Final = 3
QUEUE_SECONDS: Final = 4
RESUMED: Final = 5
WAITING: Final = 6
WAITED: Final = 7
COUNTS: Final = 8
_TEXT_WORD: Final = COUNTS + CELLS

TEXT_AT: Final = _TEXT_WORD * 8
"""Bytes from the record's beginning to its text."""

PEER_FIELD: Final = struct.Struct(f"<{PEER}s")
ID_FIELD: Final = struct.Struct(f"<{REQUEST_ID}s")
START_FIELDS: Final = struct.Struct(f"<{LINE}sd")
"""Request line, start."""

TEXT_FIELDS: Final = struct.Struct(f"<{PEER}s{REQUEST_ID}s{LINE}sd")
"""Peer, request id, request line, start."""

ID_AT: Final = TEXT_AT + PEER
START_AT: Final = ID_AT + REQUEST_ID
STARTED: Final = (START_AT + LINE) // 8
"""The word of the start, which is also the sequence number of the text."""

RECORD_SIZE: Final = 1024

# The fields of the worker as a whole stand before its records: first words, then a text.
HANDOVER_KIND: Final = 0
THREADS: Final = 1
HELD: Final = 2
PARKED: Final = 3
READING: Final = 4
WRITING: Final = 5
CHANGED: Final = 6
FAILED: Final = 7
ACCEPT_FLAGS: Final = 8
ERROR_FIELD: Final = struct.Struct(f"<{ERROR}s")
ERROR_AT: Final = 128
INBOX_READ: Final = (ERROR_AT + ERROR) // 8 + 1
WEBSOCKETS: Final = INBOX_READ + 1
BEAT: Final = WEBSOCKETS + 1
DISPLACED: Final = BEAT + 1
TIMED_OUT: Final = DISPLACED + 1
PAUSE_BEGAN: Final = TIMED_OUT + 1
PAUSE_ENDED: Final = PAUSE_BEGAN + 1
STATS_SIZE: Final = 512

HEADER: Final = mmap.PAGESIZE
"""Bytes of the first page.  The master alone writes it: flags for all workers, and a description of
this layout, which a master of other code has to understand when it takes the memory over."""

DRAINING_AT: Final = 0
ONLY_WORKER_AT: Final = 1

VERSION: Final = 5
"""Rises with every change of meaning; a change of size shows by itself."""

LAYOUT_AT: Final = 16
_LAYOUT: Final = struct.Struct("<8s4I")

SLOT_SIZE: Final = -(-(STATS_SIZE + RECORD_SIZE * THREADS_MAX) // mmap.PAGESIZE) * mmap.PAGESIZE

SIZE: Final = HEADER + WORKER_SLOTS * SLOT_SIZE
"""Bytes of the whole scoreboard."""

LAYOUT: Final = _LAYOUT.pack(b"prefork", VERSION, WORKER_SLOTS, SLOT_SIZE, RECORD_SIZE)

NUMBER_MAX: Final = 1 << 40
"""A larger number of calls, connections or seconds is nonsense."""

assert START_AT + START_FIELDS.size <= RECORD_SIZE
assert (ACCEPT_FLAGS + LISTENERS) * 8 <= ERROR_AT
assert ERROR_AT + ERROR <= INBOX_READ * 8 < PAUSE_ENDED * 8 <= STATS_SIZE - 8


def slot_offset(slot: int) -> int:
    """Bytes from the beginning of the scoreboard to a slot."""
    return HEADER + slot * SLOT_SIZE


def record_offset(slot: int, thread: int) -> int:
    """Bytes from the beginning of the scoreboard to a thread's record."""
    return slot_offset(slot) + STATS_SIZE + thread * RECORD_SIZE
