"""Requests that the server answers itself, because it does not serve them: 400, 408, 413, 503, ...

Each is a line in the access log and counts as an answered request.  Operators would otherwise see
it first in the log of their balancer.  One event says every few seconds how many there were.
"""

from time import time

from prefork import logs
from prefork.scoreboard import ThreadRecord
from prefork.unpatched import Lock
from prefork.worker.protocol.http_connection import RefusedRequest
from prefork.worker.service.application_caller import AccessLogWriter

_LOG_EVERY = 5.0
"""Seconds between two events."""

_LONGEST = 2048
"""Bytes of a request line that are written to the access log."""

_KEYS = {
    408: "http.header_timeout, http.body_timeout, http.min_body_rate",
    413: "http.max_body",
    414: "http.max_request_line",
    429: "http.max_connections_per_address",
    431: "http.max_header_size, http.max_header_count",
    503: "http.max_connections, http.buffer_memory",
    507: "http.buffer_memory, http.buffer_disk",
}
"""The limits behind a status."""


class Refusals:
    """Counts and logs the refused requests of one worker."""

    def __init__(self, access: AccessLogWriter | None) -> None:
        self._access = access
        self._limit = logs.RateLimit(_LOG_EVERY)
        self._lock = Lock()
        self._counts: dict[int, int] = {}
        self._last = ""

    def note(self, address: str, refusal: RefusedRequest, record: ThreadRecord) -> None:
        """A request of the client with this address was refused; `record`: of this thread."""
        status = refusal.status
        record.count_refused(status, refusal.size)
        if self._access is not None:
            environ = {"REMOTE_ADDR": address, **described(refusal.line)}
            self._access.add(environ, status, refusal.size, time(), 0.0)
        self.note_of_call(status, refusal.reason)

    def note_of_call(self, status: int, reason: str) -> None:
        """A request was refused for its body while the application had it, and counts as a call."""
        with self._lock:
            self._counts[status] = self._counts.get(status, 0) + 1
            self._last = reason
        self.report()

    def report(self, *, finally_: bool = False) -> None:
        """Logs what was not logged yet, once the last event is some seconds old.

        `finally_`: at once, since the worker ends.
        """
        if not self._counts or not (self._limit.due() or finally_):
            return
        with self._lock:
            counts, self._counts = self._counts, {}
        if not counts:  # another thread has reported them
            return
        keys = "; ".join(f"{status}: {_KEYS[status]}" for status in counts if status in _KEYS)
        logs.event(
            "info",
            "requests refused",
            count=sum(counts.values()),
            statuses=", ".join(f"{status}: {count}" for status, count in counts.items()),
            reason=self._last,
            key=keys or None,
        )


def described(line: bytes) -> dict[str, str]:
    """What the access log needs of a request line, which may be malformed, cut or not known."""
    text = line[:_LONGEST].decode("latin-1").rstrip("\r\n")
    parts = text.split(" ")
    if len(parts) != 3:
        return {"RAW_URI": text} if text else {}
    return dict(zip(("REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL"), parts, strict=True))
