"""The machine's own log as a destination: a datagram a line to the socket of syslogd or journald.

The form is the one that syslog(3) writes and every daemon behind /dev/log reads: priority, local
time, tag and process id (RFC 3164, section 4.1, without the host's name).  One datagram is one
message, so lines of several processes cannot mix.
"""

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from time import monotonic

from prefork.logs.sink import PATIENCE, LogError

PATH = "/dev/log"

TARGET = "syslog"
"""The target in `[log]`; with ":/a/path" after it, that socket in the place of /dev/log."""

SEVERITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""Those of syslog(3) for our levels."""

_FACILITY = 3  # daemon
_LINE = 8 * 1024  # what rsyslogd takes by default; the end of a longer line is cut off
# Not strftime's, which are the locale's.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Syslog:
    """A destination like `Sink`.  Raises LogError where no daemon listens."""

    is_file = False

    def __init__(self, name: str, target: str, on_loss: Callable[[str, int, str], None]) -> None:
        self.name = name
        self.target = target
        self._path = target.removeprefix(TARGET).removeprefix(":") or PATH
        self._on_loss = on_loss
        self._lock = threading.RLock()  # a signal handler may write where it interrupted a write
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
        """Writes whole lines; never raises OSError, and waits PATIENCE seconds at most.

        What the daemon does not take is dropped and counted.
        """
        head = self._head(level)
        recovered = 0
        with self._lock:
            until = monotonic() + (0.0 if self._lost else PATIENCE)
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
        """Gives it up; what is written later is lost."""
        self._sock.close()

    def _head(self, level: str) -> bytes:
        now = time.localtime()
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2} {time.strftime('%H:%M:%S', now)}"
        return f"<{_FACILITY << 3 | SEVERITIES[level]}>{stamp} prefork[{os.getpid()}]: ".encode()

    def _send(self, message: bytes, until: float) -> None:
        again = True
        while True:
            try:
                self._sock.send(message)
                return
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._sock, select.POLLOUT)
                if not poll.poll(max(until - monotonic(), 0.0) * 1000):
                    raise TimeoutError(0, "the daemon takes no more lines") from None
            except (ConnectionError, OSError):
                # The daemon was restarted, and its new socket has the same path.
                if not again:
                    raise
                again = False
                self._sock.connect(self._path)
