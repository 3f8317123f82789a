"""A worker that cannot go on: a fault of prefork, or the application has broken what it needs."""

import errno

from prefork import logs

_CLOSED = (
    "a descriptor of the server is closed: the application has closed it, by os.closerange(), by a"
    " library that makes a daemon, or since a number was closed twice; remove that call"
)


def report_interrupt(traceback: str = "") -> None:
    """Logs that the application has raised KeyboardInterrupt outside of a call, and where, if that
    is known: a terminal's Ctrl-C may be the reason, and deserves no traceback."""
    logs.event(
        "warning",
        "worker interrupted",
        reason="a handler of the application for SIGINT, or a task of it, has raised"
        " KeyboardInterrupt",
        **({"traceback": traceback} if traceback else {}),
    )


def report_worker_failure(problem: BaseException) -> None:
    """Logs what has ended a worker outside of the application."""
    closed = isinstance(problem, OSError) and problem.errno == errno.EBADF
    logs.event(
        "error",
        "worker failed",
        **({"reason": _CLOSED} if closed else {}),
        traceback=logs.traceback_of(problem),
    )
