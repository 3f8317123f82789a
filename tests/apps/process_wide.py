"""An application that changes what belongs to all of its process, when $CHANGE says so: at import,
or at the first request."""

import contextlib
import faulthandler
import gc
import locale
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps import files
from tests.apps.basic import echo, pid


def _forbidden(*_: object) -> None:
    os._exit(9)


def change() -> None:
    socket.setdefaulttimeout(0.2)
    for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    if CHANGE == "import":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        threading.stack_size(64 * 1024)
    os.umask(0o777)
    os.chdir("/")
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, "")
    threading.settrace(_forbidden)
    threading.setprofile(_forbidden)
    sys.setswitchinterval(1.0)
    sys.setrecursionlimit(200)
    faulthandler.enable(2)
    faulthandler.disable()
    gc.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    sys.stdout = sys.stderr = sys.stdin = None
    os.environ.clear()


CHANGE = os.environ["CHANGE"]
if CHANGE == "import":
    change()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if CHANGE == "request":
        change()
    if environ["PATH_INFO"] == "/pid":
        return pid(environ, start_response)
    if environ["PATH_INFO"] == "/echo":
        return echo(environ, start_response)
    return files.app(environ, start_response)
