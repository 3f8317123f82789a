"""The files of `tests.apps.files` in a process whose sendfile(2) fails with $REFUSED."""

import ctypes
import os
import platform
import struct

from tests.apps.files import app

_NUMBER = {"x86_64": 40, "aarch64": 71}[platform.machine()]
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def refuse_sendfile(number: int) -> None:
    """seccomp(2): a filter of system calls that lets sendfile fail with an error."""
    program = b"".join(
        struct.pack("=HBBI", *one)
        for one in (
            (0x20, 0, 0, 0),  # load the number of the call
            (0x15, 0, 1, _NUMBER),
            (0x06, 0, 0, _ERRNO | number),
            (0x06, 0, 0, _ALLOW),
        )
    )
    code = ctypes.create_string_buffer(program)
    filter = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter, 0, 0) == 0


refuse_sendfile(int(os.environ["REFUSED"]))

__all__ = ["app"]
