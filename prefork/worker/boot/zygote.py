"""A zygote: the process that imports the application once and forks a generation's workers.

It has one thread and one place to wait, a blocking recvmsg(2) on its channel: each order is a fork,
until the channel's end.  What it has imported is frozen (gc.freeze) before the first fork, so that
no collection writes to the pages that the workers share.

A worker must be the master's child, or the master could neither reap it nor trust its process id.
So each is forked twice: the process between ends at once, and the kernel gives the worker to the
master, its nearest subreaper.  Only when that has happened does the worker ask for a signal at its
parent's death: asked for earlier, it would get the signal of the process between.
"""

import contextlib
import gc
import os
import signal
import threading
from typing import NoReturn

import setproctitle
from msgspec import Struct
from msgspec.structs import asdict

from prefork import linux, logs
from prefork.apps.application_loader import LoadError, load_target
from prefork.channel import BornReport, Channel, FailedReport, ForkOrder, ReadyReport, ReopenOrder
from prefork.worker.boot import process
from prefork.worker.boot.hooks import WorkerInfo
from prefork.worker.boot.process import FAILED_TO_BOOT, LoadedApplication, WorkerArgs, WorkerContext
from prefork.worker.schedule.accept import WAKE


class ZygoteArgs(Struct, frozen=True):
    """What a zygote is given."""

    heritage: WorkerContext
    channel: Channel
    foreign: tuple[int, ...]
    """Descriptors that are the master's alone."""


def live(conception: ZygoteArgs) -> NoReturn:
    """The whole life of a zygote, in the child of a fork with all signals blocked."""
    status = 1
    try:
        _settle(conception)
        status = _work(conception)
    except BaseException as problem:
        # Nothing may climb back into the master's stack.
        logs.event("error", "zygote failed", traceback=logs.traceback_of(problem))
    finally:
        # No callbacks at exit: those that the application registered are its workers'.
        os._exit(status)


def _settle(conception: ZygoteArgs) -> None:
    heritage = conception.heritage
    process.leave_master(conception.foreign)
    logs.set_role("zygote", generation=heritage.generation)
    setproctitle.setproctitle(f"prefork: zygote [{heritage.name}]")
    linux.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != heritage.master:
        os._exit(0)  # it died before we asked to be told
    heritage.scoreboard.confine(None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _work(conception: ZygoteArgs) -> int:
    heritage, channel = conception.heritage, conception.channel
    forks = _Forks(heritage, channel)
    process.protect_children(
        [*(listener.sock for listener in heritage.listeners), channel], lambda: not forks.under_way
    )
    try:
        hooks = process.prepare(heritage)
        forks.loaded = LoadedApplication(hooks, load_target(heritage.config))
    except (LoadError, logs.LogError) as problem:
        channel.send(FailedReport(str(problem)))
        return FAILED_TO_BOOT
    except BaseException:  # an application may call sys.exit when it is imported
        channel.send(FailedReport(process.application_traceback()))
        return FAILED_TO_BOOT
    _warn_of_threads()
    gc.collect()
    gc.freeze()
    channel.block()
    channel.send(ReadyReport())
    with contextlib.suppress(EOFError):
        forks.serve()
    return 0


def _warn_of_threads() -> None:
    names = [
        thread.name for thread in threading.enumerate() if thread is not threading.current_thread()
    ]
    if names:
        logs.event(
            "warning",
            "threads are not in the workers",
            threads=", ".join(names),
            reason="the application started them when it was imported, and a fork takes only the"
            " thread that forks; start them in the hook after_fork",
        )


class _Forks:
    """Carries out the master's orders."""

    def __init__(self, heritage: WorkerContext, channel: Channel) -> None:
        self.loaded: LoadedApplication
        self.under_way = False
        """A fork of our own, and for ever in the processes that come of it."""
        self._heritage = heritage
        self._channel = channel

    def serve(self) -> None:
        """Raises EOFError when the master wants no more, or is no more."""
        while packet := self._channel.order():
            order, fds = packet
            if isinstance(order, ReopenOrder):
                self._heritage.logs.replace(order.paths, fds)
            elif (
                isinstance(order, ForkOrder) and fds
            ):  # recvmsg(2) drops what would be over the limit
                theirs = Channel.adopt(fds[0])
                try:
                    self._fork(order.slot, theirs)
                finally:
                    theirs.close()

    def _fork(self, slot: int, theirs: Channel) -> None:
        heritage = self._heritage
        worker = WorkerInfo(slot, heritage.generation, os.getpid(), heritage.name)
        try:
            self.loaded.hooks.call("before_fork", worker)
        except BaseException:
            theirs.send(FailedReport(process.application_traceback()))
            return
        birth = WorkerArgs(
            **asdict(heritage), slot=slot, channel=theirs, foreign=(self._channel.fileno(),)
        )
        self.under_way = True
        try:
            between = process.fork(lambda: self._between(birth))
        except OSError as problem:
            theirs.send(FailedReport(f"fork failed: {problem.strerror}"))
            return
        finally:
            self.under_way = False
        os.waitpid(between, 0)

    def _between(self, birth: WorkerArgs) -> NoReturn:
        """The process between the zygote and a worker."""
        here = os.getpid()
        try:
            process.fork(lambda: _be_born(birth, self.loaded, here))
        except OSError as problem:
            birth.channel.send(FailedReport(f"fork failed: {problem.strerror}"))
        finally:
            os._exit(0)


def _be_born(birth: WorkerArgs, loaded: LoadedApplication, between: int) -> NoReturn:
    # The kernel sends it once the new parent is set (exit_notify), so there is nothing to poll.
    # All signals are blocked; one that somebody else sends only makes us look again.
    linux.set_parent_death_signal(WAKE)
    while os.getppid() == between:
        signal.sigwait({WAKE})
    if not birth.channel.send(BornReport(os.getpid())):
        os._exit(0)  # nobody waits for us any more
    process.live(birth, loaded)
