"""The worker's side of a stack dump: two ways to write it, one with the GIL and one without."""

import contextlib
import faulthandler
import os
import select
import threading

from prefork.stack_dump import DUMP, SIGNAL, WorkerStacks


def start_stack_writer(stacks: WorkerStacks) -> None:
    """From now on the stacks are written into the memfd when the master asks for them.

    To be called with all signals blocked, so that the thread never gets one.  If no thread can be
    started, only the signal for the stacks has an effect.
    """
    faulthandler.register(SIGNAL, file=stacks.memfd, all_threads=True)
    with contextlib.suppress(RuntimeError):
        threading.Thread(
            target=_write_on_request,
            args=(stacks.request, stacks.memfd),
            name="stacks",
            daemon=True,
        ).start()


def _write_on_request(request: int, memfd: int) -> None:
    poll = select.poll()
    poll.register(request, select.POLLIN)
    while poll.poll() and (asked := os.read(request, 4096)):  # nothing: the master is dead
        if DUMP not in asked:
            continue  # the read was the answer
        if not os.fstat(memfd).st_size:  # otherwise the signal was faster
            faulthandler.dump_traceback(memfd, all_threads=True)
