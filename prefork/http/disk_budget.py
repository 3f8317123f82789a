"""The temporary files of bodies. Some stay for the next body, which is written over the last one.

For the kernel that is a fraction of the work: most of the cost of a file is to find room for its
pages, and to free them.
"""

import contextlib
import os
from io import FileIO

from prefork.http.memory_budget import MemoryBudget
from prefork.temporary_file import unnamed_file

SPARES = 16
"""Files that stay, at most."""

KEPT = 16 * 1024 * 1024
"""Bytes that stay of all of them, at most."""

_forks = 0


def _note_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(before=_note_fork)


class DiskBudget(MemoryBudget):
    """The disk that all bodies and responses of a worker may take together, in bytes.

    The files that stay for the next body count too, until their room is needed.
    """

    __slots__ = ("_spares",)

    def __init__(self, limit: int = 0) -> None:
        """`limit`: 0 for no limit."""
        super().__init__(limit)
        self._spares: list[tuple[int, int]] = []

    def take(self, size: int, share: float = 1.0) -> bool:
        while not super().take(size, share):
            if not self._drop_spare():
                return False
        return True

    def file(self) -> "SpillFile":
        """A file for one body. Raises OSError if none can be made."""
        try:
            fd, size = self._spares.pop()
        except IndexError:
            fd, size = unnamed_file(), 0
        return SpillFile(self, fd, size)

    def put_back(self, fd: int, size: int, *, again: bool) -> None:
        """Takes back a file of `size` bytes, to keep or close it; `again`: it may be used again."""
        with self._lock:
            kept = min(size, KEPT - sum(size for _, size in self._spares))
            if again and kept > 0 and len(self._spares) < SPARES:
                with contextlib.suppress(OSError):
                    if kept < size:
                        os.ftruncate(fd, kept)
                    self._spares.append((fd, kept))
                    self.give_back(size - kept)
                    return
        os.close(fd)
        self.give_back(size)

    def _drop_spare(self) -> bool:
        try:
            fd, size = self._spares.pop()
        except IndexError:
            return False
        os.close(fd)
        self.give_back(size)
        return True

    def __del__(self) -> None:
        while self._drop_spare():
            pass


class SpillFile(FileIO):
    """A body's file, from its first byte on; at `close` it goes back to the disk.

    No application may see another body in it. Code that has asked for its descriptor may still have
    it then, and so may a child that was forked meanwhile: such a file is not used again.
    """

    def __init__(self, disk: DiskBudget, fd: int, size: int) -> None:
        """`size`: bytes it has already, of an older body."""
        super().__init__(fd, "r+b", closefd=False)
        self.seek(0)
        self._disk = disk
        self._fd = fd
        self._size = size
        self._forks = _forks
        self._whole = self._shared = False

    def reserve(self, size: int) -> bool:
        """Takes room for `size` bytes in all; False if the budget is used up."""
        if size > self._size:
            if not self._disk.take(size - self._size):
                return False
            self._size = size
        return True

    def complete(self, size: int) -> None:
        """A body of `size` bytes is in it, to be read from the first."""
        if size < self._size:
            self.truncate(size)
            self._disk.give_back(self._size - size)
            self._size = size
        self.seek(0)
        self._whole = True

    def fileno(self) -> int:
        self._shared = True
        return super().fileno()

    def close(self) -> None:
        if not self.closed:
            super().close()
            alone = not self._shared and self._forks == _forks
            self._disk.put_back(self._fd, self._size, again=self._whole and alone)
