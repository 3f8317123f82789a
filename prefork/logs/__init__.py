"""Where everything is said: one line an event, the access log, the application's own logging.

What the server says about itself does not pass through the stdlib's `logging`: in a worker that
module belongs to the application, whose dictConfig, `logging.disable()` or record factory must
not be able to silence, redirect or break it.
"""

from prefork.logs.access import AccessLog
from prefork.logs.application import configure_application
from prefork.logs.events import (
    Level,
    Logs,
    RateLimit,
    configure,
    event,
    printable,
    set_role,
    summary_of,
    traceback_of,
)
from prefork.logs.sink import LogError, LogSink

__all__ = [
    "AccessLog",
    "Level",
    "LogError",
    "LogSink",
    "Logs",
    "RateLimit",
    "configure",
    "configure_application",
    "event",
    "printable",
    "set_role",
    "summary_of",
    "traceback_of",
]
