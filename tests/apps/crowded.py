"""`tests.apps.supervised`, and a worker that runs short of descriptors."""

import os
import resource
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps import supervised
from tests.apps.basic import echo, pid

_taken: list[int] = []


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """/crowd leaves ten descriptors, /free gives back what that has taken."""
    path = environ["PATH_INFO"]
    if path == "/crowd":
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        while not _taken or _taken[-1] < limit - 10:
            _taken.append(os.open(os.devnull, os.O_RDONLY))
    elif path == "/free":
        while _taken:
            os.close(_taken.pop())
    elif path == "/echo":
        return echo(environ, start_response)
    else:
        return supervised.app(environ, start_response)
    return pid(environ, start_response)
