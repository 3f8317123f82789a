"""A limit for events that may happen a thousand times a second."""

from time import monotonic


class RateLimit:
    """Whether an occurrence of an event is to be logged: at most one in `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._silent_until = 0.0

    def due(self) -> bool:
        """Whether to log it now; if so, not again for the next `seconds`."""
        now = monotonic()
        if now < self._silent_until:
            return False
        self._silent_until = now + self._seconds
        return True
