"""One destination of log lines, shared by many processes; it never blocks the server for long.

The writers are not coordinated but by the kernel: with O_APPEND each write(2) to a regular file is
atomic, and so is a write to a pipe of up to PIPE_BUF bytes (open(2), pipe(7)).  Therefore a line is
not split across two writes unless it is longer than that.
"""

import errno
import signal
import stat
from collections.abc import Callable
from time import monotonic

from prefork.system_errors import explain_open
from prefork.unpatched import RLock, os, select

WRITE_TIMEOUT = 5.0
"""Seconds to wait for a reader (of a pipe, a socket, a terminal) that does not read."""

STANDARD = {"stdout": 1, "stderr": 2}
"""Targets that are no paths, and their descriptors."""

# O_NONBLOCK: opening a FIFO without a reader must fail (ENXIO, fifo(7)) and not block the master.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class LogError(Exception):
    """A log cannot be opened or configured; the text is one line with its key and the reason."""


class LogSink:
    """A destination: "stdout", "stderr", or the path of a file, which is created with mode 0640.

    name: its key in `[log]`.
    on_loss: called with the target, the number of lost lines and the reason, when lines can be
        written again.

    Raises LogError if the file cannot be opened.
    """

    def __init__(self, name: str, target: str, on_loss: Callable[[str, int, str], None]) -> None:
        self.name = name
        self.target = target
        self.is_file = target not in STANDARD
        self.fd = self.open() if self.is_file else STANDARD[target]
        self._on_loss = on_loss
        self._lock = RLock()  # a signal handler may interrupt a write, and write
        self._lost = 0
        self._reason = ""
        self._torn = False

    def open(self) -> int:
        """A new descriptor of the file, which is created if it does not exist.

        Raises LogError.
        """
        try:
            return os.open(self.target, _FLAGS, 0o640)
        except (OSError, ValueError) as problem:  # ValueError: a NUL in the path
            reason = (
                explain_open(problem, self.target) if isinstance(problem, OSError) else str(problem)
            )
            raise LogError(f"log.{self.name}: cannot open {self.target!r}: {reason}") from None

    def replace(self, fd: int) -> None:
        """Writes to the file of this descriptor from now on; the caller closes the descriptor.

        The number of our own descriptor stays the same and dup3(2) is atomic: a write in another
        thread goes entirely to the old file or to the new one.  stdout and stderr are not replaced.
        """
        if self.is_file:
            os.dup2(fd, self.fd, inheritable=False)
            self._torn = False

    def close(self) -> None:
        """Closes the file; later lines are lost."""
        if self.is_file and self.fd >= 0:
            fd, self.fd = self.fd, -1  # the number is soon reused for another file
            os.close(fd)

    def write(self, data: bytes, level: str = "info") -> None:
        """Writes whole lines; never raises OSError, and waits WRITE_TIMEOUT seconds at most.

        To a regular file it is one write(2).  To any other file they are writes of at most PIPE_BUF
        (4096) bytes that end at a line's end; only a line that is longer can be mixed with one of
        another process.  Lines that cannot be written are dropped and counted.  `level` is for
        `Syslog`.
        """
        with self._lock:
            recovered = self._write(data)
        if recovered:
            self._on_loss(self.target, recovered, self._reason)

    def _write(self, data: bytes) -> int:
        """Returns how many lines were lost before these were written; 0 if these are lost, too."""
        start = 0
        if self._torn:  # end the fragment that a failure left, so that it damages no other line
            data = b"\n" + data
            start = 1
        # Waiting once is enough: with a reader that hangs, not every line may take the timeout.
        until = monotonic() + (0.0 if self._lost else WRITE_TIMEOUT)
        position = 0
        try:
            regular = stat.S_ISREG(os.fstat(self.fd).st_mode)
            while position < len(data):
                end = len(data) if regular else _end_of_lines(data, position)
                if not regular:
                    self._wait(until)
                try:
                    position += _write(self.fd, data[position:end])
                except BlockingIOError:
                    continue  # another writer has filled it
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
        """Waits until something can be written, also if the descriptor is a blocking one.

        Its flags are shared with other processes, so they stay as they are.  With a blocking one
        there is a race: another process can fill the pipe first, and write(2) then blocks until the
        reader goes on.
        """
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if not poll.poll(max(until - monotonic(), 0.0) * 1000):
            raise TimeoutError(errno.ETIMEDOUT, "the reader does not read")


def _write(fd: int, data: bytes) -> int:
    """write(2), which raises BrokenPipeError also if the application has reset SIGPIPE."""
    if signal.getsignal(signal.SIGPIPE) is not signal.SIG_DFL:
        return os.write(fd, data)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        return os.write(fd, data)
    except BrokenPipeError:
        signal.sigtimedwait({signal.SIGPIPE}, 0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_of_lines(data: bytes, start: int) -> int:
    """The end of the lines that fit in one atomic write to a pipe."""
    limit = start + select.PIPE_BUF
    return data.rfind(b"\n", start, limit) + 1 or limit
