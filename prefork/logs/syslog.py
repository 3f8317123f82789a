"""The system log as a destination: one datagram a line to the socket of syslogd or journald.

The format is that of syslog(3), which every daemon behind /dev/log reads: priority, local time, tag
and process id (RFC 3164, section 4.1, without the host name).  A datagram is one message, so lines
of several processes cannot mix.
"""

import os
import time
from collections.abc import Callable
from time import monotonic

from prefork.logs.sink import WRITE_TIMEOUT, LogError
from prefork.unpatched import RLock, select, socket

PATH = "/dev/log"

TARGET = "syslog"
"""The target in `[log]`; followed by ":/a/path" it is that socket in place of /dev/log."""

SEVERITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""The severities of syslog(3) for our levels."""

_FACILITY = 3  # daemon
_LINE = 8 * 1024  # the limit of rsyslogd by default; a longer line is truncated
# Not from strftime(3), whose names depend on the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Syslog:
    """A destination like `LogSink`.  Raises LogError if no daemon listens."""

    is_file = False

    def __init__(self, name: str, target: str, on_loss: Callable[[str, int, str], None]) -> None:
        self.name = name
        self.target = target
        self._path = target.removeprefix(TARGET).removeprefix(":") or PATH
        self._on_loss = on_loss
        self._lock = RLock()  # a signal handler may interrupt a write, and write
        self._lost = 0
        self._reason = ""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        try:
            self._sock.connect(self._path)
        except OSError as problem:
            self._sock.close()
            reason = problem.strerror
            raise LogError(f"log.{name}: no syslog daemon at {self._path!r}: {reason}") from None

    def write(self, data: bytes, level: str = "info") -> None:
        """Writes whole lines; never raises OSError, and waits WRITE_TIMEOUT seconds at most.

        Lines that the daemon does not take are dropped and counted.
        """
        head = self._head(level)
        recovered = 0
        with self._lock:
            until = monotonic() + (0.0 if self._lost else WRITE_TIMEOUT)
            for line in data.splitlines():
                try:
                    self._send(head + line[: _LINE - len(head)], until)
                except OSError as problem:
                    self._lost += 1
                    self._reason = problem.strerror or str(problem)
                else:
                    recovered, self._lost = recovered + self._lost, 0
        if recovered:
            self._on_loss(self.target, recovered, self._reason)

    def close(self) -> None:
        """Closes the socket; later lines are lost."""
        self._sock.close()

    def _head(self, level: str) -> bytes:
        now = time.localtime()
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2} {time.strftime('%H:%M:%S', now)}"
        return f"<{_FACILITY << 3 | SEVERITIES[level]}>{stamp} prefork[{os.getpid()}]: ".encode()

    def _send(self, message: bytes, until: float) -> None:
        reconnect = True
        while True:
            try:
                self._sock.send(message, socket.MSG_NOSIGNAL)
                return
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._sock, select.POLLOUT)
                if not poll.poll(max(until - monotonic(), 0.0) * 1000):
                    raise TimeoutError(0, "the daemon does not read") from None
            except (ConnectionError, OSError):
                # A daemon that was restarted has a new socket of the same path.
                if not reconnect:
                    raise
                reconnect = False
                self._sock.connect(self._path)
