"""What was registered with `atexit`, in a worker that ends.

What was registered before the master forked runs in each worker, once: tools that start a program
(`coverage run`, `opentelemetry-instrument`, `ddtrace-run`) write there what they have collected.
Only the callbacks of a program that calls `prefork.serve()` are its own.  What the application
registers in a zygote runs in each worker, and not in the zygote.
"""

import atexit
import contextlib
import re
import sys
from collections.abc import Iterator

from prefork import logs

_of_program = False
_started = False


def keep_from_workers() -> None:
    """What is registered now is for the end of this program, and not for that of each worker."""
    global _of_program
    _of_program = True


def take_over() -> None:
    """In a process that was just forked: it is responsible for its own end, and for no process that
    its parent has started by `multiprocessing`, which would be ended with it."""
    global _of_program
    if (processes := sys.modules.get("multiprocessing.process")) is not None:
        processes._children.clear()
    if not _of_program:
        return
    _of_program = False  # what is registered from here on is the application's
    atexit._clear()
    # Modules that do not register their callbacks again.
    if "logging" in sys.modules:
        atexit.register(sys.modules["logging"].shutdown)
    if "multiprocessing.util" in sys.modules:
        atexit.register(sys.modules["multiprocessing.util"]._exit_function)


def started() -> bool:
    """Whether the callbacks run already, or have."""
    return _started


def run(*, children: bool = True) -> None:
    """Runs the callbacks, the last one first, and logs those that raise.

    `children`: whether that of `multiprocessing` is among them, which waits for tasks, and for
    locks that a process may have held which was ended before.
    """
    global _started
    _started = True
    if not children and (util := sys.modules.get("multiprocessing.util")) is not None:
        atexit.unregister(util._exit_function)
    with _reported(), _measured():
        atexit._run_exitfuncs()


@contextlib.contextmanager
def _measured() -> Iterator[None]:
    """`coverage run` saves its data when the program returns to it, which a worker never does."""
    coverage = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage is not None else None
    yield
    if current is not None:
        try:
            current.stop()
            current.save()
        except Exception as problem:  # no room on the disk
            logs.event("warning", "coverage not saved", reason=logs.summary_of(problem))


_OF_CALLBACK = "Exception ignored in atexit callback"


def _name_of_callback(raised: "sys.UnraisableHookArgs") -> str:
    """CPython 3.13 and later give no callback, but end the message with its repr()."""
    if (callback := raised.object) is not None:
        return getattr(callback, "__qualname__", None) or type(callback).__name__
    shown = (raised.err_msg or "").removeprefix(_OF_CALLBACK).strip()
    named = re.match(r"<(?:bound method|(?:built-in )?(?:function|method)) (\S+?)(?: |>$)", shown)
    return named[1] if named else shown


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """The interpreter prints what a callback raises, and goes on with the next one."""
    before = sys.unraisablehook

    def report(raised: "sys.UnraisableHookArgs") -> None:
        problem = raised.exc_value
        if problem is None or not (raised.err_msg or "").startswith(_OF_CALLBACK):
            before(raised)
            return
        logs.event(
            "error",
            "exit callback failed",
            callback=_name_of_callback(raised),
            traceback=logs.application_traceback(problem),
        )

    sys.unraisablehook = report
    try:
        yield
    finally:
        sys.unraisablehook = before
