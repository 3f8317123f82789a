"""A zygote: the process that imports the application once and forks a generation's workers.

It has one thread and waits in one place, a blocking recvmsg(2) on its channel: each order is a
fork, until the channel's end.  What it has imported is frozen (gc.freeze) before the first fork, so
that no collection writes to the pages that the workers share.

A worker must be the master's child, or the master could neither reap it nor trust its process id.
So each is forked twice: the process between ends at once, and the kernel gives the worker to the
master, its nearest subreaper.  Only when that has happened does the worker ask for a signal at its
parent's death: earlier, it would get the signal of the process between.
"""

import contextlib
import gc
import signal
import threading
from typing import NoReturn

import setproctitle
from msgspec import Struct
from msgspec.structs import asdict

from prefork import linux, logs
from prefork.channel import (
    BornReport,
    Channel,
    FailedReport,
    ForkOrder,
    ReadyReport,
    ReopenedReport,
    ReopenOrder,
)
from prefork.logs import LogPipeEnds
from prefork.stack_dump import WorkerStacks
from prefork.unpatched import os
from prefork.worker.boot.application_setup import restrict, set_up_application
from prefork.worker.boot.boot_failure import FAILED_TO_BOOT, report_failure
from prefork.worker.boot.fork_protection import (
    drop_master_state,
    fork,
    ignore,
    protect_from_forks,
    unblock_signals,
)
from prefork.worker.boot.hooks import WorkerInfo
from prefork.worker.boot.lazy_imports import resolve_lazy_imports
from prefork.worker.boot.leftovers import open_descriptors, warn_of_connections
from prefork.worker.boot.own_descriptors import OwnDescriptors
from prefork.worker.boot.process import LoadedApplication, run_worker
from prefork.worker.boot.service_factory import load_service
from prefork.worker.boot.worker_args import WorkerArgs, WorkerContext
from prefork.worker.schedule.accept import WAKE


class ZygoteArgs(Struct, frozen=True):
    """What a zygote gets."""

    context: WorkerContext
    channel: Channel
    foreign: tuple[int, ...]
    """Descriptors that are the master's alone."""


def run_zygote(args: ZygoteArgs) -> NoReturn:
    """The whole life of a zygote, in the child of a fork with all signals blocked."""
    status = 1
    try:
        _become_zygote(args)
        status = _serve(args)
    except BaseException as problem:
        # No exception may reach the master's stack.
        logs.event("error", "zygote failed", traceback=logs.traceback_of(problem))
    finally:
        # No callbacks at exit: those that the application registered are its workers'.
        os._exit(status)


def _become_zygote(args: ZygoteArgs) -> None:
    context = args.context
    drop_master_state(args.foreign)
    logs.set_role("zygote", generation=context.generation)
    setproctitle.setproctitle(f"prefork: zygote [{context.name}]")
    signal.signal(signal.SIGTERM, ignore)  # the service manager sends it to all processes
    linux.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != context.master:
        os._exit(0)  # it died before the kernel was asked for the signal
    context.scoreboard.confine(None)
    unblock_signals()


def _serve(args: ZygoteArgs) -> int:
    """Loads the application, forks workers until the channel's end; returns the exit status."""
    context, channel = args.context, args.channel
    forks = _ForkServer(context, channel)
    protect_from_forks(
        [*(listener.sock for listener in context.listeners), channel],
        lambda: not forks.under_way,
    )
    descriptors = open_descriptors()
    own = None
    try:
        user = restrict(context)
        # The log files and pipes are those of this generation by now.
        own = OwnDescriptors((*context.descriptors(), channel.fileno()))
        hooks = set_up_application(context.config, user)
        loaded = LoadedApplication(hooks, load_service(context.config))
        resolve_lazy_imports()
        own.require()
    except BaseException as problem:  # an application may call sys.exit when it is imported
        report_failure(channel, own, problem)
        return FAILED_TO_BOOT
    _warn_of_threads()
    gc.collect()  # a connection that nobody holds any more is closed
    warn_of_connections(descriptors)
    gc.freeze()
    channel.block()
    channel.send(ReadyReport())
    with contextlib.suppress(EOFError):
        forks.serve(loaded)
    return 0


def _warn_of_threads() -> None:
    names = [
        thread.name for thread in threading.enumerate() if thread is not threading.main_thread()
    ]
    if names:
        logs.event(
            "warning",
            "threads are not in the workers",
            threads=", ".join(names),
            reason="the application started them when it was imported, and a fork takes only the"
            " thread that forks; start them in the hook after_fork",
        )


class _ForkServer:
    """Carries out the master's orders."""

    def __init__(self, context: WorkerContext, channel: Channel) -> None:
        self.under_way = False
        """A fork of ours is under way; stays true in the processes that come of it."""
        self._context = context
        self._channel = channel

    def serve(self, loaded: LoadedApplication) -> None:
        """Raises EOFError when the master has closed the channel, or is dead."""
        while packet := self._channel.receive_order():
            order, fds = packet
            if isinstance(order, ReopenOrder):
                self._context.logs.replace(order.paths, fds)
                self._channel.send(ReopenedReport(order.number))
            elif isinstance(order, ForkOrder) and fds:
                # Without a descriptor, recvmsg(2) has dropped it: it would be over the limit.
                theirs = Channel.from_fd(fds[0])
                others = len(fds) - len(order.logs)
                stacks = WorkerStacks(*fds[1:others]) if others == 3 else None
                pipes = LogPipeEnds(order.logs, tuple(fds[others:]))
                try:
                    self._fork(order.slot, theirs, stacks, pipes, loaded)
                finally:
                    theirs.close()
                    for fd in fds[1:]:
                        os.close(fd)

    def _fork(
        self,
        slot: int,
        theirs: Channel,
        stacks: WorkerStacks | None,
        pipes: LogPipeEnds,
        loaded: LoadedApplication,
    ) -> None:
        context = self._context
        worker = WorkerInfo(slot, context.generation, os.getpid(), context.name)
        try:
            loaded.hooks.call("before_fork", worker)
        except BaseException as problem:
            theirs.send(FailedReport(logs.application_traceback(problem)))
            return
        args = WorkerArgs(
            **{**asdict(context), "log_pipes": pipes},
            slot=slot,
            channel=theirs,
            stacks=stacks,
            foreign=(self._channel.fileno(),),
        )
        self.under_way = True
        try:
            between = fork(lambda: _fork_worker(args, loaded))
        except OSError as problem:
            theirs.send(FailedReport(f"fork failed: {problem.strerror}"))
            return
        finally:
            self.under_way = False
        # If the application ignores SIGCHLD, this waits all the same, and finds no child after it.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(between, 0)


def _fork_worker(args: WorkerArgs, loaded: LoadedApplication) -> NoReturn:
    """The process between the zygote and a worker."""
    between = os.getpid()
    try:
        fork(lambda: _become_child_of_master(args, loaded, between))
    except OSError as problem:
        args.channel.send(FailedReport(f"fork failed: {problem.strerror}"))
    finally:
        os._exit(0)


def _become_child_of_master(args: WorkerArgs, loaded: LoadedApplication, between: int) -> NoReturn:
    # The kernel sends the signal once the new parent is set (exit_notify), so there is no need to
    # poll. All signals are blocked; one from another process only leads to one more look.
    linux.set_parent_death_signal(WAKE)
    while os.getppid() == between:
        signal.sigwait({WAKE})
    if not args.channel.send(BornReport(os.getpid())):
        os._exit(0)  # the master waits for it no more
    run_worker(args, loaded)
