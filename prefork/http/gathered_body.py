"""A request's body, gathered before the application is called: in memory, past a size on disk."""

import contextlib
import ctypes
from io import BufferedReader, BufferedWriter, BytesIO

from prefork.http.disk_budget import DiskBudget, SpillFile
from prefork.http.head_rules import Reject
from prefork.http.memory_budget import MemoryBudget
from prefork.quantity import quantity

_FIRST = 128 * 1024
_GROWTH = 16
"""A body of known length gets memory for so many bytes at first, and then for so many times what
has come: a client has to send something for what it takes."""

_FILE_BUFFER = 8 * 1024
"""Of a body on disk: no budget counts it, and the default of CPython 3.14 is 128 KiB."""

_SMALL = 64 * 1024
_SHARE = 0.5
"""Larger bodies take no more than this part of the budget: what can be in memory only needs the
rest."""

# With NULL its bytes are not set (Python/C API, "Bytes Objects"). They need not be: clients' bytes
# come there. To clear 10 MB takes as long as to receive them.
_uncleared = ctypes.pythonapi.PyBytes_FromStringAndSize
_uncleared.argtypes, _uncleared.restype = (ctypes.c_char_p, ctypes.c_ssize_t), ctypes.py_object


class GatheredBody:
    """The part of a body that has come so far."""

    __slots__ = (
        "_budget",
        "_disk",
        "_file",
        "_held",
        "_length",
        "_limit",
        "_memory",
        "_spill",
        "_view",
        "since",
        "size",
    )

    def __init__(
        self, memory: int, limit: int, budget: MemoryBudget, disk: DiskBudget, length: int = -1
    ) -> None:
        """`memory`: bytes kept in memory; `limit`: bytes allowed; 0 means no limit.  `length`:
        bytes that will come, -1 if that is not known.

        If the budget of memory is used up, the body is on disk from then on.
        """
        self._held = 0
        self._budget = budget
        self._disk = disk
        self._memory = memory
        self._limit = limit
        self._length = length
        self._file: BytesIO | BufferedWriter[SpillFile] = BytesIO()
        self._view: memoryview | None = None
        """The memory of the file, if the length is known: bytes are received into it."""
        self._spill: SpillFile | None = None
        self.size = 0
        self.since = 0.0
        """Monotonic seconds at which somebody began to look at its rate."""

    @property
    def on_disk(self) -> bool:
        return self._spill is not None

    def room(self) -> memoryview | None:
        """Where the next bytes belong, at least one, in memory; None if they are to be written.

        To be released before anything else is done with this object.
        """
        at = self.size
        if self._length < 0 or self._spill is not None or not self._reserve(at + 1):
            return None
        assert self._view is not None
        return self._view[at:]

    def received(self, size: int) -> None:
        """So many bytes were put where `room` said."""
        self.size += size

    def write(self, data: bytes) -> None:
        """Adds a piece. Raises Reject(413) past the limit, Reject(507) if bodies and responses have
        used up the disk budget, OSError if the disk is full."""
        at = self.size
        self.size = size = at + len(data)
        if self._limit and size > self._limit:
            raise Reject(413, f"body is larger than {quantity(self._limit, 'byte')}")
        spill = self._spill
        if spill is None:
            if self._reserve(size):
                if self._view is not None:
                    self._view[at:size] = data
                    return
            else:
                self._go_to_disk(at)
        elif not spill.reserve(size):
            raise _no_room()
        self._file.write(data)

    def _reserve(self, size: int) -> bool:
        """Takes memory for that many bytes in all; False if the body has to be on disk."""
        held, length = self._held, self._length
        if size <= held:
            return True
        if self._memory and max(size, length) > self._memory:
            return False
        wanted = size if length < 0 else min(length, max(_FIRST, _GROWTH * self.size, size))
        if not self._budget.take(wanted - held, 1.0 if wanted <= _SMALL else _SHARE):
            return False
        self._held = wanted
        if length >= 0:
            self._file = file = BytesIO(_uncleared(None, wanted))
            view = file.getbuffer()  # of the very bytes: nobody else has them
            if self._view is not None:
                view[:held] = self._view
                self._release_view()
            self._view = view
        return True

    def _release_view(self) -> None:
        if self._view is not None:
            self._view.release()
            self._view = None

    def _go_to_disk(self, size: int) -> None:
        """Moves the `size` bytes that are in memory."""
        memory = self._file
        assert isinstance(memory, BytesIO)
        self._spill = spill = self._disk.file()
        if not spill.reserve(self.size):
            raise _no_room()
        # Large pieces go straight to the file, small ones are gathered.
        self._file = file = BufferedWriter(spill, _FILE_BUFFER)
        file.write(memory.getbuffer()[:size])
        self._release()

    def whole(self) -> "BytesIO | BufferedReader[SpillFile]":
        """The body from its first byte, as a file. Raises OSError if the disk is full."""
        file = self._file
        if isinstance(file, BytesIO):
            self._release_view()
            file.seek(0)
            return file
        # Not one for both, which would look for its place at each read (lseek(2)).
        spill = file.detach()
        assert isinstance(spill, SpillFile)
        spill.complete(self.size)
        return BufferedReader(spill, _FILE_BUFFER)

    def _release(self) -> None:
        self._release_view()
        self._budget.give_back(self._held)
        self._held = 0

    def __del__(self) -> None:
        self._release()
        # Of a full disk, or one that `whole` has detached: from CPython 3.13 on, a file that is
        # left to the garbage collector prints why it could not be closed.
        with contextlib.suppress(OSError, ValueError):
            if self._spill is not None:
                self._file.close()


def _no_room() -> Reject:
    return Reject(507, "the body can't be kept: no more room for it")
