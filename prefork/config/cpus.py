"""How many CPUs this process may use: what `workers.count = "auto"` means."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def available(root: Path = Path("/"), affinity: int | None = None) -> int:
    """CPUs that the affinity mask and the control group allow; at least 1.

    A quota of one and a half CPUs counts as two: rounded down, half a CPU would never be used.
    Reads sched_getaffinity(2) (unless `affinity` is given) and, below `root`, cgroups(7):
    cpu.max of version 2 and cpu.cfs_quota_us of version 1, of our own group and of those above it.
    """
    allowed = len(os.sched_getaffinity(0)) if affinity is None else affinity
    return max(1, min([allowed, *map(math.ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for controllers, group in (line.split(":", 2)[1:] for line in lines if line.count(":") > 1):
        if not controllers:
            for directory in _upwards(root / "sys/fs/cgroup", group):
                yield from _quota(directory, "cpu.max")
        elif "cpu" in controllers.split(","):
            for directory in _upwards(root / "sys/fs/cgroup" / controllers, group):
                yield from _quota(directory, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The group's directory and all above it, up to the mount.

    A container may see a group's name from outside and its own group as the mount: a directory that
    is not there has no file to read, so the walk finds the mount all the same.
    """
    inner = PurePosixPath(group.lstrip("/"))
    if ".." not in inner.parts:
        for directory in (inner, *inner.parents):
            yield mount / directory
    else:
        yield mount


def _quota(directory: Path, *names: str) -> Iterator[float]:
    """The quota in CPUs, if there is one: "max" or -1 stand for none."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = " ".join((directory / name).read_text() for name in names).split()
        if int(quota) > 0:
            yield int(quota) / int(period)
