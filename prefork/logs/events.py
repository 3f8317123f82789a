"""The lifecycle and error log: an event is a name and its fields, on one line."""

import os
from typing import Any

from prefork.config import Log
from prefork.logs.log_files import Level, Logs


def configure(config: Log) -> Logs:
    """Opens the logs of `[log]` for this process, and closes those in use so far.

    Raises LogError: one line with the file and the reason.  The logs so far then stay in use.
    """
    global _current
    before, _current = _current, Logs(config, _report_loss)
    before.close()
    return _current


def set_role(role: str, slot: int | None = None, generation: int | None = None) -> None:
    """Sets the fields of all later events of this process: its role, and of a worker its slot and
    generation."""
    global _process_fields
    _process_fields = {"role": role, "slot": slot, "generation": generation}


def event(level: Level, name: str, /, **fields: Any) -> None:
    """Logs an event; never raises OSError.

    slot, pid and generation say which process the event is about; by default it is this one.
    `traceback` is text of several lines.  The names time, level and event cannot be fields.
    """
    defaults = {"role": None, "slot": None, "pid": os.getpid(), "generation": None}
    _current.write_event(level, name, defaults | _process_fields | fields)


def _report_loss(target: str, lines: int, reason: str) -> None:
    event("error", "log lines lost", log=target, lines=lines, reason=reason)


_process_fields: dict[str, str | int | None] = {}
_current = Logs(Log(), _report_loss)  # stderr, until something else is configured
