"""The file of a Unix socket: binding its path, and removing it if it is stale.

bind(2) fails if the path exists, and a server that was killed leaves its file behind.  So the path
is tried with connect(2); if no process listens, the file is stale and is removed.  Between that
test and the removal another server could do the same, and lose its new socket to us.  Therefore
each server holds a lock from the test until it listens.
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

from prefork.address_holder import reason_in_use
from prefork.system_errors import other_owner

_CREDENTIALS = struct.Struct("iII")  # struct ucred

Inode = tuple[int, int]
"""Device and inode number."""


class Refusal(Exception):
    """A socket cannot be opened; the text is one line with the reason and what to do."""


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Holds the lock of a socket's path, `PATH.lock`, while the block runs; waits for it.

    The lock file is never removed: otherwise two servers could lock two different files.
    It is lockf and not flock(2), whose lock a forked child would keep.

    Raises Refusal if another user has made that file, as in a trial as root, and OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        lock = os.open(f"{path}.lock", flags, 0o600)
    except PermissionError:
        _refuse_foreign(f"{path}.lock")
        raise
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _refuse_foreign(lock: str) -> None:
    """Raises Refusal if a lock file that cannot be opened belongs to another user."""
    if owner := other_owner(lock):
        raise Refusal(
            f"{lock} belongs to {owner}, who has run a server here before; if that is stopped,"
            " remove the file"
        )


def bind(sock: socket.socket, path: str) -> Inode | None:
    """Binds a path and replaces a stale socket; the caller holds the lock of the path.

    The file has mode 0600 until the caller changes that.  Returns the inode of the file, or None if
    another process has removed it meanwhile.

    Raises Refusal if a process listens there or if the file is not a socket, and OSError.
    """
    if exists(path):
        # Racy: a foreign server between its bind(2) and listen(2) looks stale.
        if (pid := listening_process(path)) is not None:
            raise Refusal(reason_in_use(pid, f"pid {pid}"))
        os.unlink(path)
    umask = os.umask(0o177)  # of the whole process, but the master has one thread
    try:
        sock.bind(path)
    finally:
        os.umask(umask)
    return inode(path)


def exists(path: str) -> bool:
    """Whether there is a socket file.  Raises Refusal for any other file, which is not ours."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise Refusal(
            "a file of this name exists and is not a socket; remove it, or choose another path"
        )
    return True


def inode(path: str) -> Inode | None:
    """The inode of a path, or None.  It is unique while a socket bound to it is open."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def is_at(path: str, bound: Inode | None) -> bool:
    """Whether the file that was bound is at its path; also if that may not be looked up."""
    try:
        return bound is not None and inode(path) == bound
    except OSError:
        return True


def unlink(path: str, bound: Inode) -> None:
    """Removes the file if it is the one that was bound, and not one of another server.

    Raises OSError.
    """
    with locked(path):
        if inode(path) == bound:
            os.unlink(path)


def listening_process(name: str) -> int | None:
    """The id of the process that listens on a path or an abstract name (NUL first).

    None if there is none, 0 if the process is not known.

    Raises OSError if connect(2) is not permitted.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full queue would block
        try:
            probe.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except OSError as error:
            # A full queue, or a socket of another type: a process listens, connect(2).
            if error.errno in (errno.EAGAIN, errno.EPROTOTYPE):
                return 0
            raise
        return credentials(probe).pid


class Credentials(NamedTuple):
    """The credentials of a process; pid is 0 if it is in another pid namespace."""

    pid: int
    uid: int
    gid: int


def credentials(sock: socket.socket) -> Credentials:
    """Those of the peer at its connect(2), or listen(2) if `sock` connected (SO_PEERCRED)."""
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Credentials(*_CREDENTIALS.unpack(packed))


def chown(path: str, owner: str) -> None:
    """Changes the owner to "user", "user:group" or ":group", names or numbers, as chown(1) does.

    Raises Refusal for one that does not exist or is not permitted, and OSError.
    """
    user, _, group = owner.partition(":")
    uid = _id("user", user, lambda name: pwd.getpwnam(name).pw_uid)
    gid = _id("group", group, lambda name: grp.getgrnam(name).gr_gid)
    try:
        os.chown(path, uid, gid, follow_symlinks=False)
    except PermissionError:
        raise Refusal(
            f"no permission to give its file to {owner!r} (server.unix_owner); start as root, or"
            " remove that key"
        ) from None


def _id(kind: str, name: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1  # unchanged, chown(2); so is 2**32 - 1
    if name.isascii() and name.isdecimal() and int(name) < 2**32 - 1:
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise Refusal(f"no such {kind}: {name!r} (server.unix_owner); correct the name") from None
