"""Raw kernel calls that Python has no name for, each with its man page."""

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def set_parent_death_signal(signal: int) -> None:
    """Asks the kernel for a signal when the parent dies (prctl(2), PR_SET_PDEATHSIG).

    A setuid clears it, and a parent that is dead already sends nothing: compare getppid() after.
    Raises OSError.
    """
    _prctl(_PR_SET_PDEATHSIG, signal)


def become_subreaper() -> None:
    """From now on, a descendant whose parent dies is this process's child.

    prctl(2), PR_SET_CHILD_SUBREAPER, Linux 3.4; a fork does not inherit it, an exec keeps it.
    Raises OSError.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_SYS_OPENAT2 = 437  # the same on every architecture but alpha
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08
_ATTEMPTS = 16


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(directory: int, path: bytes, flags: int) -> int:
    """Opens what `path` names beneath an open directory, and nothing else: no race leads out.

    openat2(2), Linux 5.6, with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS: a symbolic link is
    followed where it stays beneath; an absolute one never does.  Where the kernel does not have
    the call (ENOSYS), or a sandbox's filter forbids it (EPERM), the path is walked component by
    component, and then no symbolic link is followed at all (O_PATH opens a last one itself).

    `directory` may be opened with O_PATH.  `flags` are those of open(2) without O_CREAT; O_CLOEXEC
    is added.  Returns a descriptor.  Raises OSError (EXDEV: the path leads out; ELOOP, or in a
    walk ENOTDIR: a link that is not followed; EAGAIN: a rename raced with it, each time) and
    ValueError for a NUL in the path.
    """
    if b"\0" in path:
        raise ValueError("path holds a NUL character")
    flags |= os.O_CLOEXEC
    for _ in range(_ATTEMPTS):
        try:
            return _openat2(directory, path, flags)
        except InterruptedError:
            continue  # a signal; its handler has run by now
        except BlockingIOError:
            continue  # a rename somewhere made a ".." uncertain: the manual says to try again
        except OSError as problem:
            if problem.errno in (errno.ENOSYS, errno.EPERM):
                return _walk_beneath(directory, path, flags)
            raise
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


def _openat2(directory: int, path: bytes, flags: int) -> int:
    how = _OpenHow(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    fd: int = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(directory),
        ctypes.c_char_p(path),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


def _walk_beneath(directory: int, path: bytes, flags: int) -> int:
    """Opens one component after the other, each in the directory that the last one opened."""
    *parents, last = path.split(b"/")
    if path.startswith(b"/") or b".." in (*parents, last):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    here = directory
    try:
        for name in parents:
            inner = os.open(name or b".", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            if here != directory:
                os.close(here)
            here = inner
        if path.endswith(b"/"):
            last = b"."
        return os.open(last, flags | os.O_NOFOLLOW, dir_fd=here)
    finally:
        if here != directory:
            os.close(here)
