"""The terminal from which a server was started, and the signals that come of it.

A terminal sends SIGTTIN or SIGTTOU to a background process group if one of its processes reads
from it, or writes to it after `stty tostop`; and at its end SIGHUP to its session (termios(3),
setpgid(2)).  No operator has sent these, so they are no orders.  With its terminal a server ends,
as other programs do, but for one that was started with SIGHUP ignored (nohup(1)).

bash sends SIGHUP to its jobs itself when its terminal has ended.  It is the leader of the session
then, and the terminal is gone: an operator's `kill -HUP` comes from another process, or while the
terminal is there.
"""

import errno
import os
import signal

from prefork.linux import SI_KERNEL, SignalInfo

TERMINAL_SIGNALS = frozenset({signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU})
"""Those that an operator and a terminal may have sent."""


def has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4)), which sends WINCH on resize.

    Also true if that can't be found out for want of descriptors.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return True


def ends_with_terminal() -> bool:
    """Whether this process was started to end with its terminal.

    To be called before a handler of SIGHUP is set.
    """
    return signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and has_terminal()


def is_of_terminal(info: SignalInfo) -> bool:
    """Whether a terminal sent one of TERMINAL_SIGNALS, or a shell since its terminal has ended."""
    if info.code == SI_KERNEL:
        return True
    return info.number == signal.SIGHUP and info.pid == os.getsid(0) and not has_terminal()
