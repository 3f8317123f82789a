"""The event loop of a worker: asyncio's, uvloop's, or one of the user's own (`workers.loop`)."""

import asyncio
import importlib.util
import os
from collections.abc import Callable
from importlib import import_module

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


def close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Ends what the application has left running, as asyncio.run() does, and closes the loop."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    # Without any, asyncio asks for the current loop, which the application may have unset.
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
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
