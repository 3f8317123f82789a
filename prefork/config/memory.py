"""The memory that this process may use; a share in `workers.max_memory` is a share of it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prefork.config import cgroup

_FILES = {1: "memory.limit_in_bytes", 2: "memory.max"}


def available(root: Path = Path("/"), machine: int | None = None) -> int:
    """Bytes that the control group allows, and at most the memory of the machine.

    machine: in place of the machine's memory, in bytes.

    Reads, below `root`, the files of cgroups(7): memory.max of version 2 and memory.limit_in_bytes
    of version 1, of our own group and of the groups above it.
    """
    total = machine
    if total is None:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    for version, directory in cgroup.directories(root, "memory"):
        with suppress(OSError, ValueError):  # "max" stands for no limit
            limit = int((directory / _FILES[version]).read_text())
            if limit > 0:
                yield limit
