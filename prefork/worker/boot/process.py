"""The life of a worker's process: what it inherits, booting, serving, its end.

The master has forked with every signal blocked.  Here the child drops what is the master's, loads
the application, and runs its loop.  It never returns into the master's code.  A worker that a
zygote has forked finds the application loaded.
"""

import gc
import os
import signal
from typing import NoReturn

import setproctitle
from msgspec import Struct
from msgspec.structs import replace

from prefork import linux, logs
from prefork.apps.application_loader import LoadError
from prefork.capacity import records_of
from prefork.worker.boot import exit_callbacks
from prefork.worker.boot.application_setup import restrict, set_up_application
from prefork.worker.boot.boot_failure import FAILED_TO_BOOT, report_failure
from prefork.worker.boot.confinement import confine_signals
from prefork.worker.boot.fork_protection import (
    close_descriptors,
    drop_master_state,
    protect_from_forks,
    renew_event_loop,
    restore_signals,
    unblock_signals,
)
from prefork.worker.boot.hooks import Hooks, WorkerInfo
from prefork.worker.boot.own_descriptors import OwnDescriptors
from prefork.worker.boot.resource_limits import bind_to_cpus
from prefork.worker.boot.service_factory import LoadedService, ServiceParts, load_service
from prefork.worker.boot.stack_writer import register_stack_signal, start_stack_thread
from prefork.worker.boot.worker_args import WorkerArgs
from prefork.worker.boot.worker_end import QuickEnd, end, end_without_master, wait_after_interrupt
from prefork.worker.boot.worker_loops import RunningLoop, shown_calls, worker_loop
from prefork.worker.schedule.handover import Handover
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.schedule.wakeup import Wakeup
from prefork.worker.schedule.worker_listener import worker_listeners
from prefork.worker.worker_failure import report_worker_failure


class LoadedApplication(Struct, frozen=True):
    """What a zygote has imported for its workers."""

    hooks: Hooks
    service: LoadedService


def run_worker(args: WorkerArgs, loaded: LoadedApplication | None = None) -> NoReturn:
    """The whole life of a worker, in the child of a fork with all signals blocked.

    `loaded`: given if a zygote has forked it, which has dropped the master's state already.
    """
    status = 1
    try:
        if loaded is None:
            drop_master_state(args.foreign)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            close_descriptors(args.foreign)
            args.logs.pass_through(args.log_pipes)
            renew_event_loop()
            exit_callbacks.take_over()
        _become_worker(args)
        status = _serve(args, loaded)
    except KeyboardInterrupt:
        wait_after_interrupt()
    except BaseException as problem:
        # No exception may reach the master's stack.
        report_worker_failure(problem)
    finally:
        end(status)


def _become_worker(args: WorkerArgs) -> None:
    """Takes a worker's name, signals and slot; makes sure that it does not outlive the master."""
    logs.set_role("worker", slot=args.slot, generation=args.generation)
    setproctitle.setproctitle(f"prefork: worker {args.slot} [{args.name}]")
    _end_with_master(args.master)
    args.scoreboard.confine(args.slot)
    if args.stacks is not None:
        register_stack_signal(args.stacks)
    unblock_signals()


def _end_with_master(master: int) -> None:
    """Asks the kernel for SIGTERM when the master dies; exits if it is dead already."""
    linux.set_parent_death_signal(signal.SIGTERM)
    if os.getppid() != master:
        os._exit(0)


def _serve(args: WorkerArgs, loaded: LoadedApplication | None) -> int:
    """Boots, serves until the master orders the worker to stop, and returns the exit status."""
    config, scoreboard, slot = args.config, args.scoreboard, args.slot
    protect_from_forks([*(listener.sock for listener in args.listeners), args.channel])
    worker = WorkerInfo(slot, args.generation, os.getpid(), args.name)
    descriptors = None
    try:
        bind_to_cpus(config.process.cpu_affinity, slot)
        # Before the first thread: most of these rights are those of a thread.
        user = restrict(args) if loaded is None else {}
        confine_signals(config)
        if args.stacks is not None:
            start_stack_thread(args.stacks, lambda: end_without_master(args.master))
        stacks = (args.stacks.memfd, args.stacks.request) if args.stacks is not None else ()
        # The log files and pipes are those of this generation by now.
        descriptors = OwnDescriptors((*args.descriptors(), args.channel.fileno(), *stacks))
        hooks = set_up_application(config, user) if loaded is None else loaded.hooks
        hooks.call("after_fork", worker)
        found = load_service(config) if loaded is None else loaded.service
        descriptors.require()
        config = found.config
        args = replace(args, config=config)
        wakeup = Wakeup()
        count = records_of(config.server.protocol, config.workers.threads)
        handover = Handover(scoreboard, slot, shown_calls(config))
        records = [scoreboard.record(slot, thread) for thread in range(count)]
        threads = None
        if config.workers.threads > 1:
            # A protocol of a handler's own may keep its connections.
            threads = LeaderFollowers(records, wakeup.set, slow=config.server.protocol == "tcp")
        listeners = worker_listeners(
            (listener.sock for listener in args.listeners), scoreboard.accept_flags(slot), handover
        )
        service = found.create(ServiceParts(args, threads, handover, records))
        loop = worker_loop(service, listeners, args, handover, threads, records, wakeup)
        _create_threads(loop)
        hooks.call("ready", worker)
        restore_signals()
        # An application that has dropped rights by itself has cleared the signal (prctl(2)).
        _end_with_master(args.master)
    except BaseException as problem:  # an application may call sys.exit when it is imported
        report_failure(args.channel, descriptors, problem)
        return FAILED_TO_BOOT
    os.register_at_fork(after_in_child=service.after_fork_in_child)
    os.register_at_fork(after_in_child=handover.after_fork_in_child)
    quick_end = QuickEnd(service, loop)
    signal.signal(signal.SIGQUIT, quick_end.on_signal)
    # What the import left behind is not looked at again by each collection.
    gc.freeze()
    loop.run()
    quick_end.complete()
    service.flush()  # a last request may have come after the last wait
    hooks.call_last("before_exit", worker)
    return 0


def _create_threads(loop: RunningLoop) -> None:
    try:
        loop.create_threads()
    except RuntimeError as problem:
        raise LoadError(
            f"the worker cannot have its threads: {problem}; raise the limit of processes"
            " (ulimit -u, pids.max, systemd's TasksMax), or let a container's seccomp profile allow"
            " clone3"
        ) from None
