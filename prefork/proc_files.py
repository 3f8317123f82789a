"""What /proc shows of a process (proc(5)).

psutil would do it, too; but the master would import it at the first look, and each worker that is
forked afterwards would have it.
"""

import contextlib
import os

from msgspec import Struct

STANDS_STILL = ("T", "t")
"""States of a process: stopped, and traced."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ProcessStat(Struct, frozen=True):
    """From /proc/PID/stat."""

    state: str
    """One letter, such as "S" for a process that sleeps."""
    cpu: float
    """Seconds of CPU time, of the process alone."""


def stat(pid: int) -> ProcessStat:
    """Raises OSError if the process is gone."""
    with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
        # The name may have spaces and parentheses.
        fields = file.read().rpartition(")")[2].split()
    return ProcessStat(fields[0], (int(fields[11]) + int(fields[12])) / _TICKS)


def resident_memory(pid: int) -> int:
    """Bytes of a process that are in RAM (RSS).  Raises OSError if it is gone."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE


def proportional_memory(pid: int) -> int:
    """Bytes of a process that are in RAM, divided by the number of processes that share them (PSS,
    Linux 4.14).  Raises OSError if it is gone, or is another user's."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def title(pid: int) -> str:
    """The command line of a process, or what it has written in its place (setproctitle); ""
    for a kernel thread.  Raises OSError if it is gone."""
    with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
        return file.read().replace("\0", " ").strip()


def has_open(pid: int, target: str) -> bool:
    """Whether a process has a file open, as a link of /proc/PID/fd names it: "socket:[4711]".

    Raises OSError if it is gone, or is another user's."""
    directory = f"/proc/{pid}/fd"
    for fd in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(f"{directory}/{fd}") == target:
                return True
    return False
