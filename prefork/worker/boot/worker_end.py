"""The end of a worker: at once, or with what the application has registered for it."""

import os
import signal
import threading
from typing import NoReturn

from prefork.unpatched import sleep
from prefork.worker.boot import exit_callbacks
from prefork.worker.boot.fork_protection import flush_output
from prefork.worker.boot.leftovers import end_children, report_what_is_waited_for
from prefork.worker.boot.worker_loops import RunningLoop
from prefork.worker.schedule.service_interface import Service
from prefork.worker.worker_failure import report_interrupt

_ORDER = 1.0
"""Seconds in which the order to stop comes, after a signal that the master got as well."""


class QuickEnd:
    """SIGQUIT: the server stops now.  The master kills the worker if it is not gone in a second.

    An event loop ends by itself, with the lifespan's shutdown, unless it is blocked.  All other
    workers end in the handler of the signal.
    """

    def __init__(self, service: Service, loop: RunningLoop) -> None:
        self._ordered = False  # the loop ends for this signal, and `complete` is to follow
        self._service = service
        self._loop = loop

    def on_signal(self, *_: object) -> None:
        """The handler; the master repeats the signal until the worker is gone."""
        self._ordered = self._loop.quit()
        if not self._ordered:
            quit_now(self._service)

    def complete(self) -> None:
        """The loop has returned: does not return if that was for the signal."""
        if self._ordered:
            quit_now(self._service)


def end_without_master(master: int) -> None:
    """Ends this worker as the signal for the master's death does; `master`: its process id.

    An application that drops rights by itself clears that signal (prctl(2)).  To be called by a
    thread: a signal just before accept4(2) is missed, so it is sent again.
    """
    for _ in range(1000):
        # A process that ends closes its files first, and would pass here for one that lives.
        if os.getppid() != master:
            break
        sleep(0.001)
    for _ in range(10):
        os.kill(os.getpid(), signal.SIGTERM)
        sleep(0.1)


def wait_after_interrupt() -> None:
    """KeyboardInterrupt was raised in the loop: by a handler of SIGINT that the application has set
    after the import.  A terminal has sent SIGINT to the master, too, so that
    its order to stop comes now (SIGQUIT); without one the worker ends, since its loop was cut off
    anywhere."""
    signal.signal(signal.SIGINT, lambda *_: None)
    report_interrupt()
    sleep(_ORDER)


def quit_now(service: Service) -> None:
    """Ends the worker at once, with the callbacks that the application has registered.

    They may run in a signal handler: one that needs a lock which the interrupted code holds
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
