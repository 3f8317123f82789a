"""The Python stacks of a process's threads, as `faulthandler` writes them into a memfd.

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

import os
import re
import signal

from prefork import frames

SIGNAL = signal.SIGRTMIN + 2
"""Real-time, since libraries use the others."""

PROBE = 1 << 32
"""Added to the eventfd that asks for stacks, it asks only whether the worker runs: the eventfd is 0
again when a thread of the worker got the GIL."""

_HERE = re.escape(os.path.dirname(__file__))
_ENTRY = re.compile(rf'  File "{_HERE}/worker/boot/process\.py", line \d+ in run_worker')
_HANDLER = re.compile(
    rf'  File "{_HERE}/worker/schedule/master_orders\.py", line \d+ in _on_(wake|terminate)'
)
_FILE = re.compile(r'  File "(.*)", line \d+ in ')
_START = re.compile(r'  File ".*/threading\.py", line \d+ in (run|_bootstrap_inner|_bootstrap)')
"""How a thread begins."""


def is_whole(text: str) -> bool:
    """Whether the dump is complete, as far as can be found out.

    The main thread comes last, and its stack ends where the program began (by name, or by
    `python -m`), or in dots after a hundred calls.
    """
    return text.endswith((" in <module>\n", " in _run_module_as_main\n", "  ...\n"))


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
