"""Registers callbacks with atexit: at import, and at requests, which fail or do not return."""

import atexit
import os
import threading
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.basic import answer

_FILE = os.environ["EXIT_FILE"]


def note(who: str) -> None:
    """A line for each call, which says in which process it was."""
    with open(_FILE, "a") as file:
        file.write(f"{who} {os.getpid()}\n")


def fails() -> None:
    raise LookupError("nothing to flush")


def hangs() -> None:
    threading.Event().wait()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The pid."""
    match environ["PATH_INFO"]:
        case "/fails":
            atexit.register(fails)
        case "/fails_in_c":
            atexit.register(os.close, -1)
        case "/hangs":
            atexit.register(hangs)
    return answer(start_response, str(os.getpid()).encode())


atexit.register(note, "application")
