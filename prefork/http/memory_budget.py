"""A limit on the memory that all clients of a worker may take together."""

from prefork.unpatched import RLock


class MemoryBudget:
    """The memory that all bodies and responses of a worker may take together, in bytes.

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

    def take(self, size: int, share: float = 1.0) -> bool:
        """Takes `size` bytes; False if fewer are left of this share of the limit."""
        with self._lock:
            if self.limit and self.used + size > self.limit * share:
                return False
            self.used += size
        return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self.used -= size
