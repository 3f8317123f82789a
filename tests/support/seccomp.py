"""System calls that the kernel refuses this process from now on, as a container's profile does."""

import ctypes
import errno
import platform
import struct
from collections.abc import Mapping

_NUMBERS = {
    "x86_64": {"clone": 56, "clone3": 435, "memfd_create": 319, "sched_setaffinity": 203},
    "aarch64": {"clone": 220, "clone3": 435, "memfd_create": 279, "sched_setaffinity": 122},
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _AND, _EQUALS, _RETURN = 0x20, 0x54, 0x15, 0x06  # linux/bpf_common.h
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # seccomp(2)
_CLONE_THREAD = 0x10000


def _install(program: list[tuple[int, int, int, int]]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    pointer = struct.pack("@HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _FILTER, ctypes.c_char_p(pointer), 0, 0),
    ):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


def refuse(calls: Mapping[str, int]) -> None:
    """Each of these calls fails with its errno."""
    numbers = _NUMBERS[platform.machine()]
    program = [(_LOAD, 0, 0, 0)]
    for name, error in calls.items():
        program += [(_EQUALS, 0, 1, numbers[name]), (_RETURN, 0, 0, _ERRNO | error)]
    _install([*program, (_RETURN, 0, 0, _ALLOW)])


def refuse_threads() -> None:
    """No thread can be made; processes can."""
    numbers = _NUMBERS[platform.machine()]
    _install(
        [
            (_LOAD, 0, 0, 0),
            (_EQUALS, 0, 1, numbers["clone3"]),
            (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),  # glibc tries clone(2) then
            (_EQUALS, 1, 0, numbers["clone"]),
            (_RETURN, 0, 0, _ALLOW),
            (_LOAD, 0, 0, 16),  # the first argument: its lower half
            (_AND, 0, 0, _CLONE_THREAD),
            (_EQUALS, 0, 1, 0),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _ERRNO | errno.EAGAIN),
        ]
    )
