"""The trace of a system call: its arguments, result and duration, in the format of strace."""

import errno
import socket
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from prefork.quantity import quantity

PREVIEW = 48
"""The number of bytes shown of sent and received data."""

T = TypeVar("T")


class SystemCall(msgspec.Struct, frozen=True):
    """One call: `at` is its start (wall clock, seconds since 1970, as in a packet capture)."""

    name: str
    arguments: str
    result: str
    at: float
    seconds: float


Trace = Callable[[SystemCall], None]


def traced(
    trace: Trace | None, name: str, arguments: tuple[object, ...], function: Callable[[], T]
) -> T:
    """Calls `function` and reports the call to `trace`; an OSError is reported and raised again."""
    if trace is None:
        return function()
    at, start = time.time(), time.perf_counter()
    shown = "interrupted"
    try:
        result = function()
        shown = show(result)
        return result
    except OSError as error:
        shown = _show_error(error)
        raise
    finally:
        seconds = time.perf_counter() - start
        trace(SystemCall(name, ", ".join(map(show, arguments)), shown, at, seconds))


def format_call(call: SystemCall) -> str:
    """A line such as `recv(3, 65536) = 312 bytes "HTTP/1.1 200 OK..." [85 us]`."""
    return f"{call.name}({call.arguments}) = {call.result} [{format_duration(call.seconds)}]"


def format_duration(seconds: float) -> str:
    """About three digits, in us, ms or s."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.2f} s"


def show(value: object) -> str:
    """An argument or a result as text; bytes as their number and beginning."""
    if value is None:
        return "0"
    if isinstance(value, (bytes, memoryview)):
        return (
            f"{quantity(len(value), 'byte')} {preview(bytes(value[:PREVIEW]), len(value))}".rstrip()
        )
    if isinstance(value, socket.socket):
        return str(value.fileno())
    return str(value)


def preview(data: bytes, total: int) -> str:
    """The bytes as a quoted string, safe for a terminal, with dots if `total` is more."""
    if not data:
        return ""
    text = data.decode("latin-1").encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{text}"' + ("..." if total > len(data) else "")


def _show_error(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        # Its errno is a code of OpenSSL, not of the system.
        return f"-1 {type(error).__name__}"
    if isinstance(error, TimeoutError) and error.errno is None:
        return "-1 timed out"
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return f"-1 {name} ({error.strerror or error})"
