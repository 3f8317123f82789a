"""A limit for events that may happen a thousand times a second."""

from time import monotonic


class RateLimit:
    """Whether an occurrence of an event is to be logged.

    At most one in `seconds`; a quiet time saves up for `burst` at once.
    """

    def __init__(self, seconds: float, burst: int = 1) -> None:
        self._seconds = seconds
        self._reserve = seconds * (burst - 1)
        self._next = 0.0
        """Monotonic seconds from which on one is due without any saved up."""
        self._skipped = 0
        self.skipped = 0
        """Occurrences that were not logged before the last one that was."""

    def due(self) -> bool:
        """Whether to log it now."""
        now = monotonic()
        if now < self._next - self._reserve:
            self._skipped += 1
            return False
        self._next = max(self._next, now) + self._seconds
        self.skipped, self._skipped = self._skipped, 0
        return True
