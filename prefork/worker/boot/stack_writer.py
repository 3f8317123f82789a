"""The worker's side of a stack dump: two ways to write it, one with the GIL and one without."""

import contextlib
import faulthandler
import signal

from prefork.stack_dump import DUMP, SIGNAL, WorkerStacks
from prefork.unpatched import os, select
from prefork.worker.schedule.kernel_thread import KernelThread


def register_stack_signal(stacks: WorkerStacks) -> None:
    """From now on the stacks are written into the memfd when the master sends the signal for it.

    It has an effect also while a thread holds the interpreter.
    """
    faulthandler.register(SIGNAL, file=stacks.memfd, all_threads=True)


def start_stack_thread(stacks: WorkerStacks) -> None:
    """From now on the stacks are written into the memfd when the master writes its request.

    To be called after rights were dropped, since a thread keeps those with which it was started.
    If no thread can be started, only the signal has an effect.
    """
    thread = KernelThread(lambda: _write_on_request(stacks.request, stacks.memfd))
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the thread's for ever
    try:
        with contextlib.suppress(RuntimeError):
            thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _write_on_request(request: int, memfd: int) -> None:
    poll = select.poll()
    poll.register(request, select.POLLIN)
    while poll.poll() and (asked := os.read(request, 4096)):  # nothing: the master is dead
        if DUMP not in asked:
            continue  # the read was the answer
        if not os.fstat(memfd).st_size:  # otherwise the signal was faster
            faulthandler.dump_traceback(memfd, all_threads=True)
