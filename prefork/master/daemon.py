"""A daemon: the server goes on without the shell, which waits until it is known how it began.

daemon(7), "SysV Daemons": two forks and a session of its own, so that no terminal can ever become
its controlling one; / as its directory, so that it keeps no file system busy; a pipe to tell the
process that was started first what came of it.
"""

import contextlib
import os
import signal
import sys
from typing import NoReturn

from msgspec import Struct


class Detached(Exception):
    """In the process that was started first: the daemon's `pid`, and what came of its start.

    `status`: 0, or the exit status that it failed with; `why`: the reason, "" where there is none.
    """

    def __init__(self, pid: int, status: int, why: str) -> None:
        super().__init__(why)
        self.pid = pid
        self.status = status
        self.why = why


class Starter(Struct):
    """Who waits for the outcome of the start, from within the daemon; told once."""

    _fd: int
    _told: bool = False

    def started(self) -> None:
        """The first generation serves."""
        self._tell("0\n")
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def failed(self, status: int, why: str) -> None:
        """The daemon is about to end, with this exit status.

        Who waits does so until it has ended: a next start is to find its address free.
        """
        self._tell(f"{status}\n{why}")

    def descriptors(self) -> list[int]:
        """For a forked child to close: only the daemon's end is the pipe's end."""
        return [self._fd] if self._fd >= 0 else []

    def _tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            with contextlib.suppress(OSError):  # whoever started us did not wait
                os.write(self._fd, text.encode(errors="backslashreplace"))


def detach() -> Starter:
    """Returns in the daemon.  In the process that called it, raises Detached with the outcome.

    Stdout and stderr stay: the caller gives them a new place.  Raises OSError.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    heard, told = os.pipe2(os.O_CLOEXEC)
    first = os.fork()
    if first:
        os.close(told)
        os.waitpid(first, 0)
        _wait(heard)
    try:
        os.close(heard)
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(told, f"{os.getpid()}\n".encode())
        # Imports still to come find their places by a relative path, too.
        sys.path[:] = map(os.path.abspath, sys.path)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        if null:
            os.close(null)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(told, f"0\n1\nthe daemon cannot be started: {error.strerror}".encode())
        os._exit(1)
    return Starter(told)


def _wait(heard: int) -> NoReturn:
    """A Ctrl-C meanwhile ends the daemon too."""
    said = b""
    try:
        while data := os.read(heard, 65536):
            said += data
    except KeyboardInterrupt:
        pid = int(said.partition(b"\n")[0] or 0)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        raise
    finally:
        os.close(heard)
    number, _, outcome = said.decode(errors="replace").partition("\n")
    status, end, why = outcome.partition("\n")
    if not end:
        status, why = "1", "the server ended before it was ready; its log tells more"
    raise Detached(int(number or 0), int(status), why)
