"""Limits on the time, memory and disk that a client of HTTP may take of a worker."""

from typing import Final, NamedTuple

from msgspec import Struct

from prefork.config import Http
from prefork.http.disk_budget import DiskBudget
from prefork.http.limits import RequestLimits
from prefork.http.memory_budget import MemoryBudget

_GRACE: Final = 30.0
"""Seconds before a rate is looked at if silence has no limit."""


class ClientLimits(Struct, frozen=True):
    """Time limits in seconds and size limits in bytes, 0 for none."""

    limits: RequestLimits
    keepalive: float
    keepalive_requests: int
    """Requests answered on one connection."""
    header_timeout: float
    body_timeout: float
    min_body_rate: int
    """Bytes a second, on the average since the body began, after `body_timeout`."""
    write_timeout: float
    min_write_rate: int
    """Bytes a second that a client takes, since it began to lag behind, after `write_timeout`."""
    response_memory: int
    response_spill: int
    budget: MemoryBudget
    """The memory that all bodies and responses of a worker may take together."""
    disk: DiskBudget
    """And of the disk, in temporary files."""

    @classmethod
    def of(cls, http: Http, *, stream: bool | None = None) -> "ClientLimits":
        """The limits of [http], with budgets of their own for memory and disk.

        `stream`: in place of `http.stream_body`.
        """
        budget, disk = MemoryBudget(http.buffer_memory), DiskBudget(http.buffer_disk)
        return cls(
            limits=RequestLimits(
                request_line=http.max_request_line,
                header_count=http.max_header_count,
                header_size=http.max_header_size,
                body=http.max_body,
                body_memory=http.body_memory,
                budget=budget,
                disk=disk,
                stream=http.stream_body if stream is None else stream,
            ),
            keepalive=http.keepalive,
            keepalive_requests=http.keepalive_requests,
            header_timeout=http.header_timeout,
            body_timeout=http.body_timeout,
            min_body_rate=http.min_body_rate,
            write_timeout=http.write_timeout,
            min_write_rate=http.min_write_rate,
            response_memory=http.response_memory,
            response_spill=http.response_spill,
            budget=budget,
            disk=disk,
        )


class Pace(NamedTuple):
    """How much a client gives or takes while its connection waits for it."""

    rate: float
    """Bytes a second, since its request or its response began; 0 between two requests, infinite if
    a request is there and others come first."""
    since: float
    """Monotonic seconds at which that was."""

    @classmethod
    def of(cls, done: int, since: float, now: float) -> "Pace":
        """`done`: bytes by now."""
        return cls(done / max(now - since, 0.001), since)


def due(now: float, *, silence: float, rate: int, since: float, done: int) -> float:
    """Monotonic seconds at which a client is given up from whom nothing comes, or which takes
    nothing; 0 for never.

    `silence`: seconds that it may be silent from now on.  `rate`: the bytes a second that it has to
    keep up from then on that it has begun `since`, with `done` bytes by now: a byte now and then
    gains no time for ever.  0 for no limit.
    """
    quiet = now + silence if silence else 0.0
    if rate:
        slow = since + (silence or _GRACE) + done / rate
        if not quiet or slow < quiet:
            return slow
    return quiet
