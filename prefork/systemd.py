"""What systemd passes to a service, read from the environment.

The protocol is a few variables, so there is no library to need: sd_listen_fds(3).
"""

from collections.abc import Mapping

FIRST_FD = 3
"""SD_LISTEN_FDS_START: the descriptor of the first socket passed."""

MOST_FDS = 1024 * 1024
"""Descriptors that a process can have: the default of fs.nr_open, proc_sys_fs(5)."""


def listen_fds(environ: Mapping[str, str], pid: int) -> list[tuple[int, str]]:
    """The sockets passed to process `pid`: descriptors and their names, sd_listen_fds(3).

    Empty where nothing was passed, or where it was meant for another process (LISTEN_PID): a
    child inherits the variables but not the sockets.  A name is the `FileDescriptorName=` of the
    .socket unit, "unknown" where LISTEN_FDNAMES is not set; several sockets may have one name.
    Nothing says that the descriptors are open, or sockets: look before use.

    Raises ValueError, with one line that names the variable, where a value is malformed.
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
        raise ValueError(f"LISTEN_FDNAMES has {len(names)} names, but LISTEN_FDS is {count}")
    return list(enumerate(names, FIRST_FD))


def _number(environ: Mapping[str, str], key: str) -> int:
    text = environ[key]
    # int() would take "+3", " 3" and "3_0" too; more digits than ten are no descriptor and no pid.
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise ValueError(f"{key} is {text!r}: it must be a decimal number")
    return int(text)
