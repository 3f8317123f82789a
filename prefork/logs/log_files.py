"""The logs of a process: opened, prepared for a reload, and reopened after a rotation."""

import os
import stat
from collections.abc import Callable, Iterable
from typing import Any, Literal

from prefork import systemd
from prefork.config import Log
from prefork.logs.access import AccessLog
from prefork.logs.line_format import json_line, text_lines
from prefork.logs.log_pipe import LogPipeEnds
from prefork.logs.sink import STANDARD, LogError, LogSink
from prefork.logs.syslog import SEVERITIES, TARGET, Syslog

Level = Literal["debug", "info", "warning", "error"]

LossHandler = Callable[[str, int, str], None]

_LEVELS: dict[str, int] = {"debug": 0, "info": 1, "warning": 2, "error": 3}


class _OpenLogs:
    """The open destinations of one `[log]`.  Raises LogError, with nothing left open."""

    def __init__(self, config: Log, on_loss: LossHandler) -> None:
        self.config = config
        self.threshold = _LEVELS[config.level]
        self.render = json_line if config.format == "json" else text_lines
        self.error = _sink("error", config.error, on_loss)
        self.in_journal = config.error == "stderr" and systemd.is_journal(os.environ, 2)
        self.access: LogSink | Syslog | None = None
        if config.access is not None:
            try:
                self.access = _sink("access", config.access, on_loss)
            except LogError:
                self.error.close()
                raise

    def sinks(self) -> list[LogSink | Syslog]:
        return [self.error] if self.access is None else [self.error, self.access]

    def close(self) -> None:
        for sink in self.sinks():
            sink.close()


def _is_regular(fd: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False


def _sink(name: str, target: str, on_loss: LossHandler) -> LogSink | Syslog:
    kind = Syslog if target.split(":")[0] == TARGET else LogSink
    return kind(name, target, on_loss)


class Logs:
    """The logs of a process.

    on_loss: called with a target, the number of lost lines and the reason, when lines can be
        written to that target again.

    Raises LogError, with nothing left open.
    """

    def __init__(self, config: Log, on_loss: LossHandler) -> None:
        self._on_loss = on_loss
        self._now = _OpenLogs(config, on_loss)
        self._next: _OpenLogs | None = None
        self._holds_standard = False

    @property
    def error(self) -> LogSink | Syslog:
        return self._now.error

    @property
    def access(self) -> LogSink | Syslog | None:
        return self._now.access

    def access_log(self, on_unreadable: Callable[[str, BaseException], None]) -> AccessLog | None:
        """The access log of a worker, or None if it has none; `on_unreadable` as of AccessLog."""
        if self.access is None:
            return None
        return AccessLog(self.access, self._now.config.access_format, on_unreadable)

    def prepare(self, config: Log) -> None:
        """Opens the logs of a reload, beside those in use; closes those that were prepared before.

        Raises LogError, and then nothing has changed.
        """
        opened = _OpenLogs(config, self._on_loss)
        if self._next is not None:
            self._next.close()
        self._next = opened

    def reconfigure(self, config: Log) -> None:
        """Uses the logs that were prepared for this configuration, and closes those in use.

        The master calls this when a reload commits.  A worker calls it at its start, since the
        first worker of a new generation is forked before the commit.  Raises LogError only for a
        configuration that was not prepared.
        """
        if self._next is not None and self._next.config == config:
            opened, self._next = self._next, None
        elif self._now.config == config:
            return
        else:
            opened = _OpenLogs(config, self._on_loss)
        before, self._now = self._now, opened
        self._redirect()
        before.close()

    def descriptors(self) -> list[int]:
        """Those of the files that are open."""
        return [sink.fd for sink in self._files()]

    def take_standard_streams(self) -> None:
        """From now on, stdout and stderr, which a daemon does not have, are the error log.

        The output of an application is then in the same file as its tracebacks.  If the error log
        is syslog, the output is lost: syslog takes messages, not lines.
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

    def write_event(self, level: Level, name: str, fields: dict[str, Any]) -> None:
        """Writes an event, unless its level is below that of `[log]`."""
        now = self._now
        if _LEVELS[level] >= now.threshold:
            text = now.render(level, name, fields)
            if now.in_journal:
                text = systemd.with_priority(SEVERITIES[level], text)
            now.error.write(text.encode(), level)

    def reopen(self) -> None:
        """Opens new files of the same paths after a rotation, and writes to them from now on.

        Raises LogError, and then all old files stay in use.
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

    def files(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Paths and descriptors of the files that are open, for `replace` in another process.

        That one may lack the permission to open them.
        """
        fds = {sink.target: sink.fd for sink in self._files()}
        return tuple(fds), tuple(fds.values())

    def replace(self, paths: tuple[str, ...], fds: Iterable[int]) -> None:
        """Writes to the files of these descriptors from now on, and closes the descriptors.

        Paths that are not in use here belong to another generation.
        """
        # Not strict: recvmsg(2) drops the descriptors beyond the process's limit.
        for path, fd in zip(paths, fds, strict=False):
            if path in STANDARD:
                os.dup2(fd, STANDARD[path])
            for sink in self._files():
                if sink.target == path:
                    sink.replace(fd)
            os.close(fd)
        self._redirect()

    def pass_through(self, pipes: LogPipeEnds) -> None:
        """In a worker, for good: writes to these pipes in place of the files, which are closed."""
        if not pipes.targets:
            return
        if self._next is not None:
            self._next.close()
            self._next = None
        self.replace(pipes.targets, pipes.fds)

    def piped(self, config: Log) -> list[str]:
        """The targets of a configuration that workers can be given pipes for: those that are files.

        stdout and stderr are if the shell has redirected them.
        """
        targets = {config.error, *([config.access] if config.access is not None else [])}
        files = {each for each in targets if os.path.isabs(each)}
        standard = [] if self._holds_standard else [*STANDARD.items()]
        return sorted(files | {name for name, fd in standard if _is_regular(fd)})

    def _files(self) -> list[LogSink]:
        """Those in use, and those that were prepared for a reload."""
        sinks = self._now.sinks() + (self._next.sinks() if self._next is not None else [])
        return [sink for sink in sinks if isinstance(sink, LogSink) and sink.is_file]

    def close(self) -> None:
        """Closes the files."""
        for sink in self._files():
            sink.close()
