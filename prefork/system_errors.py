"""What a refusal of the kernel means to a user, and what to do about it."""

import errno
import os
import resource

from prefork.quantity import quantity


def explain(error: OSError) -> str:
    """One line: what was refused, and what to do."""
    what = error.strerror or str(error)
    if error.filename is not None:
        what = f"{error.filename}: {what}"
    advice = _advice(error)
    return f"{what}; {advice}" if advice else what


def explain_open(error: OSError, path: str) -> str:
    """Why a file cannot be opened, and whose it is if it is another user's: as after a trial as
    root of what runs as a user of its own."""
    reason = error.strerror or str(error)
    owner = other_owner(path) if isinstance(error, PermissionError) else ""
    return f"{reason}; it belongs to {owner}" if owner else reason


def other_owner(path: str) -> str:
    """The user to whom a file belongs; "" if that is our own, or there is no such file."""
    try:
        uid = os.lstat(path).st_uid
    except OSError:
        return ""
    if uid == os.geteuid():
        return ""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EMFILE:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return f"the limit of open files is {limit}: raise it (ulimit -n, LimitNOFILE=)"
        case errno.ENFILE:
            return "all files of the system are in use: raise fs.file-max"
        case errno.EFBIG:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
            return (
                f"the limit of a file's size is {quantity(limit, 'byte')}: raise it (ulimit -f,"
                " LimitFSIZE=)"
            )
        case errno.ENOSPC | errno.EDQUOT:
            return "make room on that disk"
        case errno.EAGAIN:
            return "a limit of processes is reached: raise it (ulimit -u, pids.max, TasksMax=)"
        case errno.ENOMEM:
            return "memory has run out: free some, or raise the limit (ulimit -v, memory.max)"
    if str(error.filename).startswith("/proc/"):
        return "the file system proc(5) has to be mounted at /proc"
    if str(error.filename).startswith("/dev/"):
        return "a container needs this device"
    return ""
