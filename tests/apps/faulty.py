"""What an application may do to its worker, for the tests of faults: a path for each.

All paths of `tests.apps.basic` and `tests.apps.supervised` are here, too.
"""

import contextlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps import basic, supervised
from tests.apps.basic import as_json, missing, pid


def ignore_term(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Ignores SIGTERM from now on."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return pid(environ, start_response)


def deaf(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Blocks every signal that can be blocked, in the thread that serves."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return pid(environ, start_response)


def die(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Leaves without a word, as a crash in C code does."""
    os.abort()


def exhaust(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Leaves no descriptor below a limit of 100, for as long as the worker lives."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, most))
    with contextlib.suppress(OSError):
        while True:
            os.open(os.devnull, os.O_RDONLY)
    return pid(environ, start_response)


def exiting_child(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A child that leaves by sys.exit, as a script's would, and not by os._exit."""
    child = os.fork()
    if child == 0:
        sys.exit(7)
    _, status = os.waitpid(child, 0)
    return as_json(start_response, {"child": child, "status": os.waitstatus_to_exitcode(status)})


def returning_child(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A child that answers, too."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return as_json(start_response, {"child": child})


def daemon_thread(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A thread that never ends and that nobody has to wait for."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return pid(environ, start_response)


def endless_thread(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A thread that never ends and that an interpreter waits for at its exit."""
    threading.Thread(target=threading.Event().wait).start()
    return pid(environ, start_response)


ROUTES: dict[str, Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]] = {
    **basic.ROUTES,
    **supervised.ROUTES,
    "/ignore-term": ignore_term,
    "/deaf": deaf,
    "/die": die,
    "/exhaust": exhaust,
    "/exiting-child": exiting_child,
    "/returning-child": returning_child,
    "/daemon-thread": daemon_thread,
    "/endless-thread": endless_thread,
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application."""
    return ROUTES.get(environ["PATH_INFO"], missing)(environ, start_response)
