"""An application that changes what belongs to all of its process, when $CHANGE says so: at import,
or at the first request."""

import os
import signal
import socket
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps import files
from tests.apps.basic import echo, pid


def change() -> None:
    socket.setdefaulttimeout(0.2)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


if os.environ["CHANGE"] == "import":
    change()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if os.environ["CHANGE"] == "request":
        change()
    if environ["PATH_INFO"] == "/pid":
        return pid(environ, start_response)
    if environ["PATH_INFO"] == "/echo":
        return echo(environ, start_response)
    return files.app(environ, start_response)
