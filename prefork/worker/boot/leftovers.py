"""What an application leaves behind that harms or delays, named for its developer."""

import contextlib
import itertools
import os
import sys
import threading
import traceback

from prefork import frames, logs
from prefork.unpatched import sleep, socket
from prefork.worker.boot import exit_callbacks
from prefork.worker.schedule.kernel_thread import KernelThread

_PATIENCE = 1.0
"""Seconds that a worker may take for its end until it is logged what it waits for."""

_reporting = False


def open_descriptors() -> set[int]:
    """All descriptors of this process; empty if there is no /proc."""
    try:
        names = os.listdir("/proc/self/fd")
        # Without the one of the list itself, whose number is soon used again.
        return {int(name) for name in names if os.path.lexists(f"/proc/self/fd/{name}")}
    except OSError:
        return set()


def warn_of_connections(before: set[int]) -> None:
    """Logs what was opened since `before` (`open_descriptors`) and cannot be shared.

    To be called in a zygote.  That is streams (datagrams of several processes do not mix), SQLite
    databases (https://www.sqlite.org/howtocorrupt.html, 2.7), and the epoll of an event loop.
    """
    peers = [peer for fd in sorted(open_descriptors() - before) if (peer := _unshareable(fd))]
    if peers:
        logs.event(
            "warning",
            "connections are shared by the workers",
            peers=", ".join(peers),
            reason="the application opened them when it was imported, and after the forks all"
            " workers read and write the same ones; open them in the hook after_fork, or at the"
            " first request",
        )


def _unshareable(fd: int) -> str:
    """What a descriptor is that processes cannot share; "" for all else."""
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
        if target == "anon_inode:[eventpoll]":
            return f"an event loop (descriptor {fd})"
        if target.startswith("/"):
            return f"the database {target}" if os.pread(fd, 16, 0) == _SQLITE else ""
    except OSError:  # closed meanwhile, or not to be read
        return ""
    return _peer(fd)


_SQLITE = b"SQLite format 3\0"
"""How a file begins (https://www.sqlite.org/fileformat.html, 1.2)."""


def _peer(fd: int) -> str:
    """The other end of a connected stream socket; "" for all else."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:  # not a socket, or closed meanwhile
        return ""
    try:
        if sock.type not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            return ""
        name = sock.getpeername()
    except OSError:  # it listens, or is not connected
        return ""
    finally:
        sock.detach()
    if isinstance(name, tuple):
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    return f"unix:{os.fsdecode(name)}" if name else f"a socket pair (descriptor {fd})"


def end_children() -> None:
    """Ends the processes of the application's `multiprocessing`, such as those of a Pool.

    At an ordinary exit its own callback does so.  That one also waits for tasks, which a server
    that stops at once does not.
    """
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None:
        for child in processes.active_children():
            with contextlib.suppress(Exception):  # it may have ended, or be another's by now
                child.terminate()


def report_what_is_waited_for() -> None:
    """Logs the threads and children that the interpreter waits for, if its end takes long.

    To be called by the main thread of a worker that is about to end; the first call counts.
    """
    global _reporting
    if _reporting:
        return
    _reporting = True
    with contextlib.suppress(RuntimeError):  # no room for a thread
        KernelThread(_report).start()


_JOINS_EXECUTOR = "(_do_shutdown)"
"""How asyncio and uvloop name their thread that waits for the executor's, which are listed."""


def _report() -> None:
    sleep(_PATIENCE)
    threads = [
        thread.name
        for thread in threading.enumerate()
        if not thread.daemon
        and thread is not threading.main_thread()
        and not thread.name.endswith(_JOINS_EXECUTOR)
    ]
    children = []
    if (multiprocessing := sys.modules.get("multiprocessing.process")) is not None:
        children = [f"{child.name} (pid {child.pid})" for child in list(multiprocessing._children)]
    if threads or children:
        logs.event(
            "warning",
            "worker waits for its end",
            threads=", ".join(threads) or None,
            children=", ".join(children) or None,
            reason="the application started them and has not ended them; end them in the hook"
            " before_exit, or make them daemons",
        )
    elif exit_callbacks.started():
        logs.event(
            "warning",
            "worker waits for its end",
            reason="a callback that was registered with atexit does not return",
            traceback=_main_stack(),
        )


def _main_stack() -> str:
    """Where the main thread is, up to the last call of ours."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    calls = traceback.extract_stack(frame) if frame is not None else []
    theirs = itertools.takewhile(lambda call: not frames.is_ours(call.filename), reversed(calls))
    return "".join(traceback.format_list(list(theirs)[::-1])).rstrip("\n")
