"""An application that becomes another user, when it is imported or at the first request ($DROP)."""

import os
import pwd
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps import basic

_WHEN = os.environ["DROP"]


def _drop() -> None:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)


if _WHEN == "import":
    _drop()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if _WHEN == "request" and not os.getuid():
        _drop()
    return basic.app(environ, start_response)
