"""The master's side of the preflight of an upgrade.

After exec(2) there is no way back, so a child of the new code tries everything first: a fresh
interpreter, started as the server was, that runs prefork.master.upgrade.preflight_child.  The
master's loop goes on meanwhile.  The child reports through a socket, and its stderr is kept for the
case that it or the interpreter fails before it can report.
"""

import contextlib
import os
import selectors
import signal
import socket
from collections.abc import Iterable
from time import monotonic
from typing import NoReturn

from prefork import linux
from prefork.listeners import Listener
from prefork.master.snapshot import (
    VERDICT_LIMIT,
    MasterSnapshot,
    PreflightPassed,
    PreflightRefused,
    PreflightStarted,
    SnapshotError,
    decode_verdict,
)
from prefork.master.upgrade.exec import adopt_listener, command, environment, store

_MARGIN = 5.0
"""Seconds for the other steps of the child; it bounds the boot of the canary by itself."""

_STDERR_LIMIT = 16 * 1024
"""Bytes of the child's stderr that are reported."""

_MOST_FDS = 253
"""Descriptors in one message: SCM_MAX_FD, unix(7)."""


class Preflight:
    """The child of an upgrade.  Raises OSError or SnapshotError if it can't be started."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        state: MasterSnapshot,
        directory: str,
        boot_timeout: float,
    ) -> None:
        """`boot_timeout`: seconds until the child has read the snapshot; 0 for no limit."""
        self.failure: str | None = None
        self.opened: list[Listener] | None = None
        """Set once the preflight has passed: the listeners that the new configuration adds."""
        self.deadline = monotonic() + boot_timeout if boot_timeout else None
        self.version = ""
        self._selector = selector
        self._limit = f"did not start within {boot_timeout:g} s"
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            given = store(state)
            theirs.callback(os.close, given)
            self._sock, report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.enter_context(self._sock)
            theirs.enter_context(report)
            self._stderr = os.memfd_create("prefork-upgrade-stderr")
            ours.callback(os.close, self._stderr)
            passed = {*state.descriptors(), given, report.fileno()}
            variables = environment(given, report.fileno())
            self.pid = _fork(self._stderr, passed, directory, variables)
            # The child is reaped among the workers, and then its process id may be another's.  If
            # this fails, the child finds the other end of its socket closed, and ends.
            self._process = os.pidfd_open(self.pid)
            ours.pop_all()
        self._sock.setblocking(False)
        selector.register(self._sock, selectors.EVENT_READ, self._readable)

    def descriptors(self) -> list[int]:
        """All that are open here, for a forked child to close."""
        opened = self.opened or ()
        return [
            self._sock.fileno(),
            self._stderr,
            self._process,
            *(each.fileno() for each in opened),
        ]

    def expire(self, now: float) -> None:
        """Fails the preflight if its time is over."""
        if self.deadline is not None and now >= self.deadline and self.opened is None:
            self._fail(f"the new code {self._limit}")

    def close(self) -> None:
        """Ends the child, and releases the listeners that it opened."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._sock)
        for listener in self.opened or ():
            listener.release()
        self._sock.close()
        os.close(self._stderr)
        os.close(self._process)

    def _readable(self, _: int) -> None:
        fds: list[int] = []
        try:
            flags = socket.MSG_CMSG_CLOEXEC
            data, fds, _, _ = socket.recv_fds(self._sock, VERDICT_LIMIT, _MOST_FDS, flags)
            if not data:
                self._selector.unregister(self._sock)
                if self.opened is None:
                    self._fail("the new code ended before it could be tried")
                return
            verdict = decode_verdict(data)
        except (OSError, SnapshotError) as error:
            return self._fail(str(error))
        match verdict:
            case PreflightStarted(version, patience):
                self.version = version
                self.deadline = monotonic() + patience + _MARGIN if patience else None
                self._limit = f"did not end its canary within {patience:g} s"
            case PreflightRefused(reason):
                self.failure = self.failure or reason
            case PreflightPassed(opened):
                pairs = zip(opened, fds, strict=True)
                self.opened = [adopt_listener(state, fd) for state, fd in pairs]

    def _fail(self, reason: str) -> None:
        size = os.fstat(self._stderr).st_size
        words = os.pread(self._stderr, _STDERR_LIMIT, max(0, size - _STDERR_LIMIT)).decode(
            errors="replace"
        )
        self.failure = self.failure or f"{reason}:\n{words.rstrip()}".removesuffix(":\n")


def _fork(stderr: int, passed: Iterable[int], directory: str, variables: dict[str, str]) -> int:
    # Blocked for good: the terminal's Ctrl-C is for the master, and only it ends this child.
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        master = os.getpid()
        pid = os.fork()
        if pid == 0:
            _execute(master, stderr, passed, directory, variables)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _execute(
    master: int, stderr: int, passed: Iterable[int], directory: str, variables: dict[str, str]
) -> NoReturn:
    try:
        os.dup2(stderr, 2)
        linux.set_parent_death_signal(signal.SIGKILL)  # it stays over exec
        if os.getppid() == master:
            for fd in passed:
                os.set_inheritable(fd, True)
            if variables.get("LISTEN_PID") == str(master):
                variables["LISTEN_PID"] = str(os.getpid())
            os.chdir(directory)
            program, *arguments = command(directory)
            os.execve(program, [program, *arguments], variables)
    except BaseException as error:
        os.write(2, str(error).encode(errors="replace"))
    finally:
        os._exit(1)
