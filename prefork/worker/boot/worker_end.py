"""The end of a worker: at once, or with what the application has registered for it."""

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn

from prefork.worker.boot.leftovers import end_children, report_what_is_waited_for
from prefork.worker.schedule.service_interface import Service


def quit_now(service: Service) -> NoReturn:
    """SIGQUIT: the server stops now."""
    service.flush()
    end_children()
    os._exit(0)


def end(status: int) -> NoReturn:
    """Ends as an interpreter would, with the callbacks that the application registered."""
    try:
        if status == 0:
            report_what_is_waited_for()
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(status)
