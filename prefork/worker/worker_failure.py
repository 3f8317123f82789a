"""A worker that cannot go on: a fault of prefork, or the application has broken what it needs."""

import errno

from prefork import logs

_CLOSED = (
    "a descriptor of the server is closed: the application has closed it, by os.closerange(), by a"
    " library that makes a daemon, or since a number was closed twice; remove that call"
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
