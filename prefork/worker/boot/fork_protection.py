"""What a process drops after a fork: ours after the master's, the application's after ours."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn, Protocol

from prefork.unpatched import get_ident, os
from prefork.worker.boot import exit_callbacks
from prefork.worker.schedule.accept import NEEDED_SIGNALS, WAKE

# A terminal sends INT, HUP and WINCH to its whole foreground group: the master decides on them.
# Not SIG_IGN, which the application's own programs would inherit over exec(2).
_IGNORED = (
    *(signal.SIGINT, signal.SIGHUP, signal.SIGWINCH, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGTTIN, signal.SIGTTOU, WAKE),
)

_ENDING = (signal.SIGTERM, signal.SIGQUIT)

_BLOCKED = (signal.SIGTTIN, signal.SIGTTOU)
"""With these blocked, a read from the terminal in the background fails at once (EIO), and a write
succeeds (termios(3)).  With a handler the interpreter would try again, for ever."""


class _Closable(Protocol):
    def close(self) -> None: ...


def fork(run: Callable[[], NoReturn]) -> int:
    """Forks a process that begins with all signals blocked; returns its id. Raises OSError.

    What `print` has left in a buffer is written before, or each child would write it once more.
    They are blocked until the child has handlers of its own: the parent's would run in it.
    """
    flush_output()
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            run()
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def unblock_signals() -> None:
    """Lets signals arrive, now that this process has handlers of its own."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _BLOCKED)


def restore_signals() -> None:
    """Sets right what the application has done to signals when it was imported.

    Those that a worker needs are not blocked, and those that it ignores do not end it; a handler of
    the application stays.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NEEDED_SIGNALS)
    for number in _IGNORED:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, ignore)


def flush_output() -> None:
    """Writes what is in the buffers of stdout and stderr; either may be closed or missing."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def drop_master_state(foreign: Iterable[int]) -> None:
    """Drops what is the master's: signal handlers, descriptors, callbacks at exit."""
    signal.set_wakeup_fd(-1)  # an inherited one writes our signals into the master's pipe
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for ignored in _IGNORED:
        signal.signal(ignored, ignore)
    close_descriptors(foreign)
    exit_callbacks.take_over()


def renew_event_loop() -> None:
    """Gives a worker that a zygote has forked an event loop of its own, as gevent asks for."""
    if (gevent := sys.modules.get("gevent")) is not None:
        gevent.reinit()


def close_descriptors(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def ignore(*_: object) -> None:
    """A signal handler that does nothing."""


def protect_from_forks(
    ours: Iterable[_Closable], applies: Callable[[], bool] = lambda: True
) -> None:
    """Lets processes that the application forks have default signals, and none of our sockets.

    With a listener open in a forgotten child, a stopped server would go on accepting connections
    that no process serves; with the channel open in it, the master would not see the worker's end.
    `applies` is called in the child.
    """
    masks: dict[int, set[int]] = {}

    # A signal that came before its handler is gone from the child would be lost: the interpreter
    # drops what a handler was to be called for that is no more.
    def before() -> None:
        masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop(get_ident()))

    def in_child() -> None:
        if applies():
            signal.set_wakeup_fd(-1)
            for number in (*_ENDING, *_IGNORED):
                signal.signal(number, signal.SIG_DFL)
            for each in ours:
                with contextlib.suppress(OSError):
                    each.close()
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=in_child)
