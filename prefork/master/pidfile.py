"""The pidfile: a file with the process id of the master, and a lock that shows that it runs.

The lock is a record lock (fcntl(2)): a forked child does not inherit it, an exec keeps it, and any
close of the file in this process releases it.  So the file is opened once and never again.
"""

import contextlib
import fcntl
import os
import stat

from prefork.master.snapshot import PidFileSnapshot
from prefork.system_errors import explain_open

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class PidFileError(Exception):
    """The pidfile cannot be used; the text is one line with the reason and what to do."""


class PidFile:
    """The pidfile in use, and the one that was prepared for a reload.  Raises PidFileError."""

    def __init__(self, path: str | None, adopted: PidFileSnapshot | None = None) -> None:
        """`path`: None for no file.  `adopted`: the locked file of the master before this one."""
        self._now = (adopted.path, adopted.fd) if adopted else _lock(path) if path else None
        if adopted:
            os.set_inheritable(adopted.fd, False)
        self._next = self._now

    def prepare(self, path: str | None) -> None:
        """Locks the pidfile of a reload, beside the one in use, unless they are the same.

        Raises PidFileError, and then nothing has changed.
        """
        now = self._now
        if path is None:
            prepared = None
        elif now is not None and (path == now[0] or _is_at(path, now[1])):
            prepared = (path, now[1])
        elif self._next is not None and path == self._next[0]:
            return
        else:
            prepared = _lock(path)
        self._drop_next()
        self._next = prepared

    def commit(self) -> None:
        """Uses the pidfile that was prepared, and removes the one before."""
        before, self._now = self._now, self._next
        if before is not None and (self._now is None or before[1] != self._now[1]):
            _remove(*before)

    def close(self) -> None:
        """Removes the file; the server has stopped."""
        self._drop_next()
        if self._now is not None:
            _remove(*self._now)
        self._now = self._next = None

    def descriptors(self) -> set[int]:
        """All that are open here, for a forked child to close."""
        return {each[1] for each in (self._now, self._next) if each is not None}

    def place(self) -> tuple[str, tuple[int, int]] | None:
        """The path, and device and inode of the file that was locked there."""
        if self._now is None:
            return None
        found = os.fstat(self._now[1])
        return self._now[0], (found.st_dev, found.st_ino)

    def renew(self) -> None:
        """Locks a new file at the path of the one in use, which was removed or replaced.

        Raises PidFileError, and then nothing has changed.
        """
        if self._now is not None:
            before, self._now = self._now, _lock(self._now[0])
            if self._next == before:
                self._next = self._now
            os.close(before[1])

    def snapshot(self) -> PidFileSnapshot | None:
        """The file in use, for the next master."""
        return (
            PidFileSnapshot(path=self._now[0], fd=self._now[1]) if self._now is not None else None
        )

    def _drop_next(self) -> None:
        if self._next is not None and (self._now is None or self._next[1] != self._now[1]):
            _remove(*self._next)
        self._next = self._now


def _lock(path: str) -> tuple[str, int]:
    while True:
        try:
            fd = os.open(path, _FLAGS, 0o644)
        except OSError as error:
            raise PidFileError(
                f"cannot open the pidfile {path}: {explain_open(error, path)}"
            ) from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise PidFileError(f"the pidfile {path} is not a regular file; choose another path")
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(path, fd):  # its holder removed it between our open and the lock
                os.close(fd)
                continue
            text = f"{os.getpid()}\n".encode()
            os.pwrite(fd, text, 0)  # in place, so that no reader finds it empty
            os.ftruncate(fd, len(text))
            return path, fd
        except PidFileError:
            os.close(fd)
            raise
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode(errors="replace").strip() or "?"
            os.close(fd)
            raise PidFileError(
                f"the pidfile {path} is locked by process {holder}, a running server; stop it, or"
                " choose another process.pidfile"
            ) from None
        except OSError as error:
            os.close(fd)
            raise PidFileError(f"cannot lock the pidfile {path}: {error.strerror}") from None


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except OSError:
        return False


def _remove(path: str, fd: int) -> None:
    """Removes it under the lock, so that it is ours; if that is not permitted, it is left empty."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        if _is_at(path, fd):
            os.unlink(path)
    os.close(fd)
