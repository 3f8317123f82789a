"""All logs: events of the server, one a line; the access log; the application's own logging.

The server's own events do not pass through the `logging` of the standard library.  In a worker that
module belongs to the application: its dictConfig, `logging.disable()` or record factory must not
silence, redirect or break them.
"""

from prefork.logs.access import AccessLog
from prefork.logs.application import configure_application
from prefork.logs.events import configure, event, set_role
from prefork.logs.line_format import (
    application_traceback,
    printable,
    printable_lines,
    summary_of,
    traceback_of,
)
from prefork.logs.log_files import Level, Logs
from prefork.logs.log_pipe import LogPipeEnds
from prefork.logs.rate_limit import RateLimit
from prefork.logs.sink import LogError, LogSink

__all__ = [
    "AccessLog",
    "Level",
    "LogError",
    "LogPipeEnds",
    "LogSink",
    "Logs",
    "RateLimit",
    "application_traceback",
    "configure",
    "configure_application",
    "event",
    "printable",
    "printable_lines",
    "set_role",
    "summary_of",
    "traceback_of",
]
