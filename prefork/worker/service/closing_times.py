"""When the clients of a worker that leaves are told to go.

Each connects anew, and all at one moment would be a burst of work for the workers that take them.
Few are no burst, and an old worker need not stay for them.  No socket is touched here.
"""

from random import uniform

_SHARE = 0.8
"""The share of `graceful_timeout` in which all are told."""

WITHOUT_LIMIT = 30.0
"""In place of `graceful_timeout`, in seconds, if that is 0."""

_EACH = 0.02
"""Seconds for each WebSocket: to connect anew takes a handshake of TLS, and what the application
does for it."""


def time_to_tell(graceful_timeout: float) -> float:
    """Seconds in which all clients are told."""
    return _SHARE * (graceful_timeout or WITHOUT_LIMIT)


def closing_times(count: int, most: float) -> list[float]:
    """When so many WebSockets are closed, in seconds from now, the earliest first.

    Each gets a random time, within `most` seconds and as much less as there are few.
    """
    span = min(count * _EACH, most)
    return sorted(uniform(0.0, span) for _ in range(count))
