"""The protocols between systemd and a service.

They consist of a few variables and datagrams, so no library is needed: sd_listen_fds(3),
sd_notify(3), sd_watchdog_enabled(3), sd-daemon(3).
"""

import os
import socket
from collections.abc import Mapping, MutableMapping

from prefork.quantity import quantity

FIRST_FD = 3
"""SD_LISTEN_FDS_START: the descriptor of the first socket passed."""

MOST_FDS = 1024 * 1024
"""The largest number of descriptors of a process: the default of fs.nr_open, proc_sys_fs(5)."""


def listen_fds(environ: Mapping[str, str], pid: int) -> list[tuple[int, str]]:
    """The sockets passed to process `pid`: descriptors and their names, sd_listen_fds(3).

    Empty if nothing was passed, or if it was passed to another process (LISTEN_PID): a child
    inherits the variables but not the sockets.  A name is the `FileDescriptorName=` of the .socket
    unit, or "unknown" if LISTEN_FDNAMES is not set; several sockets may have the same name.  The
    descriptors are not checked: they may be closed, or no sockets.

    Raises ValueError, with the name of the variable in one line, if a value is malformed.
    """
    if "LISTEN_PID" not in environ or _number(environ, "LISTEN_PID") != pid:
        return []
    if "LISTEN_FDS" not in environ:
        return []
    count = _number(environ, "LISTEN_FDS")
    if not 1 <= count <= MOST_FDS:
        raise ValueError(f"LISTEN_FDS is {count}: it must be from 1 to {MOST_FDS}")
    names = ["unknown"] * count
    if "LISTEN_FDNAMES" in environ:
        names = environ["LISTEN_FDNAMES"].split(":")
    if len(names) != count:
        raise ValueError(
            f"LISTEN_FDNAMES has {quantity(len(names), 'name')}, but LISTEN_FDS is {count}"
        )
    return list(enumerate(names, FIRST_FD))


class Notifier:
    """Sends states to the service manager, sd_notify(3).  Raises ValueError for a bad address."""

    def __init__(self, address: str) -> None:
        """`address`: an absolute path, or "@" and an abstract name."""
        if address[:1] not in ("/", "@") or len(address) < 2:
            raise ValueError(f"NOTIFY_SOCKET is {address!r}: it must be a path or @name")
        self._address = f"\0{address[1:]}" if address[0] == "@" else address
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._sock.setblocking(False)

    @staticmethod
    def from_environment(environ: Mapping[str, str]) -> "Notifier | None":
        """The one for the address in NOTIFY_SOCKET, or None if that is not set."""
        address = environ.get("NOTIFY_SOCKET")
        return Notifier(address) if address else None

    def send(self, **state: str | int) -> bool:
        """Sends `READY=1`, `STATUS=text` and so on in one datagram; returns whether that succeeded.

        It never waits for a manager that does not read: the caller may try again.
        """
        text = "\n".join(f"{name}={value}" for name, value in state.items())
        try:
            self._sock.sendto(text.encode(), self._address)
        except OSError:
            return False
        return True

    def fileno(self) -> int:
        return self._sock.fileno()


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds within which process `pid` has to send WATCHDOG=1, sd_watchdog_enabled(3).

    None if there is no watchdog, or if it is for another process (WATCHDOG_PID).
    Raises ValueError if a value is malformed.
    """
    if "WATCHDOG_USEC" not in environ:
        return None
    if "WATCHDOG_PID" in environ and _number(environ, "WATCHDOG_PID") != pid:
        return None
    microseconds = _number(environ, "WATCHDOG_USEC", digits=20)
    return microseconds / 1e6 or None


def remove_variables(environ: MutableMapping[str, str]) -> None:
    """Removes the variables that are only for the server, before an application sees them."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        environ.pop(name, None)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)


def is_journal(environ: Mapping[str, str], fd: int) -> bool:
    """Whether a descriptor is connected to the journal: JOURNAL_STREAM, systemd.exec(5)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def with_priority(severity: int, text: str) -> str:
    """The lines with a prefix for their level, which the journal removes again, sd-daemon(3)."""
    return "".join(f"<{severity}>{line}" for line in text.splitlines(keepends=True))


def _number(environ: Mapping[str, str], key: str, digits: int = 10) -> int:
    text = environ[key]
    # int() also accepts "+3", " 3" and "3_0". No descriptor or pid has more than ten digits.
    if not (text.isascii() and text.isdecimal() and len(text) <= digits):
        raise ValueError(f"{key} is {text!r}: it must be a decimal number")
    return int(text)
