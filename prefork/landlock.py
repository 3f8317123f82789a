"""Landlock: a process gives up rights for good, without being root; landlock(7).

A ruleset handles kinds of access, and allows them below certain paths; all else of these kinds is
refused with EACCES.  It binds the calling thread and what comes of it (threads, children, programs
that they execute): call these functions while the process has one thread.  Descriptors that are
open keep their rights.  Landlock has no kinds for chmod(2), chown(2), utime(2) and extended
attributes, nor for connect(2) to a Unix socket.
"""

import os
import stat
import struct
from collections.abc import Iterable

from prefork import linux

FILES = 3
"""The version (ABI) from which on no file can be changed: before, truncate(2) is not refused."""

_SIGNALS = 6
"""The version from which on signals to other processes can be refused."""

# The same on every architecture (asm-generic/unistd.h), Linux 5.13.
_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446

_VERSION = 1  # a flag of landlock_create_ruleset(2)
_PATH_BENEATH = 1  # a type of rule

# LANDLOCK_ACCESS_FS_*, linux/landlock.h.
_WRITE_FILE = 1 << 1
_REMOVE = 1 << 4 | 1 << 5  # directories; files
_MAKE_DEVICES = 1 << 6 | 1 << 11  # character; block
_MAKE = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12  # directories, files, sockets, FIFOs, links
_REFER = 1 << 13  # to rename or link from one directory to another; version 2
_TRUNCATE = 1 << 14  # version 3

_SCOPE_SIGNAL = 1 << 1


def version() -> int:
    """The version of Landlock (ABI) that the kernel has; 0 if it has none, or not at boot."""
    try:
        return linux.system_call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:  # ENOSYS, EOPNOTSUPP; EPERM in a container
        return 0


def forbid_writes(writable: Iterable[str]) -> None:
    """From now on files can be changed, made and removed only below these files and directories.

    Reading stays as it is.  Needs no_new_privs, or CAP_SYS_ADMIN.  Raises OSError, with the path if
    one of them cannot be opened.
    """
    abi = version()
    in_file = _WRITE_FILE | (_TRUNCATE if abi >= 3 else 0)
    in_directory = in_file | _REMOVE | _MAKE | (_REFER if abi >= 2 else 0)
    ruleset = _ruleset(in_directory | _MAKE_DEVICES)
    try:
        for path in writable:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
                rule = struct.pack("=Qi", in_directory if is_directory else in_file, fd)
                linux.system_call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
            finally:
                os.close(fd)
        linux.system_call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def forbid_signals() -> None:
    """From now on signals can be sent to this process and its descendants only (version 6).

    An older kernel does not refuse them.  Raises OSError.
    """
    if version() >= _SIGNALS:
        ruleset = _ruleset(0, _SCOPE_SIGNAL)
        try:
            linux.system_call(_RESTRICT_SELF, ruleset, 0)
        finally:
            os.close(ruleset)


def _ruleset(files: int, scope: int = 0) -> int:
    """struct landlock_ruleset_attr; an older kernel takes fewer fields, or zeros in the others."""
    attributes = struct.pack("=QQQ", files, 0, scope)
    return linux.system_call(_CREATE_RULESET, attributes, 24 if scope else 8, 0)
