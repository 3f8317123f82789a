"""`tests.apps.supervised`, and a worker of which a thread holds the interpreter for ever."""

import ctypes
import threading
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps import supervised
from tests.apps.basic import pid

_MUTEX = ctypes.create_string_buffer(64)  # PTHREAD_MUTEX_INITIALIZER on Linux


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """/freeze answers, and a thread freezes the worker when the FIFO `fifo` is closed."""
    if environ["PATH_INFO"] != "/freeze":
        return supervised.app(environ, start_response)
    path = environ["QUERY_STRING"].removeprefix("fifo=")
    threading.Thread(target=_freeze_after, args=(path,), daemon=True).start()
    return pid(environ, start_response)


def _freeze_after(path: str) -> None:
    with open(path, "rb") as fifo:
        fifo.read()
    # PyDLL keeps the GIL, and a mutex is not given up for a signal, as sleep(3) would be.
    lock = ctypes.PyDLL(None).pthread_mutex_lock
    lock(_MUTEX)
    lock(_MUTEX)
