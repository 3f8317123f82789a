"""Where the control group of this process is: cgroups(7), versions 1 and 2."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def directories(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """(version, directory) of our own group and of those above it, in every hierarchy that may have
    the controller's files; `root` stands for "/".

    Some of them need not exist: who reads a file in one must take its absence for no limit.
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
