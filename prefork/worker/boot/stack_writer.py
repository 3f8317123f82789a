"""The worker's side of a stack dump: by a thread, and by a signal if that does not get the GIL."""

import contextlib
import faulthandler
import signal
import sys
from collections.abc import Callable
from types import FrameType

from prefork.stack_dump import DUMP, SIGNAL, WorkerStacks
from prefork.unpatched import get_ident, os, select
from prefork.worker.schedule.kernel_thread import KernelThread

_DEPTH = 100
"""Frames of a thread that are shown, as in `faulthandler`."""


_more: Callable[[], str] | None = None


def also_write(more: Callable[[], str]) -> None:
    """From now on the text of `more` stands before the stacks of the threads; for what waits in an
    event loop.  It is called by the thread that writes them, and may raise."""
    global _more
    _more = more


def register_stack_signal(stacks: WorkerStacks) -> None:
    """From now on the stacks are written into the memfd when the master sends the signal for it.

    It has an effect also while a thread holds the interpreter.
    """
    faulthandler.register(SIGNAL, file=stacks.memfd, all_threads=True)


def start_stack_thread(stacks: WorkerStacks, master_gone: Callable[[], None]) -> None:
    """From now on the stacks are written into the memfd when the master writes its request.

    To be called in the main thread, after rights were dropped: a thread keeps those with which it
    was started.  If no thread can be started, only the signal has an effect.

    master_gone: called by the thread when the master has ended.
    """
    main = get_ident()
    thread = KernelThread(lambda: _run(stacks, main, master_gone))
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the thread's for ever
    try:
        with contextlib.suppress(RuntimeError):
            thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _run(stacks: WorkerStacks, main: int, master_gone: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):  # the application has closed it
        _write_on_request(stacks, main)
        master_gone()


def _write_on_request(stacks: WorkerStacks, main: int) -> None:
    request, memfd = stacks.request, stacks.memfd
    poll = select.poll()
    poll.register(request, select.POLLIN)
    while poll.poll() and (asked := os.read(request, 4096)):  # nothing: the master is dead
        if DUMP not in asked:
            continue  # the read was the answer
        if os.fstat(memfd).st_size:  # the signal was faster
            continue
        if _has_gil():
            # Without the GIL, tasks would go on while they are looked at.
            os.write(memfd, _more_text().encode(errors="backslashreplace"))
            faulthandler.dump_traceback(memfd, all_threads=True)
        else:
            os.write(memfd, _stacks(main).encode(errors="backslashreplace"))


def _more_text() -> str:
    if _more is None:
        return ""
    try:
        return _more()
    except Exception as problem:  # the application goes on meanwhile
        return f"Tasks cannot be shown: {type(problem).__name__}\n\n"


def _has_gil() -> bool:
    """Whether other threads stand still while this one runs; False for free-threaded builds."""
    enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)  # CPython 3.13
    return enabled()


def _stacks(main: int) -> str:
    """The stacks of all threads as `faulthandler` writes them, that of the thread `main` last.

    Without the GIL `faulthandler` shows the calling thread only, since the others run on.  For
    sys._current_frames() they stop; a frame may have gone on by the time that its line is read.
    """
    frames = sorted(sys._current_frames().items(), key=lambda item: item[0] == main)
    return "\n".join(_stack(thread, frame) for thread, frame in frames)


def _stack(thread: int, frame: FrameType | None) -> str:
    lines = [f"Thread 0x{thread:016x} (most recent call first):"]
    while frame is not None and len(lines) <= _DEPTH:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}')
        frame = frame.f_back
    if frame is not None:
        lines.append("  ...")
    return "\n".join([*lines, ""])
