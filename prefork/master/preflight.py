"""The preflight of an upgrade: after exec(2) there is no way back, so a child tries everything.

It is a fresh interpreter with the new code, started as the server was. It takes in the real state
and boots a canary on the real listeners: a worker that finds the order to leave before it would
accept its first connection, so that no client notices. What it opens for a new configuration it
passes to the master, so that no connection which comes meanwhile is lost.
"""

import contextlib
import os
import random
import selectors
import signal
import socket
import traceback
from collections.abc import Iterable
from math import inf
from time import monotonic
from typing import NoReturn

import setproctitle

from prefork import __version__, linux, logs
from prefork.channel import Failed, Ready, Report, Retire
from prefork.config import ConfigError, Source
from prefork.listeners import Listener, ListenError
from prefork.master.children import Children
from prefork.master.generation import Generation, prepare
from prefork.master.pool import LAST_WORDS, Pool
from prefork.master.state import (
    VERDICT_LIMIT,
    Passed,
    Refused,
    Started,
    State,
    StateError,
    decode_verdict,
    encode_verdict,
)
from prefork.master.takeover import (
    Adopted,
    Handover,
    adopt,
    adopt_listener,
    command,
    environment,
    listener_state,
    receive,
    store,
)
from prefork.scoreboard import SLOTS, Scoreboard, ScoreboardError

_MARGIN = 5.0
"""Seconds beyond the canary's boot timeout, after which a preflight that should have ended it by
itself is ended."""

_WORDS = 16 * 1024
"""Bytes that are kept of what it wrote to its stderr."""

_MOST_FDS = 253
"""Descriptors in one message: SCM_MAX_FD, unix(7)."""


# The master's side.


class Preflight:
    """The child, as the master holds it.  Raises OSError, StateError where it can't be started."""

    def __init__(
        self, selector: selectors.BaseSelector, state: State, directory: str, boot_timeout: float
    ) -> None:
        """`boot_timeout`: seconds until it has taken in the state; 0 for no limit."""
        self.failure: str | None = None
        self.opened: list[Listener] | None = None
        """Set once it has passed: listeners that the new configuration adds."""
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
            self._words = os.memfd_create("prefork-upgrade-stderr")
            ours.callback(os.close, self._words)
            passed = {*state.descriptors(), given, report.fileno()}
            variables = environment(given, report.fileno())
            self.pid = _fork(self._words, passed, directory, variables)
            # Its process id is reaped among the workers, and then another's. Where this fails, the
            # child finds nobody to report to, and ends.
            self._process = os.pidfd_open(self.pid)
            ours.pop_all()
        self._sock.setblocking(False)
        selector.register(self._sock, selectors.EVENT_READ, self._readable)

    def descriptors(self) -> list[int]:
        """All that are open here, for a forked child to close."""
        opened = self.opened or ()
        return [
            self._sock.fileno(),
            self._words,
            self._process,
            *(each.fileno() for each in opened),
        ]

    def expire(self, now: float) -> None:
        """Fails where its time is over."""
        if self.deadline is not None and now >= self.deadline and self.opened is None:
            self._fail(f"the new code {self._limit}")

    def close(self) -> None:
        """Ends it, and releases what it opened."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._sock)
        for listener in self.opened or ():
            listener.release()
        self._sock.close()
        os.close(self._words)
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
        except (OSError, StateError) as error:
            return self._fail(str(error))
        match verdict:
            case Started(version, boot_timeout):
                self.version = version
                self.deadline = monotonic() + boot_timeout + _MARGIN if boot_timeout else None
                self._limit = f"did not end its canary within {boot_timeout:g} s"
            case Refused(why):
                self.failure = self.failure or why
            case Passed(opened):
                pairs = zip(opened, fds, strict=True)
                self.opened = [adopt_listener(state, fd) for state, fd in pairs]

    def _fail(self, why: str) -> None:
        size = os.fstat(self._words).st_size
        words = os.pread(self._words, _WORDS, max(0, size - _WORDS)).decode(errors="replace")
        self.failure = self.failure or f"{why}:\n{words.rstrip()}".removesuffix(":\n")


def _fork(words: int, passed: Iterable[int], directory: str, variables: dict[str, str]) -> int:
    # Blocked for good: the terminal's Ctrl-C is for the master, and only it ends this child.
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        master = os.getpid()
        pid = os.fork()
        if pid == 0:
            _execute(master, words, passed, directory, variables)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _execute(
    master: int, words: int, passed: Iterable[int], directory: str, variables: dict[str, str]
) -> NoReturn:
    try:
        os.dup2(words, 2)
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


# The child's side: the new code.


def rehearse(source: Source, handover: Handover) -> int:
    """Tries all that the master would do, tells it how that went, and returns an exit status."""
    assert handover.report is not None
    os.set_inheritable(handover.report, False)
    with socket.socket(fileno=handover.report) as report:
        verdict: Passed | Refused
        opened: list[Listener] = []
        try:
            verdict = _try(source, adopt(receive(handover.fd)), report, opened)
        except (StateError, ScoreboardError, ConfigError, ListenError, logs.LogError) as problem:
            verdict = Refused(str(problem))
        except BaseException:
            verdict = Refused(traceback.format_exc().rstrip())
        if isinstance(verdict, Refused):
            for listener in opened:
                listener.release()
            opened.clear()
        fds = [listener.fileno() for listener in opened]
        socket.send_fds(report, [encode_verdict(verdict)], fds)
    return 0 if isinstance(verdict, Passed) else 1


def _try(
    source: Source, adopted: Adopted, report: socket.socket, opened: list[Listener]
) -> Passed | Refused:
    """Adds the listeners that are new to `opened`."""
    state = adopted.state
    name = adopted.serving.config.server.name
    setproctitle.setproctitle(f"prefork: upgrade [{name}]")
    log = logs.configure(adopted.serving.config.log)
    logs.set_role("preflight")
    settings = {number: each.settings for number, each in adopted.generations.items()}
    pool = Pool(random.Random())
    pool.adopt(state.pool, settings)
    pool.plan(monotonic())
    generation = prepare(source, state.number + 1, adopted.held)
    # An inherited one is there for the master as it is for us.
    opened += [
        each for each in generation.listeners if each not in adopted.held and not each.inherited
    ]
    log.prepare(generation.config.log)
    report.send(encode_verdict(Started(__version__, generation.config.workers.boot_timeout)))
    taken = {child.slot for child in state.children}
    slot = next(slot for slot in range(SLOTS) if slot not in taken)
    foreign = {*state.descriptors(), report.fileno()}
    foreign -= {listener.fileno() for listener in generation.listeners}
    why = _boot_canary(slot, generation, name, log, foreign)
    return Refused(why) if why else Passed(tuple(map(listener_state, opened)))


def _boot_canary(
    slot: int, generation: Generation, name: str, log: logs.Logs, foreign: set[int]
) -> str | None:
    """Why a worker of this generation does not get ready, or None."""
    heard: list[Report] = []
    timeout = generation.config.workers.boot_timeout
    with selectors.DefaultSelector() as selector:
        children = Children(
            selector,
            Scoreboard(),
            log,
            lambda _, report: heard.append(report),
            lambda _: {*foreign, selector.fileno()},
        )
        try:
            child = children.spawn(slot, generation, name, Retire())
        except OSError as error:
            return f"fork failed: {error.strerror}"
        gone = os.pidfd_open(child.pid)
        selector.register(gone, selectors.EVENT_READ, lambda _: None)
        deadline = monotonic() + timeout if timeout else inf
        waited = False
        while not (deaths := children.reap()):
            if heard and not waited:
                # It has nothing to serve; what it still does is the application's way out.
                waited, deadline = True, monotonic() + LAST_WORDS
            now = monotonic()
            if now >= deadline:
                if not heard:
                    heard.append(Failed(f"not ready within {timeout:g} s"))
                children.signal(child, signal.SIGKILL)
                waited, deadline = True, inf
            for key, mask in selector.select(None if deadline == inf else deadline - now):
                key.data(mask)
        os.close(gone)
    for report in heard:
        if isinstance(report, Failed):
            return report.why
    if any(isinstance(report, Ready) for report in heard):
        return None
    return f"a worker died before it was ready: {deaths[0].how}"
