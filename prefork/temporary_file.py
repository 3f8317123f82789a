"""Files without a name, for bodies that are too large for memory.

The module `tempfile` is not used.  Imported when a worker first needs a file, it may be a module of
that name of the application's; imported before, it takes memory for which most servers have no use.
"""

import errno
from collections.abc import Iterator

from prefork.unpatched import os

_NO_PLACE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS})
"""Errors that say that no file can be made in a directory, and not that none can be made now."""

_NOT_SUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EISDIR})
"""Of file systems, and of kernels before 3.11, that know no O_TMPFILE: open(2)."""


VARIABLES = ("TMPDIR", "TEMP", "TMP")
"""The environment variables that name a directory for temporary files."""

DIRECTORIES = ("/tmp", "/var/tmp", "/usr/tmp")
"""The directories for them if no variable names one that can be used."""


def unnamed_file() -> int:
    """The descriptor of a new file that is nobody else's, and gone when it is closed.

    It is in the first of the directories that `tempfile.gettempdir` documents in which one can be
    made: TMPDIR, TEMP, TMP, /tmp, /var/tmp, /usr/tmp, and the current one.  Raises OSError if
    there is no room, no descriptor or no such directory.
    """
    for directory in _directories():
        try:
            return _made_in(directory)
        except OSError as error:
            if error.errno not in _NO_PLACE:
                raise
    raise FileNotFoundError(errno.ENOENT, "no directory for temporary files: set TMPDIR")


def _directories() -> Iterator[str]:
    yield from (os.environ[name] for name in VARIABLES if os.environ.get(name))
    yield from (*DIRECTORIES, os.curdir)


def _made_in(directory: str) -> int:
    flags = os.O_RDWR | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(directory, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    path = os.path.join(directory, f"prefork-{os.urandom(8).hex()}")
    fd = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    os.unlink(path)
    return fd
