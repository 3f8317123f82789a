"""What the tests of recycling and of the dynamic pool ask of an application."""

import os
import time
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.basic import app as basic
from tests.apps.basic import pid, query

leaked: list[bytes] = []


def gate(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Stays in the application until the file ?file= is there, for all at once; then the pid."""
    while not os.path.exists(query(environ, "file", "")):
        time.sleep(0.01)
    return pid(environ, start_response)


def leak(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Keeps ?n= MiB for ever; then the pid."""
    leaked.append(bytes([1]) * (int(query(environ, "n", "1")) << 20))
    return pid(environ, start_response)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    routes = {"/gate": gate, "/leak": leak}
    return routes.get(environ["PATH_INFO"], basic)(environ, start_response)
