"""An application that replaces the parts of the standard library that gevent and eventlet replace.

Each replacement fails: the server uses none of them.
"""

import _thread
import os
import select
import socket
import threading
import time
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment


def _fail(*_: object, **__: object) -> object:
    raise RuntimeError("the server uses what the application has replaced")


class _Socket(socket.socket):
    """Only for the application."""

    def __init__(self, *args: object, **options: object) -> None:
        _fail()


for module, names in {
    # Not what an import needs.
    _thread: ("start_new_thread", "start_joinable_thread"),
    threading: (
        *("_start_new_thread", "_start_joinable_thread", "Lock", "RLock", "Event", "Condition"),
        "get_ident",
    ),
    time: ("sleep",),
    os: ("read", "write", "open", "waitpid", "fork"),
    select: ("poll", "select"),
}.items():
    for name in names:
        if hasattr(module, name):
            setattr(module, name, _fail)
del select.epoll
socket.socket = _Socket  # type: ignore[misc]
socket.SocketType = _Socket


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid(), b" ", body]
