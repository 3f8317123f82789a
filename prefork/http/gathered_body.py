"""A request's body, gathered before the application is called: in memory, past a size on disk."""

from io import BufferedReader, BufferedWriter, BytesIO

from prefork.http.disk_budget import DiskBudget, SpillFile
from prefork.http.head_rules import Reject
from prefork.http.memory_budget import MemoryBudget


class GatheredBody:
    """The part of a body that has come so far."""

    __slots__ = (
        "_budget",
        "_disk",
        "_file",
        "_held",
        "_limit",
        "_memory",
        "_spill",
        "since",
        "size",
    )

    def __init__(self, memory: int, limit: int, budget: MemoryBudget, disk: DiskBudget) -> None:
        """`memory`: bytes kept in memory; `limit`: bytes allowed; 0 means no limit.

        If the budget of memory is used up, the body is on disk from then on.
        """
        self._held = 0
        self._budget = budget
        self._disk = disk
        self._memory = memory
        self._limit = limit
        self._file: BytesIO | BufferedWriter[SpillFile] = BytesIO()
        self._spill: SpillFile | None = None
        self.size = 0
        self.since = 0.0
        """Monotonic seconds at which somebody began to look at its rate."""

    @property
    def on_disk(self) -> bool:
        return self._spill is not None

    def write(self, data: bytes) -> None:
        """Adds a piece. Raises Reject(413) past the limit, Reject(507) if bodies and responses have
        used up the disk budget, OSError if the disk is full."""
        size = len(data)
        self.size += size
        if self._limit and self.size > self._limit:
            raise Reject(413, f"body is larger than {self._limit} bytes")
        spill = self._spill
        if spill is None:
            if (not self._memory or self.size <= self._memory) and self._budget.take(size):
                self._held += size
            else:
                self._go_to_disk()
        elif not spill.reserve(self.size):
            raise _no_room()
        self._file.write(data)

    def _go_to_disk(self) -> None:
        assert isinstance(self._file, BytesIO)
        self._spill = spill = self._disk.file()
        if not spill.reserve(self.size):
            raise _no_room()
        # Large pieces go straight to the file, small ones are gathered.
        file = BufferedWriter(spill)
        file.write(self._file.getbuffer())
        self._file = file
        self._release()

    def whole(self) -> "BytesIO | BufferedReader[SpillFile]":
        """The body from its first byte, as a file. Raises OSError if the disk is full."""
        file = self._file
        if isinstance(file, BytesIO):
            file.seek(0)
            return file
        # Not one for both, which would look for its place at each read (lseek(2)).
        spill = file.detach()
        assert isinstance(spill, SpillFile)
        spill.complete(self.size)
        return BufferedReader(spill)

    def _release(self) -> None:
        self._budget.give_back(self._held)
        self._held = 0

    def __del__(self) -> None:
        self._release()


def _no_room() -> Reject:
    return Reject(507, "the body can't be kept: no more room for it")
