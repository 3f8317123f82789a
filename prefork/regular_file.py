"""The content of a file whose path a user has given: a configuration, a certificate, a key.

To open a FIFO would block until somebody writes to it, a device such as /dev/zero has no end, and a
terminal would become the controlling one.
"""

import errno
import os
import stat

LIMIT = 16 * 1024 * 1024
"""Bytes that such a file may have: a hundred times more than any that was written for it."""

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read(path: str) -> bytes:
    """The bytes of a regular file of up to LIMIT bytes; never blocks on what is none.

    Raises OSError, whose `strerror` says also of such a file what is wrong with it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as problem:
        if problem.errno == errno.ENXIO:  # open(2): a socket, or a device that is not there
            raise _refused(path, "it is a socket or a device, and not a regular file") from None
        raise
    try:
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if kind != stat.S_IFREG:
            raise _refused(path, f"it is {_KINDS.get(kind, 'special')}, and not a regular file")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(LIMIT + 1)
    finally:
        os.close(fd)
    if len(data) > LIMIT:
        raise _refused(path, f"it has more than {LIMIT // 1024**2} MiB")
    return data


def _refused(path: str, reason: str) -> OSError:
    return OSError(errno.EINVAL, reason, path)
