"""The end of a worker: at once, or with what the application has registered for it."""

import os
import signal
import threading
from typing import NoReturn

from prefork.worker.boot import exit_callbacks
from prefork.worker.boot.fork_protection import flush_output
from prefork.worker.boot.leftovers import end_children, report_what_is_waited_for
from prefork.worker.schedule.service_interface import Service


def quit_now(service: Service) -> None:
    """SIGQUIT: the server stops now.  The master kills the worker if it is not gone in a second.

    The callbacks run in a signal handler: one that needs a lock which the interrupted code holds
    waits for it until then.  (An exception that unwinds that code might be caught by it.)
    """
    if exit_callbacks.started():
        return  # the worker ends
    signal.signal(signal.SIGQUIT, lambda *_: None)  # the master repeats it
    try:
        service.flush()
        # A pool's own thread replaces each of its processes that ends.
        os.register_at_fork(after_in_child=lambda: os._exit(0))
        end_children()  # first, since a callback may not return
        exit_callbacks.run(children=False)
        end_children()  # those whose fork was under way
        flush_output()
    finally:
        os._exit(0)


def end(status: int) -> NoReturn:
    """Ends as an interpreter would, with the callbacks that were registered."""
    try:
        if status == 0:
            report_what_is_waited_for()
            threading._shutdown()  # type: ignore[attr-defined]
            exit_callbacks.run()
        flush_output()
    finally:
        os._exit(status)
