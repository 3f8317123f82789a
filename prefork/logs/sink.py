"""One destination of log lines, shared by many processes and never in the server's way.

Nothing orders the writers but the kernel: O_APPEND keeps each write(2) to a regular file whole,
and on a pipe one of up to PIPE_BUF bytes is atomic (open(2), pipe(7)).  So lines are never cut
across two writes where it can be helped, and no process needs to know of another.
"""

import errno
import os
import select
import stat
import threading
from collections.abc import Callable
from time import monotonic

PATIENCE = 5.0
"""Seconds to wait for a reader (of a pipe, a socket, a terminal) that does not take its lines."""

_STANDARD = {"stdout": 1, "stderr": 2}

# O_NONBLOCK: opening a FIFO that nobody reads must fail (ENXIO, fifo(7)), not hang the master.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class LogError(Exception):
    """A log cannot be set up; the text is one line that says which and why."""


class LogSink:
    """A destination: "stdout", "stderr", or the path of a file, made with mode 0640.

    `name` is its key in `[log]`.  After a loss, `on_loss` is told the target, the number of lines
    and the reason, once lines go through again.  Raises LogError where the file cannot be opened.
    """

    def __init__(self, name: str, target: str, on_loss: Callable[[str, int, str], None]) -> None:
        self.name = name
        self.target = target
        self.is_file = target not in _STANDARD
        self.fd = self.open() if self.is_file else _STANDARD[target]
        self._on_loss = on_loss
        self._lock = threading.RLock()  # a signal handler may write where it interrupted a write
        self._lost = 0
        self._reason = ""
        self._torn = False

    def open(self) -> int:
        """A new descriptor of the file, which is made where it does not exist.

        Raises LogError.
        """
        try:
            return os.open(self.target, _FLAGS, 0o640)
        except (OSError, ValueError) as problem:  # ValueError: a NUL in the path
            reason = getattr(problem, "strerror", None) or str(problem)
            raise LogError(f"log.{self.name}: cannot open {self.target!r}: {reason}") from None

    def reopen(self) -> None:
        """Goes on in a new file of the same path, after the old one was renamed.

        Raises LogError, and then the old file stays in use.
        """
        if self.is_file:
            fd = self.open()
            self.replace(fd)
            os.close(fd)

    def replace(self, fd: int) -> None:
        """Goes on with this descriptor's file; the descriptor stays the caller's.

        The number stays the same and dup3(2) is atomic: a write in another thread goes to the
        old file or to the new one, whole.  stdout and stderr are left as they are.
        """
        if self.is_file:
            os.dup2(fd, self.fd, inheritable=False)
            self._torn = False

    def close(self) -> None:
        """Gives up the file; what is written later is lost."""
        if self.is_file and self.fd >= 0:
            fd, self.fd = self.fd, -1  # the number will soon be somebody else's
            os.close(fd)

    def write(self, data: bytes, level: str = "info") -> None:
        """Writes whole lines; never raises OSError, and waits PATIENCE seconds at most.

        One write(2) to a regular file.  To anything else writes of at most PIPE_BUF (4096) bytes,
        ended at line borders; only a line that is longer itself can be mixed with another
        process's.  What cannot be written is dropped and counted.  `level` is for `Syslog`.
        """
        with self._lock:
            recovered = self._write(data)
        if recovered:
            self._on_loss(self.target, recovered, self._reason)

    def _write(self, data: bytes) -> int:
        """Returns how many lines were lost before these went through."""
        start = 0
        if self._torn:  # end the fragment that a failure left, so that it spoils no other line
            data = b"\n" + data
            start = 1
        # Waiting once is enough: a reader that is stuck must not cost every line its patience.
        until = monotonic() + (0.0 if self._lost else PATIENCE)
        position = 0
        try:
            regular = stat.S_ISREG(os.fstat(self.fd).st_mode)
            while position < len(data):
                end = len(data) if regular else _border(data, position)
                if not regular:
                    self._wait(until)
                try:
                    position += os.write(self.fd, data[position:end])
                except BlockingIOError:
                    continue  # another writer took the room
        except OSError as problem:
            self._lost += data.count(b"\n", max(position, start))
            self._reason = problem.strerror or str(problem)
            if position:
                self._torn = data[position - 1] != 0x0A
            return 0
        self._torn = False
        recovered, self._lost = self._lost, 0
        return recovered

    def _wait(self, until: float) -> None:
        """Waits for room, also where the descriptor blocks: its flags are not ours to change.

        Racy there: another process can take the room first, and write(2) then blocks until the
        reader goes on.
        """
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if not poll.poll(max(until - monotonic(), 0.0) * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "the reader takes no more lines")


def _border(data: bytes, start: int) -> int:
    """The end of the lines that fit in one atomic write to a pipe."""
    limit = start + select.PIPE_BUF
    return data.rfind(b"\n", start, limit) + 1 or limit
