"""The scoreboard: shared memory, one slot a worker; the worker writes, the master reads.

It is a memfd (memfd_create(2), Linux 3.17), mapped before the fork, so that a worker tells what it
does without a system call: one `pack_into` at the start and one at the end of a request.  A slot
is a whole number of pages of its own, with a sign at its door and one record for each thread that
calls the application.  Untouched pages cost nothing, so there are slots and records to spare.
"""

import mmap
import os
import struct
from typing import NamedTuple

SLOTS = 1024
"""Workers alive at one time, retiring ones included."""

THREADS = 255
"""Records in a slot: the largest `workers.threads`."""

LINE = 104
"""Bytes kept of a request line; the rest is cut."""

# started: monotonic seconds of the call that runs now, 0.0 when none does; requests: answered by
# this thread since its worker was born; line: what it is answering, padded with NUL.
_RECORD = struct.Struct(f"<dQ{LINE}s8x")
_START = struct.Struct("<d")
_LINE = struct.Struct(f"<{LINE}s")
_END = struct.Struct("<dQ")

# The sign of a slot, in the place of a first record: what its worker takes connections for, 0 for
# none, and how many threads it has.  Native order: one store of eight bytes, never seen in halves.
_SIGN = struct.Struct("@QI")

_HEADER = mmap.PAGESIZE
"""The first page is the master's: what it tells all workers, and then how this memory is laid out,
which a master of other code that takes it over has to understand."""

VERSION = 2
"""Rises with every change of meaning; a change of size shows by itself."""

_LAYOUT_AT = 16
_LAYOUT = struct.Struct("<8s4I")

_SLOT_SIZE = -(-_RECORD.size * (1 + THREADS) // mmap.PAGESIZE) * mmap.PAGESIZE


class Call(NamedTuple):
    """What one thread of a worker is doing."""

    thread: int
    started: float
    requests: int
    line: str


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
        layout = _LAYOUT.pack(b"prefork", VERSION, SLOTS, _SLOT_SIZE, _RECORD.size)
        size = _HEADER + SLOTS * _SLOT_SIZE
        if fd is None:
            os.ftruncate(self.fd, size)
            os.pwrite(self.fd, layout, _LAYOUT_AT)
        elif os.pread(fd, len(layout), _LAYOUT_AT) != layout:
            raise ScoreboardError(
                "the scoreboard that was handed over is of another version: restart the server"
                " instead"
            )
        self.memory = mmap.mmap(self.fd, size)

    @property
    def draining(self) -> bool:
        """The server is about to stop: whoever sends clients here should send them elsewhere."""
        return self.memory[0] != 0

    @draining.setter
    def draining(self, value: bool) -> None:
        self.memory[0] = value

    def clear(self, slot: int, threads: int) -> None:
        """Empties a slot before a worker is born into it (master only)."""
        start = _HEADER + slot * _SLOT_SIZE
        size = _RECORD.size * (1 + threads)
        self.memory[start : start + size] = bytes(size)

    def calls(self, slot: int, threads: int) -> list[Call]:
        """The records of a slot's threads, as they stand.

        A record that is being written can be read torn: a line may end in another's tail.
        """
        found = []
        for thread in range(threads):
            started, requests, line = _RECORD.unpack_from(self.memory, _offset(slot, thread))
            text = line.rstrip(b"\0").decode("latin-1")
            found.append(Call(thread, started, requests, text))
        return found

    def record(self, slot: int, thread: int) -> "Record":
        """The record that one thread of a worker writes."""
        return Record(self.memory, _offset(slot, thread))

    # Who takes connections that another worker hands over (prefork.worker.handover).

    def open(self, slot: int, kind: int, threads: int) -> None:
        """The worker of a slot takes connections of a kind, not 0 (the worker only)."""
        _SIGN.pack_into(self.memory, _HEADER + slot * _SLOT_SIZE, kind, threads)

    def shut(self, slot: int) -> None:
        """It takes none: it leaves, is short of descriptors, or (the master says so) is dead."""
        _SIGN.pack_into(self.memory, _HEADER + slot * _SLOT_SIZE, 0, 0)

    def kind(self, slot: int) -> int:
        """Of the connections that the worker of a slot takes; 0 for none."""
        return int(_SIGN.unpack_from(self.memory, _HEADER + slot * _SLOT_SIZE)[0])

    def idle(self, slot: int, kind: int) -> bool:
        """Whether the worker of a slot takes connections of a kind and has a thread to spare.

        As of this moment: between two short calls a busy worker looks idle.
        """
        taken, threads = _SIGN.unpack_from(self.memory, _HEADER + slot * _SLOT_SIZE)
        if taken != kind:
            return False
        starts = (_START.unpack_from(self.memory, _offset(slot, each)) for each in range(threads))
        return any(started == 0.0 for (started,) in starts)


def _offset(slot: int, thread: int) -> int:
    return _HEADER + slot * _SLOT_SIZE + (1 + thread) * _RECORD.size


class Record:
    """One thread's own record."""

    __slots__ = ("_memory", "_offset", "requests")

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory = memory
        self._offset = offset
        self.requests = 0

    def start(self, now: float, line: bytes) -> None:
        """A call begins: `now` in monotonic seconds, and the request line."""
        # The line first: a reader who sees the time must not see the last call's line.
        _LINE.pack_into(self._memory, self._offset + _END.size, line)
        _START.pack_into(self._memory, self._offset, now)

    def end(self) -> None:
        """The call is over."""
        self.requests = requests = self.requests + 1
        _END.pack_into(self._memory, self._offset, 0.0, requests)
