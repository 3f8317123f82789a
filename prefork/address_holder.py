"""Which process has an address that is in use, and how to stop it."""

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Iterator

from prefork import proc_files

_ANY = ("0.0.0.0", "::")

_MASTER = re.compile(r"prefork: master \[([^\x00-\x1f\x7f]+)\]")
"""The title of a server's master (prefork.master.main_loop)."""


def reason_in_use(pid: int, holder: str) -> str:
    """The reason for an address in use, and what to do.

    pid: of the process that has it; 0 if that cannot be seen.
    holder: what the text calls this process.
    """
    if not pid:
        return "the address is in use; stop that process, or choose another address"
    title = ""
    with contextlib.suppress(OSError):
        title = proc_files.title(pid)
    server = _MASTER.fullmatch(title)
    stop = f"server with `prefork stop {shlex.quote(server[1])}`" if server else "process"
    return f"the address is in use by {holder}; stop that {stop}, or choose another address"


@contextlib.contextmanager
def _borrowed() -> Iterator[None]:
    """Modules that are imported in the block are dropped after it: each worker that this process
    forks later would have them."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in sys.modules.keys() - before:
            del sys.modules[name]


@_borrowed()
def listener_of_port(host: str, port: int) -> tuple[int, str]:
    """The process that listens on an IP address and a port: its id and "nginx (pid 12)".

    Of several that share the socket it is the first parent: not a worker, but its master.
    (0, "") if none can be seen.
    """
    import psutil  # a megabyte that only an error needs

    with contextlib.suppress(psutil.Error, OSError):
        for other in psutil.net_connections("tcp"):
            if (
                other.laddr
                and other.pid
                and other.status == psutil.CONN_LISTEN
                and other.laddr.port == port
                and (host in _ANY or other.laddr.ip in (host, *_ANY))
            ):
                holder = psutil.Process(other.pid)
                with contextlib.suppress(psutil.Error, OSError):
                    sock = os.readlink(f"/proc/{other.pid}/fd/{other.fd}")
                    # A master may have it from systemd, or from a shell.
                    while (
                        not _MASTER.fullmatch(proc_files.title(holder.pid))
                        and (parent := holder.parent())
                        and parent.pid != 1
                        and proc_files.has_open(parent.pid, sock)
                    ):
                        holder = parent
                return holder.pid, f"{holder.name()} (pid {holder.pid})"
    return 0, ""
