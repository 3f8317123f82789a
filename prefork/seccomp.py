"""A seccomp filter: system calls that no web application needs fail with EPERM; seccomp(2).

The filter is a list of what is refused: calls that look into other processes, change the system, or
are a way into the kernel rather than a service of it (most of its exploits of the last years began
with user namespaces, bpf, io_uring, userfaultfd or perf events).  A list of what is allowed
would be stricter, and would break with the next version of libc.

It binds the calling thread and what comes of it: install it while the process has one thread.
"""

import ctypes
import os
import struct
from collections.abc import Collection

from msgspec import Struct

from prefork import linux


class _Architecture(Struct, frozen=True):
    audit: int
    """AUDIT_ARCH_* of linux/audit.h: which numbers the filter sees."""
    column: int
    """In `_REFUSED`."""
    clone: int
    ioctl: int
    seccomp: int
    has_x32: bool = False


_ARCHITECTURES = {
    "x86_64": _Architecture(0xC000003E, 0, 56, 16, 317, has_x32=True),
    "aarch64": _Architecture(0xC00000B7, 1, 220, 29, 277),
}

# The numbers of asm/unistd_64.h (x86_64) and asm-generic/unistd.h (aarch64); None: it has no such
# call.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # programs and rings in the kernel; what a ring does, no filter sees
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    # keys of the kernel
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    # the whole system
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),  # the kernel's log; syslog(3) is another
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
}

NAMES = frozenset(_REFUSED)
"""The system calls that are refused, all of which can be allowed by name."""

_CLONE3 = 435  # on every architecture
_X32 = 0x40000000  # the bit of x32's numbers, which x86_64 shares its audit number with

_NAMESPACES = 0x7E020000  # CLONE_NEW* of clone(2): ns, cgroup, uts, ipc, user, pid, net
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # ioctl_tty(2): input for a terminal

# Results, linux/seccomp.h, and errors.
_KILL = 0x80000000
_ERROR = 0x00050000
_ALLOW = 0x7FFF0000
_EPERM = _ERROR | 1
_ENOSYS = _ERROR | 38

# Codes of instructions, linux/bpf_common.h, and offsets in struct seccomp_data. A system call's
# argument has eight bytes; both architectures are little-endian.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24

_SET_FILTER = 1  # SECCOMP_SET_MODE_FILTER
_IS_AVAILABLE = 2  # SECCOMP_GET_ACTION_AVAIL, Linux 4.14
_SPECULATE = 4  # SECCOMP_FILTER_FLAG_SPEC_ALLOW, Linux 4.17


def is_supported() -> bool:
    """Whether the kernel has filters, and this module the numbers of its system calls."""
    try:
        _call(_IS_AVAILABLE, struct.pack("=I", _ERROR))
    except OSError:
        return False
    return True


def forbid_calls(allowed: Collection[str] = ()) -> None:
    """From now on the system calls of `NAMES` fail with EPERM, but for those of `allowed`.

    clone(2) with a new namespace fails, too, unless "unshare" is allowed, and clone3(2), whose
    flags no filter can read, with ENOSYS: libc then uses clone(2).  TIOCSTI and TIOCLINUX, which
    write into a terminal as if somebody typed, always fail.  A program of another architecture,
    such as 32-bit x86, is killed (SIGSYS).  Needs no_new_privs, or CAP_SYS_ADMIN.  Raises OSError.
    """
    program = _program(_ARCHITECTURES[_machine()], allowed)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    # struct sock_fprog points to the instructions; the kernel copies them during the call. Without
    # the flag, a kernel before 5.16 slows the process down against Spectre (spectre.rst).
    _call(_SET_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)), flags=_SPECULATE)


def _machine() -> str:
    """The architecture of this process, which may be a 32-bit one on a 64-bit kernel."""
    return os.uname().machine if struct.calcsize("P") == 8 else ""


def _call(operation: int, argument: bytes, flags: int = 0) -> None:
    architecture = _ARCHITECTURES.get(_machine())
    if architecture is None:
        raise OSError(38, os.strerror(38))
    linux.system_call(architecture.seccomp, operation, flags, argument)


def _program(architecture: _Architecture, allowed: Collection[str]) -> list[linux.Instruction]:
    """The filter.  A jump has two numbers of instructions to skip: if it is true, and if not.

    Since Linux 5.11 the kernel does not run it for a call that is always allowed.
    """
    program: list[linux.Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if architecture.has_x32:
        program += ((_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ENOSYS))
    for name, numbers in _REFUSED.items():
        number = numbers[architecture.column]
        if number is not None and name not in allowed:
            program += ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM))
    if "unshare" not in allowed:
        program += (
            *((_EQUAL, 0, 4, architecture.clone), (_LOAD, 0, 0, _FIRST)),
            *((_ANY_BIT, 0, 1, _NAMESPACES), (_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)),
            *((_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ENOSYS)),
        )
    program += (
        *((_EQUAL, 0, 4, architecture.ioctl), (_LOAD, 0, 0, _SECOND)),
        *((_EQUAL, 1, 0, _TIOCSTI), (_EQUAL, 0, 1, _TIOCLINUX), (_RETURN, 0, 0, _EPERM)),
        (_RETURN, 0, 0, _ALLOW),
    )
    return program
