"""Tells in a journal who imported it and when its hooks were called, and answers who it is.

Tests copy this file, rewrite the constant in the copy, and reload.  The environment says where the
journal is and what else is to happen:

    JOURNAL     a file that gets a line for each thing that happens
    BALLAST     mebibytes in small objects to hold from the import on
    RAISE_IN    the hook that raises
    THREAD      start one at import
    OWN_CHILD   fork a process at import that lives until nobody can write to this FIFO
    DIE_UNBORN  while this file is there, a worker dies before the server's code runs in it
"""

import contextlib
import json
import os
import random
import signal
import threading
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

VERSION = "one"


def note(what: str, *details: object) -> None:
    if "JOURNAL" in os.environ:
        with open(os.environ["JOURNAL"], "a") as journal:
            journal.write(" ".join(map(str, (what, *details))) + "\n")


note("import", os.getpid())

ballast = [bytes(1000) for _ in range(int(os.environ.get("BALLAST", "0")) * 1000)]

if "THREAD" in os.environ:
    threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()

if "OWN_CHILD" in os.environ and os.fork() == 0:
    with contextlib.suppress(OSError), open(os.environ["OWN_CHILD"]) as fifo:
        fifo.read()
    os._exit(0)

if "DIE_UNBORN" in os.environ:
    forks = [os.getpid()]

    def die_unborn() -> None:
        # The first fork makes the process between, which has to live on; the second the worker.
        forks.append(os.getpid())
        if len(forks) > 2 and os.path.exists(os.environ["DIE_UNBORN"]):
            note("unborn", os.getpid())
            os.kill(os.getpid(), signal.SIGKILL)

    os.register_at_fork(after_in_child=die_unborn)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    answer = {
        "version": VERSION,
        "pid": os.getpid(),
        "parent": os.getppid(),
        "random": random.random(),
    }
    body = json.dumps(answer).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def factory() -> Any:
    note("factory", os.getpid())
    return app


def _hook(moment: str, worker: Any) -> None:
    note(moment, worker.slot, worker.generation, worker.pid, worker.name, os.getpid())
    if os.environ.get("RAISE_IN") == moment:
        raise RuntimeError(f"{moment} fails on purpose")


def before_fork(worker: Any) -> None:
    _hook("before_fork", worker)


def after_fork(worker: Any) -> None:
    _hook("after_fork", worker)


def ready(worker: Any) -> None:
    _hook("ready", worker)


def before_exit(worker: Any) -> None:
    _hook("before_exit", worker)
