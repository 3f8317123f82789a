"""The master's children: fork, tell, hear, reap."""

import contextlib
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from time import monotonic

from prefork import logs
from prefork.channel import Channel, Order, Report
from prefork.master.generation import Generation
from prefork.master.state import ChildState
from prefork.scoreboard import Scoreboard
from prefork.worker.accept import WAKE
from prefork.worker.process import Birth, live


@dataclass(eq=False)
class Child:
    """One worker's process, as the master holds it."""

    pid: int
    slot: int
    generation: Generation
    channel: Channel
    born: float
    """Monotonic seconds."""
    killed: bool = False
    """It was sent SIGKILL; what it said in its last moment does not change that."""


@dataclass(frozen=True)
class Death:
    """How a child ended: its wait status, in words."""

    child: Child
    how: str
    sigkill: bool


class Children:
    """All workers alive, by process id."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        scoreboard: Scoreboard,
        log: logs.Logs,
        hear: Callable[[Child, Report], None],
        foreign: Callable[[Generation], Iterable[int]],
    ) -> None:
        """`hear` takes each report; `foreign`: descriptors that no worker of a
        generation may keep."""
        self._selector = selector
        self._scoreboard = scoreboard
        self._log = log
        self._hear = hear
        self._foreign = foreign
        self._by_pid: dict[int, Child] = {}

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._by_pid.values()))

    def find(self, pid: int) -> Child | None:
        return self._by_pid.get(pid)

    def spawn(
        self, slot: int, generation: Generation, name: str, order: Order | None = None
    ) -> Child:
        """Forks a worker, which finds an `order` as soon as it is ready, before it accepts.

        Raises OSError where the kernel has no room for another process.
        """
        config = generation.config
        self._scoreboard.clear(slot, config.workers.threads)
        ours, theirs = Channel.pair()
        if order is not None:
            ours.send(order)
        birth = Birth(
            slot=slot,
            generation=generation.number,
            name=name,
            master=os.getpid(),
            config=config,
            listeners=tuple(generation.listeners),
            channel=theirs,
            scoreboard=self._scoreboard,
            logs=self._log,
            foreign=(
                *self._foreign(generation),
                ours.fileno(),
                *(child.channel.fileno() for child in self._by_pid.values()),
            ),
        )
        # Blocked until the child has handlers of its own: in between, ours would run in it.
        old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                live(birth)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, old)
        return self._watch(Child(pid, slot, generation, ours, monotonic()))

    def _watch(self, child: Child) -> Child:
        self._by_pid[child.pid] = child
        self._selector.register(child.channel, selectors.EVENT_READ, partial(self._readable, child))
        return child

    def hand_over(self) -> tuple[ChildState, ...]:
        """All workers, for the next master."""
        return tuple(
            ChildState(
                pid=child.pid,
                slot=child.slot,
                generation=child.generation.number,
                fd=child.channel.fileno(),
                born=child.born,
            )
            for child in self
        )

    def adopt(self, state: ChildState, generation: Generation) -> Child:
        """Takes over a worker that runs; what it said meanwhile waits in its channel."""
        os.set_inheritable(state.fd, False)
        channel = Channel(socket.socket(fileno=state.fd))
        return self._watch(Child(state.pid, state.slot, generation, channel, state.born))

    def tell(self, child: Child, order: Order, fds: tuple[int, ...] = ()) -> None:
        """Gives an order, and wakes the worker to read it.

        A worker just outside accept4 misses the signal: what matters is said again until heard.
        """
        child.channel.send(order, fds)
        self.signal(child, WAKE)

    def signal(self, child: Child, number: int) -> None:
        # Its process id can't be another's: it is ours until it is reaped.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)

    def _readable(self, child: Child, _: int) -> None:
        try:
            while (report := child.channel.report()) is not None:
                self._hear(child, report)
        except EOFError:
            # It is dying, or has closed its end; the reaping tells which.
            with contextlib.suppress(KeyError):
                self._selector.unregister(child.channel)

    def listen(self, child: Child) -> None:
        """Hears what a child has said before now."""
        self._readable(child, selectors.EVENT_READ)

    def reap(self) -> list[Death]:
        """Collects the dead, in one go: SIGCHLD comes once for several (waitpid(2))."""
        deaths = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            child = self._by_pid.get(pid)
            if child is None:
                continue  # a helper of ours, or an orphan that we were given as pid 1
            self.listen(child)
            del self._by_pid[pid]
            with contextlib.suppress(KeyError):
                self._selector.unregister(child.channel)
            child.channel.close()
            deaths.append(Death(child, _how(status), _is_sigkill(status)))
        return deaths


def _is_sigkill(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
