"""`prefork.serve`: a server that is started from a Python program."""

import threading
from collections.abc import Mapping
from typing import Any

from prefork import StartError
from prefork.apps import given_application
from prefork.config import Override, Source
from prefork.master import start


def serve(target: Any, settings: Mapping[str, Any], *, tcp: bool, watch: bool) -> int:
    """See `prefork.serve`; `settings` by their full names, "workers.count"."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("prefork.serve() is to be called in the main thread: it takes signals")
    if not isinstance(target, str):
        if not callable(target):
            raise StartError(
                f"{target!r} is no application: it cannot be called; give a callable, or a name"
                ' such as "module:callable"'
            )
        given_application.application, target = target, given_application.NAME
    overrides = []
    for name, value in settings.items():
        section, _, key = name.partition(".")
        overrides.append(Override(section, key, value, "prefork.serve()"))
    return start.serve(Source(target, tuple(overrides), tcp), watch=watch)
