"""The worker's side of its stacks: two ways to write them, one with the GIL and one without."""

import contextlib
import faulthandler
import fcntl
import os
import select
import threading

from prefork.channel import Channel, StacksReport
from prefork.stack_dump import SIGNAL


def offer(channel: Channel) -> None:
    """From now on the stacks are written into a memfd when the master asks for them.

    With all signals blocked, so that the thread never gets one.  Without a descriptor or a thread
    to spare nothing is offered, and the master does not ask.
    """
    with contextlib.suppress(OSError, RuntimeError), contextlib.ExitStack() as undone:
        memfd = os.memfd_create("prefork-stacks")
        undone.callback(os.close, memfd)
        # The master empties it, and does not know where this end's offset stands.
        fcntl.fcntl(memfd, fcntl.F_SETFL, os.O_APPEND)
        asked = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # nothing may block the master
        undone.callback(os.close, asked)
        threading.Thread(target=_answer, args=(asked, memfd), name="stacks", daemon=True).start()
        undone.pop_all()
        faulthandler.register(SIGNAL, file=memfd, all_threads=True)
        channel.send(StacksReport(), (memfd, asked))


def _answer(asked: int, memfd: int) -> None:
    question = select.poll()
    question.register(asked, select.POLLIN)
    while question.poll():
        os.eventfd_read(asked)
        if not os.fstat(memfd).st_size:  # else the signal was faster
            faulthandler.dump_traceback(memfd, all_threads=True)
