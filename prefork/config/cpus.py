"""The number of CPUs that this process may use, for `workers.count = "auto"`."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prefork.config import cgroup


def available(root: Path = Path("/"), affinity: int | None = None) -> int:
    """The number of CPUs that the affinity mask and the control group allow; at least 1.

    A quota of one and a half CPUs counts as two: rounded down, half a CPU would never be used.
    Calls sched_getaffinity(2) (unless `affinity` is given) and reads, below `root`, the files of
    cgroups(7): cpu.max of version 2 and cpu.cfs_quota_us of version 1, of our own group and of the
    groups above it.
    """
    allowed = len(os.sched_getaffinity(0)) if affinity is None else affinity
    return max(1, min([allowed, *map(math.ceil, _quotas(root))]))


_FILES = {1: ("cpu.cfs_quota_us", "cpu.cfs_period_us"), 2: ("cpu.max",)}


def _quotas(root: Path) -> Iterator[float]:
    """The quotas in CPUs; "max" and -1 stand for no quota."""
    for version, directory in cgroup.directories(root, "cpu"):
        with suppress(OSError, ValueError, ZeroDivisionError):
            texts = [(directory / name).read_text() for name in _FILES[version]]
            quota, period = " ".join(texts).split()
            if int(quota) > 0:
                yield int(quota) / int(period)
