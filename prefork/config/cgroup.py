"""The directories of this process's control group: cgroups(7), versions 1 and 2."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def directories(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """(version, directory) of our own group and of the groups above it, in each hierarchy that may
    have the controller's files.

    root: in place of "/".

    Some of the directories may be missing: a caller has to take a missing file for "no limit".
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for controllers, group in (line.split(":", 2)[1:] for line in lines if line.count(":") > 1):
        if not controllers:
            for directory in _upwards(root / "sys/fs/cgroup", group):
                yield 2, directory
        elif controller in controllers.split(","):
            for directory in _upwards(root / "sys/fs/cgroup" / controllers, group):
                yield 1, directory


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The group's directory and those above it, up to the mount.

    In a container the name of the group may be that of the host, while the mount is the container's
    own group. The directories of that name are then missing, and the mount is the one with files.
    """
    inner = PurePosixPath(group.lstrip("/"))
    if ".." not in inner.parts:
        for directory in (inner, *inner.parents):
            yield mount / directory
    else:
        yield mount
