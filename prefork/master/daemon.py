"""A daemon: the server detaches from the shell, which waits for the result of the start.

As in daemon(7), "SysV Daemons": two forks and a session of its own, so that no terminal can become
its controlling terminal; / as working directory, so that it keeps no file system busy; a pipe by
which it reports the result of the start to the first process.
"""

import contextlib
import os
import signal
import sys
from typing import NoReturn

from msgspec import Struct


class Detached(Exception):
    """Raised in the first process, with the result of the start.

    pid: the process id of the daemon.
    status: 0, or the exit status of a start that failed.
    reason: why it failed, or "".
    """

    def __init__(self, pid: int, status: int, reason: str) -> None:
        super().__init__(reason)
        self.pid = pid
        self.status = status
        self.reason = reason


class Starter(Struct):
    """The first process, which waits for the result of the start; it gets one result only."""

    _fd: int
    _reported: bool = False

    def started(self) -> None:
        """The first generation serves."""
        self._report("0\n")
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def failed(self, status: int, reason: str) -> None:
        """The daemon is about to exit with this status.

        The first process waits until it has ended, so that the next start finds its address free.
        """
        self._report(f"{status}\n{reason}")

    def descriptors(self) -> list[int]:
        """For a forked child to close: the pipe is to end with the daemon."""
        return [self._fd] if self._fd >= 0 else []

    def _report(self, text: str) -> None:
        if not self._reported:
            self._reported = True
            with contextlib.suppress(OSError):  # the first process does not wait any more
                os.write(self._fd, text.encode(errors="backslashreplace"))


def detach() -> Starter:
    """Returns in the daemon; in the calling process it raises Detached with the result.

    Stdout and stderr stay as they are; the caller redirects them.  Raises OSError.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    first = os.fork()
    if first:
        os.close(writer)
        os.waitpid(first, 0)
        _wait(reader)
    try:
        os.close(reader)
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(writer, f"{os.getpid()}\n".encode())
        # Relative paths in sys.path have to work for later imports, too.
        sys.path[:] = map(os.path.abspath, sys.path)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        if null:
            os.close(null)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(writer, f"0\n1\nthe daemon cannot be started: {error.strerror}".encode())
        os._exit(1)
    return Starter(writer)


def _wait(reader: int) -> NoReturn:
    """Raises Detached with the result.  A Ctrl-C meanwhile stops the daemon, too."""
    report = b""
    try:
        while data := os.read(reader, 65536):
            report += data
    except KeyboardInterrupt:
        pid = int(report.partition(b"\n")[0] or 0)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        raise
    finally:
        os.close(reader)
    number, _, result = report.decode(errors="replace").partition("\n")
    status, end, reason = result.partition("\n")
    if not end:
        status, reason = "1", "the server ended before it was ready; its log has the reason"
    raise Detached(int(number or 0), int(status), reason)
