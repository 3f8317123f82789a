"""What a request may be at most."""

from typing import NamedTuple

from prefork.http.disk_budget import DiskBudget
from prefork.http.memory_budget import MemoryBudget


class RequestLimits(NamedTuple):
    """Sizes in bytes; 0 for no limit."""

    request_line: int
    header_count: int
    header_size: int
    """Of all field lines together."""
    body: int
    body_memory: int
    """Of a body, beyond which it is kept on disk."""
    budget: MemoryBudget = MemoryBudget()
    """What all bodies of a worker may take of its memory."""
    disk: DiskBudget = DiskBudget()
    """And of the disk."""
    stream: bool = False
    """The application is called before the body is complete."""
