"""`prefork.serve`: starts a server from a Python program."""

import threading
from collections.abc import Mapping
from typing import Any

from prefork import StartError
from prefork.apps import given_application
from prefork.config import Override, Source
from prefork.master import start
from prefork.worker.boot import exit_callbacks


def serve(target: Any, settings: Mapping[str, Any], *, tcp: bool, watch: bool) -> int:
    """See `prefork.serve`; `settings` by their full names, such as "workers.count"."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "prefork.serve() has to be called in the main thread: it handles signals"
        )
    if not isinstance(target, str):
        if not callable(target):
            raise StartError(
                f"{target!r} is not an application: it cannot be called; give a callable, or a"
                ' name such as "module:callable"'
            )
        given_application.application, target = target, given_application.NAME
    exit_callbacks.keep_from_workers()
    overrides = []
    for name, value in settings.items():
        section, _, key = name.partition(".")
        overrides.append(Override(section, key, value, "prefork.serve()"))
    return start.serve(Source(target, tuple(overrides), tcp), watch=watch)
