"""Logs by pipe: a process that may not have the files writes to a pipe, and another one copies.

A descriptor of a log file is enough to empty the file (ftruncate(2)).  So each worker gets pipes in
its place, one for each file, and a process of the server's own copies whole lines from them to the
files (prefork.master.processes.log_process).

Nothing is lost when that process dies.  It takes from a pipe only what it has written: it first
duplicates what is in the pipe (tee(2)), writes that, and then reads it away.  Where it was in this
is in memory that its successor inherits.  Still racy: killed in the middle of write(2), or between
that and the end of the read, it may write some lines twice.
"""

import contextlib
import fcntl
import mmap
import stat
import struct
from time import monotonic

from msgspec import Struct

from prefork import linux
from prefork.logs.sink import LogSink
from prefork.unpatched import os

CAPACITY = 1024 * 1024
"""Bytes that a pipe takes while they are not copied, if the kernel allows as much; else 64 KiB."""

_PATIENCE = 1.0
"""Seconds after which a piece of a line is copied: a prompt, or a line of a program that hangs."""


class LogPipeEnds(Struct, frozen=True):
    """The ends into which a worker writes."""

    targets: tuple[str, ...] = ()
    """Paths of log files, and "stdout" and "stderr" where these are files."""
    fds: tuple[int, ...] = ()

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


def create_pipe() -> tuple[int, int]:
    """The end to read, which never blocks, and the end to write.  Raises OSError."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    with contextlib.suppress(OSError):  # a user that is not root may have less (pipe(7))
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, CAPACITY)
    return reader, writer


class CopyJournal:
    """What is being copied now, in memory that outlives the process that copies.

    Anonymous and shared (mmap(2)); it is inherited by fork.
    """

    _FIELDS = struct.Struct("=4Q")  # number of the pipe, inode of the file, its size, bytes
    _USED = _FIELDS.size

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def begin(self, number: int, inode: int, size: int, count: int) -> None:
        """Bytes of a pipe are about to be written to the end of a file."""
        # The number comes last: it makes the rest valid.
        self._FIELDS.pack_into(self._memory, 0, 0, inode, size, count)
        self._memory[:8] = struct.pack("=Q", number)

    def end(self) -> None:
        """They are written, and about to be read away."""
        self._memory[:8] = bytes(8)
        self.used = True

    @property
    def used(self) -> bool:
        """Something was copied since this was set to False."""
        return bool(self._memory[self._USED])

    @used.setter
    def used(self, used: bool) -> None:
        self._memory[self._USED] = used

    def pending(self, number: int) -> tuple[int, int, int] | None:
        """(inode, size before, bytes) of what the process before may have written of a pipe."""
        found, *rest = self._FIELDS.unpack_from(self._memory)
        return (rest[0], rest[1], rest[2]) if found == number else None


class LogPipe:
    """One pipe, as the process has it that copies from it."""

    def __init__(self, number: int, fd: int, sink: LogSink, journal: CopyJournal) -> None:
        """`number`: above 0, and never used again."""
        self.fd = fd
        self._number = number
        self._sink = sink
        self._journal = journal
        self._piece_since = 0.0
        self._look_back()

    def copy(self, scratch: tuple[int, int], *, ended: bool) -> bool:
        """Copies the whole lines that are there; returns False if nothing more will come.

        `scratch`: an empty pipe of our own.  `ended`: no process has the other end open any more.
        """
        data = _peek(self.fd, scratch)
        if not data:
            return not ended
        count = data.rfind(b"\n") + 1
        if not count:
            now = monotonic()
            self._piece_since = self._piece_since or now
            if not ended and now - self._piece_since < _PATIENCE and len(data) < mmap.PAGESIZE:
                return True
            count = len(data)
        self._piece_since = 0.0
        status = os.fstat(self._sink.fd)
        self._journal.begin(self._number, status.st_ino, status.st_size, count)
        self._sink.write(data[:count])
        self._journal.end()
        _drop(self.fd, count)
        return True

    def _look_back(self) -> None:
        """Reads away what the process before this one has written already."""
        pending = self._journal.pending(self._number)
        if pending is None:
            return
        inode, size, count = pending
        reader, writer = create_pipe()
        data = _peek(self.fd, (reader, writer))[:count]
        os.close(reader)
        os.close(writer)
        if len(data) == count and data in self._written_since(inode, size):
            _drop(self.fd, count)
        self._journal.end()

    def _written_since(self, inode: int, size: int) -> bytes:
        """What the file with this inode has beyond a size; b"" if it is another one, or none."""
        status = os.fstat(self._sink.fd)
        if not stat.S_ISREG(status.st_mode) or status.st_ino != inode:
            return b""
        try:
            with open(f"/proc/self/fd/{self._sink.fd}", "rb") as file:
                file.seek(size)
                return file.read(2 * CAPACITY)
        except OSError:  # it cannot be read: better twice than never
            return b""


def _peek(fd: int, scratch: tuple[int, int]) -> bytes:
    """What is in a pipe, without taking it out.  `scratch`: an empty pipe."""
    reader, writer = scratch
    try:
        count = linux.duplicate_pipe(fd, writer, CAPACITY)
    except OSError:
        return b""
    return _read(reader, count)


def _drop(fd: int, count: int) -> None:
    _read(fd, count)


def _read(fd: int, count: int) -> bytes:
    """So many bytes; fewer if the worker has made packets of its pipe, or read from it itself."""
    pieces = []
    while count:
        try:
            piece = os.read(fd, count)
        except BlockingIOError:
            break
        if not piece:
            break
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
