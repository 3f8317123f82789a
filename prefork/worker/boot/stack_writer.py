"""The worker's side of a stack dump: two ways to write it, one with the GIL and one without."""

import contextlib
import faulthandler
import fcntl
import os
import select
import threading

from prefork.channel import Channel, StacksReport
from prefork.stack_dump import PROBE, SIGNAL


def start_stack_writer(channel: Channel) -> None:
    """From now on the stacks are written into a memfd when the master asks for them.

    To be called with all signals blocked, so that the thread never gets one.  Without a descriptor
    or a thread to spare nothing is reported to the master, which does not ask then.
    """
    with contextlib.suppress(OSError, RuntimeError), contextlib.ExitStack() as undo:
        memfd = os.memfd_create("prefork-stacks")
        undo.callback(os.close, memfd)
        # The master truncates it, and does not know this descriptor's offset.
        fcntl.fcntl(memfd, fcntl.F_SETFL, os.O_APPEND)
        request = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # nothing may block the master
        undo.callback(os.close, request)
        threading.Thread(
            target=_write_on_request, args=(request, memfd), name="stacks", daemon=True
        ).start()
        undo.pop_all()
        faulthandler.register(SIGNAL, file=memfd, all_threads=True)
        channel.send(StacksReport(), (memfd, request))


def _write_on_request(request: int, memfd: int) -> None:
    poll = select.poll()
    poll.register(request, select.POLLIN)
    while poll.poll():
        if not os.eventfd_read(request) % PROBE:
            continue  # the read was the answer
        if not os.fstat(memfd).st_size:  # otherwise the signal was faster
            faulthandler.dump_traceback(memfd, all_threads=True)
