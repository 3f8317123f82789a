"""The Python stacks of a process's threads, as `faulthandler` writes them into a memfd.

The master makes the memfd, and the pipe by which it asks, before it forks the worker: what it reads
and writes itself is never a file that a worker has chosen, which might block it.

A thread of the worker waits for a request and writes them under the GIL, while all others stand
still (prefork.worker.boot.stack_writer).  If it does not get the GIL, some thread holds that in C
code.  Then a signal is sent, and its handler writes the stacks in C, without the GIL
(prefork.master.processes.stack_requests).  What the signal interrupts goes on: system calls are
resumed (SA_RESTART), and CPython resumes those that the kernel does not resume by itself, such as
nanosleep(2) (PEP 475).  The exception is C code that takes EINTR for an error of its own.

The signal alone would do, but for a limit of CPython: if it comes while the interpreter makes or
leaves a frame, the handler reads half of one and dies with SIGSEGV, and the worker with it.  A
build of 3.11.7 without optimisation died at one of 269 to 4,966 signals in code that does nothing
but call functions, and at none of 65,000 in a loop without calls; Debian's 3.11.2 at none of
260,000.  Still racy: a worker that got no CPU for so long that it could not answer may get the
signal when it runs Python code again.
"""

import contextlib
import fcntl
import os
import re
import signal
import sys
import termios

from msgspec import Struct

from prefork import frames

SIGNAL = signal.SIGRTMIN + 2
"""Real-time, since libraries use the others."""

DUMP = b"?"
"""Asks for the stacks; any other byte is a probe, and is only read."""


class WorkerStacks(Struct, frozen=True):
    """The descriptors of a worker: where it writes its stacks, and the pipe that asks for them."""

    memfd: int
    request: int

    def close(self) -> None:
        os.close(self.memfd)
        os.close(self.request)


class MasterStacks(Struct, frozen=True):
    """The master's descriptors, for one worker."""

    memfd: int
    request: int
    """The end of a pipe, non-blocking.  Unlike an eventfd it shares no file status flags with the
    worker's end, so that the worker cannot make it block."""

    @staticmethod
    def create() -> "tuple[MasterStacks, WorkerStacks] | None":
        """The master's descriptors and the worker's, or None if there are none to spare."""
        with contextlib.suppress(OSError), contextlib.ExitStack() as undo:
            memfd = os.memfd_create("prefork-stacks")
            undo.callback(os.close, memfd)
            # The master truncates it, and the worker's offset does not follow.
            fcntl.fcntl(memfd, fcntl.F_SETFL, os.O_APPEND)
            copy = os.dup(memfd)
            undo.callback(os.close, copy)
            reader, writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(writer, False)
            undo.pop_all()
            return MasterStacks(memfd, writer), WorkerStacks(copy, reader)
        return None

    def descriptors(self) -> tuple[int, int]:
        return self.memfd, self.request

    def close(self) -> None:
        os.close(self.memfd)
        os.close(self.request)

    def ask(self) -> None:
        """Asks for the stacks, in place of those that were written before.

        Raises OSError if the worker has closed its end.
        """
        os.ftruncate(self.memfd, 0)
        with contextlib.suppress(BlockingIOError):  # full of requests that it does not answer
            os.write(self.request, DUMP)

    def probe(self) -> None:
        """Asks only whether the worker runs.  Raises OSError if it has closed its end."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.request, b".")

    @property
    def has_answered(self) -> bool:
        """A thread of the worker got the GIL, and has read all that was asked."""
        waiting = fcntl.ioctl(self.request, termios.FIONREAD, bytes(4))
        return not int.from_bytes(waiting, sys.byteorder)

    def read(self) -> str:
        """What the worker has written so far, 64 KiB at most: a hundred threads of a hundred frames
        would be more.  It may be anything: code of the application can write to the memfd."""
        try:
            return os.pread(self.memfd, _LIMIT, 0).decode(errors="replace")
        except OSError:  # the worker has set flags of the open file that do not go with pread(2)
            return ""


_LIMIT = 64 * 1024

_HERE = re.escape(os.path.dirname(__file__))
_ENTRY = re.compile(rf'  File "{_HERE}/worker/boot/process\.py", line \d+ in run_worker')
_HANDLER = re.compile(
    rf'  File "{_HERE}/worker/schedule/master_orders\.py", line \d+ in _on_(wake|terminate)'
)
_FILE = re.compile(r'  File "(.*)", line \d+ in ')
_START = re.compile(r'  File ".*/threading\.py", line \d+ in (run|_bootstrap_inner|_bootstrap)')
"""How a thread begins."""


_MOST_CALLS = 100
"""Of one thread, that faulthandler writes."""


def is_whole(text: str) -> bool:
    """Whether the dump is complete, as far as can be found out.

    The main thread comes last, and its stack ends where the program began (by name, or by
    `python -m`), or after a hundred calls: in dots, which releases of 3.13 and later leave out.
    """
    if text.endswith((" in <module>\n", " in _run_module_as_main\n", "  ...\n")):
        return True
    return text.rpartition(" (most recent call first):\n")[2].count("\n") == _MOST_CALLS


def shown(text: str) -> str:
    """The dump as users see it: the main thread first, and without what says nothing.

    Left out are threads of ours but for the main thread, the frames of ours from which the
    application was called, a signal handler of ours that came in between, and how the master came
    to fork the worker.
    """
    stacks: list[str] = []
    for thread in reversed(text.rstrip("\n").split("\n\n")):
        title, *calls = thread.split("\n")
        first = next((n + 1 for n, call in enumerate(calls) if _HANDLER.fullmatch(call)), 0)
        last = next((n for n, call in enumerate(calls) if _ENTRY.fullmatch(call)), len(calls))
        calls = calls[first:last]
        files = [found[1] if (found := _FILE.match(call)) else "" for call in calls]
        if any(map(frames.is_the_applications, filter(None, files))):
            while len(calls) > 1 and (frames.is_ours(files[-1]) or _START.fullmatch(calls[-1])):
                del calls[-1], files[-1]
        elif stacks and any(map(frames.is_ours, files)):
            continue  # a thread of ours; the first is the main thread
        stacks.append("\n".join((title, *calls)))
    return "\n\n".join(stacks)
