"""An application with a wild pointer: it writes where it may, and tries where it may not."""

import ctypes
import errno
import os
import random
import signal
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

libc = ctypes.CDLL(None, use_errno=True)


def mappings() -> dict[str, list[tuple[int, int]]]:
    """The scoreboard's parts of this process's memory: (address, bytes) by their permissions."""
    found: dict[str, list[tuple[int, int]]] = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "prefork-scoreboard" in line:
            place, permissions = line.split()[:2]
            start, end = (int(part, 16) for part in place.split("-"))
            found.setdefault(permissions, []).append((start, end - start))
    return found


def descriptors() -> list[str]:
    """Those that lead to the scoreboard, by how they were opened."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            if "prefork-scoreboard" in os.readlink(f"/proc/self/fd/{fd}"):
                flags = Path(f"/proc/self/fdinfo/{fd}").read_text().split("flags:")[1].split()[0]
                found.append("read" if int(flags, 8) & 3 == os.O_RDONLY else "write")
        except FileNotFoundError:
            pass
    return found


def scribble(seed: int) -> None:
    generator = random.Random(seed)
    [(start, size)] = mappings()["rw-s"]
    patterns = [b"\xff", b"\x7f\xf8"[::-1].rjust(8, b"\0"), generator.randbytes(4096), b"\x1b[2J"]
    data = patterns[seed % len(patterns)]
    ctypes.memmove(start, (data * (size // len(data) + 1))[:size], size)


def others() -> str:
    """What the kernel says to whoever wants to write the rest."""
    [(start, size)] = mappings()["r--s"]
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), 3) == 0:
        return "allowed"
    return errno.errorcode[ctypes.get_errno()]


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path, query = environ["PATH_INFO"], parse_qs(environ["QUERY_STRING"])
    answer = str(os.getpid())
    if path == "/scribble":
        scribble(int(query["seed"][0]))
    elif path == "/others":
        [own] = mappings()["rw-s"]
        answer = f"{others()} {own[1]} {descriptors()}"
    elif path == "/wild":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.memset(mappings()["r--s"][0][0], 1, 64)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
