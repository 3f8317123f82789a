"""A request's body, gathered before the application is called: in memory, past a size on disk."""

from io import BufferedReader, BufferedWriter, BytesIO, FileIO
from threading import RLock

from prefork.http.head import Reject


class Budget:
    """The memory, or disk, that all bodies and responses of a worker may take together, in bytes.

    One client's share is small, but there may be thousands that are slow.
    """

    __slots__ = ("_lock", "limit", "used")

    def __init__(self, limit: int = 0) -> None:
        """`limit`: 0 for no limit."""
        self.limit = limit
        self.used = 0
        # Responses are kept by every thread, and one lost update would stay lost. Reentrant: a
        # body may be collected while its own thread holds it.
        self._lock = RLock()

    def take(self, size: int) -> bool:
        """Takes so many bytes; False where there are not so many left."""
        with self._lock:
            if self.limit and self.used + size > self.limit:
                return False
            self.used += size
        return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self.used -= size


class Body:
    """What has come of a body so far."""

    __slots__ = (
        "_budget",
        "_disk",
        "_file",
        "_held",
        "_limit",
        "_memory",
        "_stored",
        "on_disk",
        "since",
        "size",
    )

    def __init__(self, memory: int, limit: int, budget: Budget, disk: Budget) -> None:
        """`memory`: bytes kept in memory; `limit`: bytes allowed; 0 means no limit.

        Where the budget of memory is used up, the body is on disk from then on.
        """
        self._held = self._stored = 0
        self._budget = budget
        self._disk = disk
        self._memory = memory
        self._limit = limit
        self._file: BytesIO | BufferedWriter[FileIO] = BytesIO()
        self.on_disk = False
        self.size = 0
        self.since = 0.0
        """Monotonic seconds at which somebody began to look at its rate."""

    def write(self, data: bytes) -> None:
        """Adds a piece. Raises Reject(413) past the limit, Reject(507) where bodies and responses
        have taken all of the disk that they may, OSError where it is full."""
        size = len(data)
        self.size += size
        if self._limit and self.size > self._limit:
            raise Reject(413, f"body is larger than {self._limit} bytes")
        if not self.on_disk:
            if (self._memory and self.size > self._memory) or not self._budget.take(size):
                self._go_to_disk(self.size - size)
            else:
                self._held += size
        if self.on_disk:
            self._store(size)
        self._file.write(data)

    def _go_to_disk(self, size: int) -> None:
        from tempfile import TemporaryFile  # with what only few bodies need

        assert isinstance(self._file, BytesIO)
        self.on_disk = True
        self._store(size)
        # What is large goes straight to the file, what is small is gathered.
        file = BufferedWriter(TemporaryFile(buffering=0))  # noqa: SIM115
        file.write(self._file.getbuffer())
        self._file = file
        self._release()

    def _store(self, size: int) -> None:
        if not self._disk.take(size):
            raise Reject(507, "the body can't be kept: no more room for it")
        self._stored += size

    def whole(self) -> "BytesIO | BufferedReader[FileIO]":
        """The body from its first byte, as a file. Raises OSError where the disk is full."""
        file = self._file
        if isinstance(file, BytesIO):
            file.seek(0)
            return file
        # Not one for both, which would look for its place at each read (lseek(2)).
        raw = file.detach()
        assert isinstance(raw, FileIO)
        raw.seek(0)
        return BufferedReader(raw)

    def _release(self) -> None:
        self._budget.give_back(self._held)
        self._held = 0

    def __del__(self) -> None:
        self._release()
        self._disk.give_back(self._stored)
