"""The file of a Unix socket: who may have its path, and when one that is left over may go.

bind(2) refuses a path that exists, and a server that was killed leaves its file behind.  So the
path is tried with connect(2): nobody there, and it is stale.  Between that test and the unlink
another server could do the same and lose its fresh socket to us; hence the lock, which every
server of ours holds from the test until it listens.
"""

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

_CREDENTIALS = struct.Struct("iII")  # struct ucred

Inode = tuple[int, int]
"""Device and inode."""


class Refusal(Exception):
    """Why a socket can't be had, and what to do about it, in one line."""


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Holds the lock of a socket's path, `PATH.lock`, while the block runs; waits for it.

    The lock file stays for ever: two servers could lock one that is removed and made again.
    It is lockf and not flock(2), whose lock a forked child would hold on to.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(f"{path}.lock", flags, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def bind(sock: socket.socket, path: str) -> Inode | None:
    """Binds under the lock of the path, in the place of a stale socket if there is one.

    The file has mode 0600 until the caller opens it to more.  Returns what it is, by which it
    will be known; None where somebody removed it at once.

    Raises Refusal where somebody listens there or the file is no socket, and OSError.
    """
    if is_left_over(path):
        # A foreign server that is just between bind and listen looks stale: nothing can tell.
        if (holder := peer(path)) is not None:
            raise Refusal(in_use(holder))
        os.unlink(path)
    umask = os.umask(0o177)  # the process's, but the master has one thread
    try:
        sock.bind(path)
    finally:
        os.umask(umask)
    return inode(path)


def is_left_over(path: str) -> bool:
    """Whether a socket's file is there.  Raises Refusal for any other file: it is not ours."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise Refusal("there is a file that is not a socket; remove it, or choose another path")
    return True


def inode(path: str) -> Inode | None:
    """What is at a path, or None.  It is unique while a socket bound to it is open."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def unlink(path: str, bound: Inode) -> None:
    """Removes the file if it is the one that was bound; leaves another server's alone.

    Raises OSError.
    """
    with locked(path):
        if inode(path) == bound:
            os.unlink(path)


def peer(name: str) -> str | None:
    """Who listens on a path or an abstract name (NUL first), None where nobody does.

    A text to go with `in_use`: " by pid 12", or "" where it can't be told.

    Raises OSError where it may not be tried.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full queue would block
        try:
            probe.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except OSError as error:
            # A full queue, or a socket of another type: somebody is there, connect(2).
            if error.errno in (errno.EAGAIN, errno.EPROTOTYPE):
                return ""
            raise
        pid = credentials(probe).pid
    return f" by pid {pid}" if pid else ""


class Credentials(NamedTuple):
    """Of a process; pid is 0 where it is of a pid namespace that is not ours."""

    pid: int
    uid: int
    gid: int


def credentials(sock: socket.socket) -> Credentials:
    """Of who called connect(2), or where `sock` did so itself, listen(2) (SO_PEERCRED, unix(7))."""
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Credentials(*_CREDENTIALS.unpack(packed))


def in_use(holder: str) -> str:
    """The reason that an address is taken, with the holder's text of `peer`."""
    return f"the address is in use{holder}; stop what listens there, or choose another address"


def chown(path: str, owner: str) -> None:
    """Gives a file to "user", "user:group" or ":group", by names or numbers, as chown(1) does.

    Raises Refusal for one that does not exist or may not be had, and OSError.
    """
    user, _, group = owner.partition(":")
    uid = _id("user", user, lambda name: pwd.getpwnam(name).pw_uid)
    gid = _id("group", group, lambda name: grp.getgrnam(name).gr_gid)
    try:
        os.chown(path, uid, gid, follow_symlinks=False)
    except PermissionError:
        raise Refusal(
            f"no right to give its file to {owner!r} (unix_owner); start as root, or leave it out"
        ) from None


def _id(kind: str, name: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1  # leaves it as it is, chown(2); so does 2**32 - 1
    if name.isascii() and name.isdecimal() and int(name) < 2**32 - 1:
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise Refusal(f"there is no {kind} {name!r} (unix_owner); correct the name") from None
