"""How much memory this process may use: what a share in `workers.max_memory` is a share of."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prefork.config import cgroup

_FILES = {1: "memory.limit_in_bytes", 2: "memory.max"}


def available(root: Path = Path("/"), machine: int | None = None) -> int:
    """Bytes that the control group allows, and no more than the machine has (unless `machine` is
    given: that).

    Reads, below `root`, cgroups(7): memory.max of version 2 and memory.limit_in_bytes of version 1,
    of our own group and of those above it.
    """
    total = machine
    if total is None:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    for version, directory in cgroup.directories(root, "memory"):
        with suppress(OSError, ValueError):  # "max" stands for none
            limit = int((directory / _FILES[version]).read_text())
            if limit > 0:
                yield limit
