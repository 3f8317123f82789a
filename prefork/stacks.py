"""The Python stacks of a process's threads, told from outside: by a signal into a memfd.

`faulthandler` writes them in the signal's handler itself, in C: it needs neither the GIL nor a
thread that comes back to the interpreter, so it tells of one that is stuck in C code, too.  The
request that is interrupted goes on unharmed: system calls are resumed (SA_RESTART), and those that
the kernel does not resume by itself, such as nanosleep(2), are by CPython (PEP 475).  Code in C
that takes EINTR for an error of its own is the exception.

Still racy, in CPython: a signal that meets the interpreter while it makes or leaves a frame may
find half of one; the handler then dies with SIGSEGV, and the worker with it.  A build of 3.11.7
without optimisation died at one of 269 to 4,966 signals in code that does nothing but call
functions, and at none of 65,000 in a loop without calls; Debian's 3.11.2 at none of 260,000.
"""

import contextlib
import faulthandler
import fcntl
import os
import re
import signal

from prefork.channel import Channel, Stacks

SIGNAL = signal.SIGRTMIN + 2
"""Real-time, since libraries use the others."""

_HERE = re.escape(os.path.dirname(__file__))
_ENTRY = re.compile(rf'  File "{_HERE}/worker/process\.py", line \d+ in live\n')


def offer(channel: Channel) -> None:
    """In a worker: from now on SIGNAL writes the stacks into a memfd, which the master gets.

    Without a descriptor to spare nothing is offered, and the master sends no such signal.
    """
    with contextlib.suppress(OSError):
        fd = os.memfd_create("prefork-stacks")
        # The master empties it, and does not know where this end's offset stands.
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        faulthandler.register(SIGNAL, file=fd, all_threads=True)
        channel.send(Stacks(), (fd,))


def is_whole(text: str) -> bool:
    """Whether that is all, as far as can be told: the main thread is last, and ends where
    the program began (by name, or by `python -m`), or in dots after a hundred calls."""
    return text.endswith((" in <module>\n", " in _run_module_as_main\n", "  ...\n"))


def shown(text: str) -> str:
    """The main thread first, and without what is the same in each worker: how the master came to
    fork it."""
    threads = "\n\n".join(reversed(text.rstrip("\n").split("\n\n")))
    lines: list[str] = []
    inside = False
    for line in f"{threads}\n".splitlines(keepends=True):
        if not line.startswith("  "):
            inside = False
        inside = inside or _ENTRY.fullmatch(line) is not None
        if not inside:
            lines.append(line)
    return "".join(lines).rstrip("\n")
