"""The lifecycle and error log: an event is a name and its fields, on one line.

Text, for people and grep:

    2026-11-23 15:04:05.123 +0000 [info] worker ready role=master slot=2 pid=123 generation=1

JSON, for machines: the same as an object with the keys time, level, event, role, slot, pid and
generation in every line, null where there is none.
"""

import json
import os
import re
import traceback
from collections.abc import Iterable
from datetime import datetime
from time import monotonic
from typing import Any, Literal

from prefork import systemd
from prefork.config import Log
from prefork.logs.access import AccessLog
from prefork.logs.sink import LogError, LogSink
from prefork.logs.syslog import SEVERITIES, TARGET, Syslog

Level = Literal["debug", "info", "warning", "error"]

_LEVELS: dict[str, int] = {"debug": 0, "info": 1, "warning": 2, "error": 3}


class _Opened:
    """The open files of one `[log]`.  Raises LogError, with nothing left open."""

    def __init__(self, config: Log) -> None:
        self.config = config
        self.threshold = _LEVELS[config.level]
        self.render = _json_line if config.format == "json" else _text_lines
        self.error = _sink("error", config.error)
        self.in_journal = config.error == "stderr" and systemd.is_journal(os.environ, 2)
        self.access: LogSink | Syslog | None = None
        if config.access is not None:
            try:
                self.access = _sink("access", config.access)
            except LogError:
                self.error.close()
                raise

    def sinks(self) -> list[LogSink | Syslog]:
        return [self.error] if self.access is None else [self.error, self.access]

    def close(self) -> None:
        for sink in self.sinks():
            sink.close()


def _sink(name: str, target: str) -> LogSink | Syslog:
    kind = Syslog if target.split(":")[0] == TARGET else LogSink
    return kind(name, target, _report_loss)


class Logs:
    """The logs of a process.  Raises LogError, with nothing left open."""

    def __init__(self, config: Log) -> None:
        self._now = _Opened(config)
        self._next: _Opened | None = None
        self._holds_standard = False

    @property
    def error(self) -> LogSink | Syslog:
        return self._now.error

    @property
    def access(self) -> LogSink | Syslog | None:
        return self._now.access

    def access_log(self) -> AccessLog | None:
        """A worker's access log, or None where none is asked for."""
        if self.access is None:
            return None
        return AccessLog(self.access, self._now.config.access_format)

    def prepare(self, config: Log) -> None:
        """Opens what a reload will need, beside what is in use; what it opened last is given up.

        Raises LogError, and then nothing has changed.
        """
        opened = _Opened(config)
        if self._next is not None:
            self._next.close()
        self._next = opened

    def reconfigure(self, config: Log) -> None:
        """Goes over to what was prepared for this configuration, and closes what was in use.

        The master does so when a reload commits, a worker at its birth: the first of a new
        generation is born before.  Raises LogError only for what was not prepared.
        """
        if self._next is not None and self._next.config == config:
            opened, self._next = self._next, None
        elif self._now.config == config:
            return
        else:
            opened = _Opened(config)
        before, self._now = self._now, opened
        self._redirect()
        before.close()

    def take_standard_streams(self) -> None:
        """Stdout and stderr, which lead nowhere in a daemon, go to the error log from now on.

        What an application prints is then where its tracebacks are looked for.  With syslog as the
        error log it is lost: there nobody reads lines that were not sent as messages.
        """
        self._holds_standard = True
        self._redirect()

    def _redirect(self) -> None:
        if not self._holds_standard:
            return
        # A daemon's stdin is /dev/null, open for writing too.
        fd = self.error.fd if isinstance(self.error, LogSink) else 0
        os.dup2(fd, 1)
        os.dup2(fd, 2)

    def say(self, level: Level, name: str, fields: dict[str, Any]) -> None:
        """Writes an event that is not below the level."""
        now = self._now
        if _LEVELS[level] >= now.threshold:
            text = now.render(level, name, fields)
            if now.in_journal:
                text = systemd.with_priority(SEVERITIES[level], text)
            now.error.write(text.encode(), level)

    def reopen(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Goes on in new files after a rotation: all of them, or none and LogError.

        Returns paths and descriptors for `replace` in the workers, which may have no right to
        open them.
        """
        opened: dict[str, int] = {}
        try:
            for sink in self._files():
                if sink.target not in opened:
                    opened[sink.target] = sink.open()
        except LogError:
            for fd in opened.values():
                os.close(fd)
            raise
        self.replace(tuple(opened), opened.values())
        fds = {sink.target: sink.fd for sink in self._files()}
        return tuple(fds), tuple(fds.values())

    def replace(self, paths: tuple[str, ...], fds: Iterable[int]) -> None:
        """Goes on with the files behind these descriptors, and closes the descriptors.

        Those of paths that are not in use here belong to another generation.
        """
        # Not strict: recvmsg(2) leaves out what a process at its limit of descriptors cannot take.
        for path, fd in zip(paths, fds, strict=False):
            for sink in self._files():
                if sink.target == path:
                    sink.replace(fd)
            os.close(fd)
        self._redirect()

    def _files(self) -> list[LogSink]:
        """Those in use, and those that a reload under way will use."""
        sinks = self._now.sinks() + (self._next.sinks() if self._next is not None else [])
        return [sink for sink in sinks if isinstance(sink, LogSink) and sink.is_file]

    def close(self) -> None:
        """Closes the files."""
        for sink in self._files():
            sink.close()


def configure(config: Log) -> Logs:
    """Opens the logs of `[log]` and makes them the process's; those so far stay if that fails.

    Raises LogError: one line, which file and why.
    """
    global _current
    before, _current = _current, Logs(config)
    before.close()
    return _current


def set_role(role: str, slot: int | None = None, generation: int | None = None) -> None:
    """Says once per process who speaks: its role, and for a worker its slot and generation."""
    global _speaker
    _speaker = {"role": role, "slot": slot, "generation": generation}


def event(level: Level, name: str, /, **fields: Any) -> None:
    """Says that something happened; never raises OSError.

    slot, pid and generation tell what the line is about: the caller's fields, else the process
    itself.  `traceback` is text of several lines.  Not for fields: time, level, event.
    """
    about = {"role": None, "slot": None, "pid": os.getpid(), "generation": None}
    _current.say(level, name, about | _speaker | fields)


class RateLimit:
    """For what may happen a thousand times a second: when to say it again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._silent_until = 0.0

    def due(self) -> bool:
        """Whether to say it now; if so, not again for a while."""
        now = monotonic()
        if now < self._silent_until:
            return False
        self._silent_until = now + self._seconds
        return True


def traceback_of(problem: BaseException) -> str:
    """An exception as Python would print it, its causes included."""
    return "".join(traceback.format_exception(problem)).rstrip("\n")


def summary_of(problem: BaseException) -> str:
    """An exception in one line, as the last of its traceback."""
    return traceback.format_exception_only(problem)[-1].strip()


def _report_loss(target: str, lines: int, reason: str) -> None:
    event("error", "log lines lost", log=target, lines=lines, reason=reason)


def _json_line(level: str, name: str, fields: dict[str, Any]) -> str:
    """RFC 8259 in ASCII, with the time of RFC 3339."""
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    line = {"time": now, "level": level, "event": name, **fields}
    return json.dumps(line, default=str) + "\n"


def _text_lines(level: str, name: str, fields: dict[str, Any]) -> str:
    now = datetime.now().astimezone()
    stamp = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03d} {now:%z}"
    line = [f"{stamp} [{level}] {printable(name)}"]
    rest = []
    for key, value in fields.items():
        if key == "traceback":
            rest = [f"    {printable(text)}" for text in str(value).split("\n")]
        elif value is not None:
            line.append(f"{key}={_quote(str(value))}")
    return "\n".join([" ".join(line), *rest]) + "\n"


_TO_QUOTE = re.compile(r'[ "=\\]')


def _quote(text: str) -> str:
    """A value, in double quotes where it would not read as one word."""
    if text and text.isprintable() and not _TO_QUOTE.search(text):
        return text
    return '"' + printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def printable(text: str) -> str:
    """No control character, line separator, direction mark or lone surrogate gets out.

    They could forge a line, or drive the terminal that shows it.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


_speaker: dict[str, str | int | None] = {}
_current = Logs(Log())  # stderr, until something else is configured
