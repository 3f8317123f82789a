"""Threads in the master when it begins to fork: they do not exist in the workers.

fork(2) copies only the thread that calls it. A lock that another thread holds at this moment stays
locked in the child for ever. The master itself starts no thread, but a program around it may
(`ddtrace-run`, `opentelemetry-instrument`, a module that sitecustomize imports).
"""

import os
import sys
from pathlib import Path

from prefork import logs

_TASKS = Path("/proc/self/task")


def other_threads() -> list[str]:
    """The names of all threads of this process but the main one, sorted, by proc(5).

    A thread of Python has its name there and in `threading`, one of a library in C only its name in
    the kernel (comm, at most 15 bytes). A thread that ends meanwhile is left out.
    """
    threading = sys.modules.get("threading")
    known = {thread.native_id: thread.name for thread in threading.enumerate()} if threading else {}
    names = []
    for task in map(int, os.listdir(_TASKS)):
        if task == os.getpid():
            continue
        try:
            names.append(known.get(task) or (_TASKS / str(task) / "comm").read_text().strip())
        except OSError:
            continue
    return sorted(names)


def warn_of_threads() -> None:
    """Logs `threads before fork` if there is any."""
    if names := other_threads():
        logs.event("warning", "threads before fork", threads=", ".join(names))
