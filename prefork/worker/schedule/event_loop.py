"""The event loop of a worker: asyncio's, uvloop's, or one of the user's own (`workers.loop`)."""

import asyncio
import importlib.util
import os
from collections.abc import Awaitable, Callable
from importlib import import_module
from types import FrameType

from prefork.apps.application_loader import LoadError, find


def loop_name(name: str) -> str:
    """The loop that `workers.loop` stands for: "auto" is uvloop if that is installed."""
    if name != "auto":
        return name
    return "uvloop" if importlib.util.find_spec("uvloop") is not None else "asyncio"


def import_loop(name: str) -> None:
    """Imports the loop's library, so that workers share it."""
    if loop_name(name) == "uvloop":
        import_module("uvloop")


def create_loop(name: str) -> asyncio.AbstractEventLoop:
    """A new loop; in the worker, since none survives a fork.

    Raises LoadError if there is no such loop, and whatever a factory of the user's raises.
    """
    name = loop_name(name)
    factory: Callable[[], asyncio.AbstractEventLoop]
    if name == "asyncio":
        factory = asyncio.SelectorEventLoop
    elif name == "uvloop":
        try:
            factory = import_module("uvloop").new_event_loop
        except ImportError as problem:
            raise LoadError(f"workers.loop: uvloop cannot be imported: {problem}") from None
    else:
        factory = find(name, "workers.loop")
    loop = factory()
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise LoadError(
            f"workers.loop: {name} returned {type(loop).__name__}, which is no event loop"
        )
    asyncio.set_event_loop(loop)
    return loop


def name_of(loop: asyncio.AbstractEventLoop) -> str:
    """What users call a loop: asyncio, uvloop, or the name of another library's or their class."""
    kind = type(loop)
    package = kind.__module__.partition(".")[0]
    return package if package in ("asyncio", "uvloop") else f"{kind.__module__}.{kind.__qualname__}"


class Exits:
    """SystemExit and KeyboardInterrupt that tasks and callbacks of the application raise, and its
    calls of `loop.stop()`.

    asyncio leaves its loop for each of them, anywhere between two callbacks.  The loop goes on
    here, so that calls that run beside are answered.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, report: Callable[[BaseException], None]
    ) -> None:
        """`report`: takes each of them, with the traceback of the application alone."""
        self._loop = loop
        self._report = report

    def run(self, awaitable: Awaitable[object]) -> None:
        """Runs the loop until this is done; raises what it raises, but for those two."""
        loop = self._loop
        future = asyncio.ensure_future(awaitable, loop=loop)
        while True:
            try:
                loop.run_until_complete(future)
                return
            except (SystemExit, KeyboardInterrupt) as problem:
                self._report(_without_loop(problem))
                if future.done():
                    return
            except RuntimeError:
                if future.done() or loop.is_closed() or loop.is_running():
                    raise  # not for a stop
                self._report(RuntimeError("the application has stopped the event loop"))


def _without_loop(problem: BaseException) -> BaseException:
    """An exception without the frames of the loop that has called the application."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None and _is_of_loop(trace.tb_frame):
        trace = trace.tb_next
    return problem.with_traceback(trace)


def is_of_application(problem: BaseException) -> bool:
    """Whether what `Exits` has reported came from code of the application, and is not of a signal
    that came while the loop waited."""
    trace = problem.__traceback__
    return trace is not None and not _is_of_loop(trace.tb_frame)


def _is_of_loop(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in ("prefork", "asyncio", "uvloop", "selectors")


def close_loop(loop: asyncio.AbstractEventLoop, run: Callable[[Awaitable[object]], None]) -> None:
    """Ends what the application has left running, as asyncio.run() does, and closes the loop."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    # Without any, asyncio asks for the current loop, which the application may have unset.
    if tasks:
        run(asyncio.gather(*tasks, return_exceptions=True))
    run(loop.shutdown_asyncgens())
    run(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()


def backend_descriptor(loop: asyncio.AbstractEventLoop) -> int | None:
    """The descriptor of the epoll in which a loop waits; None if it does not show that.

    asyncio has it in a private attribute, uvloop in a private method, both since their first
    releases.
    """
    selector = getattr(loop, "_selector", None)
    backend = getattr(loop, "_get_backend_id", None)
    try:
        fd = selector.fileno() if selector is not None else backend() if backend else None
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return fd if isinstance(fd, int) and _is_epoll(fd) else None


def _is_epoll(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventpoll]"
    except OSError:
        return False
