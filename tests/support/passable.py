"""Python for workers that are not root, on a machine where it is in a directory of root's."""

import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT

_PASSABLE = """
mount --bind "$1" /mnt && mount -t tmpfs -o mode=755 none "$2" && mkdir -p "$1" &&
mount --bind /mnt "$1" && umount -l /mnt || exit 1
shift 2
exec "$@"
"""


def passable() -> tuple[str, ...]:
    """A wrapper where others may use this Python; one of root's own is in a directory of root's.

    In a mount namespace, the closed directory is replaced by one with that Python alone. The test
    is skipped if the checkout is in such a directory, too: workers could not read it.
    """
    if closed := [path for path in (ROOT, *ROOT.parents) if not path.stat().st_mode & 0o001]:
        pytest.skip(f"other users cannot reach the checkout: {closed[-1]} is closed to them")
    prefix = Path(sys.base_prefix).resolve()
    for parent in reversed(prefix.parents):
        if not parent.stat().st_mode & 0o001:
            return ("unshare", "-m", "sh", "-c", _PASSABLE, "sh", str(prefix), str(parent))
    return ()
