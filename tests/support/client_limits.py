"""What an HTTP connection is made with, if no server makes it."""

from typing import Any

from prefork.http.disk_budget import DiskBudget
from prefork.http.limits import RequestLimits
from prefork.http.memory_budget import MemoryBudget
from prefork.worker.transport.client_limits import ClientLimits

START = 1000.0
"""Monotonic seconds of a made-up clock."""

BASE = {"REMOTE_ADDR": "", "REMOTE_PORT": ""}


def client_limits(*, stream: bool = False, **changed: Any) -> ClientLimits:
    limits = RequestLimits(8192, 100, 65536, 1 << 20, 65536)
    values = {"keepalive": 5.0, "header_timeout": 10.0, "body_timeout": 30.0, "write_timeout": 20.0}
    sizes = {"response_memory": 1 << 20, "response_spill": 1 << 20}
    counts = {"keepalive_requests": 0, "min_body_rate": 0, "min_write_rate": 0}
    given: dict[str, Any] = {
        **values,
        **sizes,
        **counts,
        "budget": MemoryBudget(),
        "disk": DiskBudget(),
        **changed,
    }
    held = {"budget": given["budget"], "disk": given["disk"]}
    return ClientLimits(limits=limits._replace(stream=stream, **held), **given)
