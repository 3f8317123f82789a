"""`prefork.serve`: starts a server from a Python program."""

import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from prefork import StartError
from prefork.apps import application_loader, given_application
from prefork.config import Override, Source, parse_value
from prefork.master import start
from prefork.master.signals import HANDLED_SIGNALS
from prefork.worker.boot import exit_callbacks


def serve(target: Any, settings: Mapping[str, Any], *, tcp: bool, watch: bool) -> int:
    """See `prefork.serve`; `settings` by their full names, such as "workers.count"."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "prefork.serve() has to be called in the main thread: it handles signals"
        )
    if name := application_loader.importing:
        raise StartError(
            f"{name} calls prefork.serve() when it is imported, and each worker imports it: put the"
            ' call below `if __name__ == "__main__":`'
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
    handlers = {number: signal.getsignal(number) for number in HANDLED_SIGNALS}
    try:
        return start.serve(Source(target, tuple(overrides), tcp), watch=watch)
    finally:  # the program may go on, and be interrupted
        for number, handler in handlers.items():
            if handler is not None:  # None: it was not set from Python
                signal.signal(number, handler)


_PASTE_KEYS = {"bind": "server.bind", "workers": "workers.count", "threads": "workers.threads"}


def serve_for_paste(
    application: Any,
    global_conf: Mapping[str, str],
    host: str = "",
    port: str = "",
    listen: str = "",
    **settings: str,
) -> None:
    """Serves the application of a Paste file, as `pserve` does with `use = egg:prefork`.

    It is the entry point `paste.server_runner` of PasteDeploy.  The keys are those of its section:
    `bind` (or `listen`, as for waitress): addresses; or `host` and `port`; `workers`, `threads`,
    and any other by its full name, such as `http.keepalive`.

    Raises SystemExit if the server fails.
    """
    given = {_PASTE_KEYS.get(name, name): parse_value(text) for name, text in settings.items()}
    if addresses := (settings.get("bind", "") or listen).split():
        given["server.bind"] = addresses
    elif host or port:
        given["server.bind"] = [f"{host or '127.0.0.1'}:{port or 8000}"]
    try:
        status = serve(application, given, tcp=False, watch=False)
    except StartError as error:
        sys.exit(f"prefork: {error}")
    if status:
        sys.exit(status)
