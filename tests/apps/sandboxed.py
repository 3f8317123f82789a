"""It tries what a sandbox forbids: when it is imported, in a thread, and in a program."""

import ctypes
import errno
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

libc = ctypes.CDLL(None, use_errno=True)

CALLS = {
    "ptrace": {"x86_64": 101, "aarch64": 117},
    "bpf": {"x86_64": 321, "aarch64": 280},
    "keyctl": {"x86_64": 250, "aarch64": 219},
    "unshare": {"x86_64": 272, "aarch64": 97},
    "perf_event_open": {"x86_64": 298, "aarch64": 241},
    "io_uring_setup": {"x86_64": 425, "aarch64": 425},
    "clone3": {"x86_64": 435, "aarch64": 435},
    "getppid": {"x86_64": 110, "aarch64": 173},
}
TIOCSTI = 0x5412


def outcome(attempt: Callable[[], object]) -> str:
    """ "" if it succeeded, else the name of the error."""
    try:
        attempt()
    except OSError as problem:
        return errno.errorcode[problem.errno or 0]
    return ""


def call(name: str) -> None:
    # Arguments that are refused anyway (EINVAL, EFAULT): a call that is let through does nothing.
    if libc.syscall(CALLS[name][os.uname().machine], -1, -1, -1, -1, -1) < 0:
        raise OSError(ctypes.get_errno(), name)


def program(path: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"open({path!r}, 'w')"], capture_output=True)
    if done.returncode:
        raise OSError(errno.EACCES if b"Permission denied" in done.stderr else errno.EIO, path)


def in_a_process(path: str) -> None:
    """By multiprocessing, whose locks are in /dev/shm."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=lambda: results.put(outcome(lambda: open(path, "w").close())))
    process.start()
    found = results.get()
    process.join()
    if found:
        raise OSError(getattr(errno, found), path)


def attempts(query: dict[str, str]) -> dict[str, Callable[[], object]]:
    denied, allowed = query.get("denied", ""), query.get("allowed", "")
    found: dict[str, Callable[[], object]] = {name: partial(call, name) for name in CALLS}
    found["TIOCSTI"] = lambda: fcntl.ioctl(0, TIOCSTI, b"x")
    found["signal"] = lambda: os.kill(int(query["pid"]), 0)
    place = os.environ.get("TMPDIR", "/tmp")
    found["temporary"] = lambda: os.close(os.open(place, os.O_TMPFILE | os.O_RDWR))
    found["null"] = lambda: Path(os.devnull).write_text("x")
    if allowed:
        found["inside"] = lambda: Path(allowed, "new").write_text("x")
    if denied:
        found["make"] = lambda: Path(denied, "new").write_text("x")
        found["truncate"] = lambda: os.truncate(Path(denied, "old"), 0)
        found["remove"] = lambda: os.unlink(Path(denied, "old"))
        found["rename"] = lambda: os.rename(Path(denied, "old"), Path(denied, "other"))
        found["program"] = lambda: program(os.path.join(denied, "new"))
        found["process"] = lambda: in_a_process(os.path.join(denied, "new"))
    return found


def threads() -> dict[str, set[str]]:
    """What the kernel says of all threads of this process: fields of proc(5) and their values."""
    found: dict[str, set[str]] = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            status = (task / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # the kernel has not yet done with a thread that was joined
        for line in status.splitlines():
            name, _, value = line.partition(":")
            if name in ("NoNewPrivs", "Seccomp", "CapEff", "Uid"):
                found.setdefault(name, set()).add(value.strip())
    return found


def results(query: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}

    def run() -> None:
        found.update({name: outcome(attempt) for name, attempt in attempts(query).items()})

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found


IMPORTED = results({"pid": str(os.getppid()), "denied": os.environ.get("DENIED", "")})


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = {key: value for key, [value] in parse_qs(environ["QUERY_STRING"]).items()}
    answer: dict[str, Any] = {
        "pid": os.getpid(),
        "size": len(environ["wsgi.input"].read()),
        "imported": IMPORTED,
        "now": results(query) if query else {},
        "threads": {name: sorted(values) for name, values in threads().items()},
        "names": len(list(Path("/proc/self/task").iterdir())),
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
