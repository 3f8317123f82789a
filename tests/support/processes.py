"""What the kernel shows of processes: their sockets, threads, signals and system calls."""

import contextlib
import ctypes
import errno
import os
import signal
import socket
from pathlib import Path

import psutil


def links(pid: int) -> dict[int, str]:
    """The link of each open descriptor: a path, or a name such as "socket:[123]"."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return found


def sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets, as /proc/net writes them."""
    return {
        link.removeprefix("socket:[").removesuffix("]")
        for link in links(pid).values()
        if link.startswith("socket:")
    }


def tcp_sockets(port: int) -> dict[str, tuple[int, str]]:
    """The IPv4 sockets at a local port, by inode: (the peer's port, state)."""
    found = {}
    ours = f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        # Most lines are of other ports on a busy machine: they are not parsed.
        if ours in line[:20]:
            _, local, remote, state, *_, inode = line.split()[:10]
            if local.endswith(ours):
                found[inode] = int(remote.rpartition(":")[2], 16), state
    return found


LISTEN = "0A"


def tcp_states(pid: int, port: int) -> list[str]:
    """The states of the IPv4 sockets at a local port that a process holds."""
    held = sockets(pid)
    return [state for inode, (_, state) in tcp_sockets(port).items() if inode in held]


def listener_inode(port: int) -> str:
    """The socket that listens at a port, as `sockets` names it."""
    (inode,) = (inode for inode, (_, state) in tcp_sockets(port).items() if state == LISTEN)
    return inode


_PIDFD_GETFD = 438  # one number on every architecture, Linux 5.6
_libc = ctypes.CDLL(None, use_errno=True)


def peers_of(pid: int, port: int) -> set[int]:
    """The clients' ports of the connections at `port` that a process holds.

    Each socket itself is asked, through a copy of its descriptor (pidfd_getfd(2)).  Of one that is
    not stopped it is no snapshot: descriptors come and go.
    """
    found = set()
    pidfd = os.pidfd_open(pid)
    try:
        for fd, link in links(pid).items():
            if link.startswith("socket:"):
                copy = _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
                if copy < 0:
                    problem = ctypes.get_errno()
                    assert problem == errno.EBADF, os.strerror(problem)
                    continue  # closed meanwhile
                with socket.socket(fileno=copy) as sock, contextlib.suppress(OSError):
                    if sock.family == socket.AF_INET and sock.getsockname()[1] == port:
                        found.add(sock.getpeername()[1])  # none: the listener, or one that is reset
    finally:
        os.close(pidfd)
    return found


def stopped(pid: int) -> bool:
    """Whether each thread of a process has been stopped by SIGSTOP."""
    return all(_state(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir())


def asleep(pid: int) -> bool:
    """Whether the main thread of a process waits in the kernel."""
    return _state(Path(f"/proc/{pid}/task/{pid}")) == "S"


def _state(task: Path) -> str:
    return task.joinpath("stat").read_text().rpartition(")")[2].split()[0]


def system_calls(pid: int) -> list[int]:
    """The number of the system call that each thread waits in, the main thread's first; -1 for
    one that is in none."""
    tasks = sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name) != pid)
    calls = []
    for task in tasks:
        with contextlib.suppress(FileNotFoundError):
            word = task.joinpath("syscall").read_text().split()[0]
            calls.append(-1 if word == "running" else int(word))
    return calls


def signal_set(pid: int, kind: str) -> set[signal.Signals]:
    """The signals in a mask of /proc/PID/status: SigBlk, SigIgn or SigCgt; real-time ones are
    left out."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == kind:
            mask = int(value, 16)
            return {number for number in signal.Signals if mask >> (number - 1) & 1}
    raise AssertionError(f"no {kind} of {pid}")


def alive(pid: int) -> bool:
    """Whether a process is there: it is no zombie, or its other threads still hold its files."""
    try:
        process = psutil.Process(pid)
        running: bool = process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False
    return running
