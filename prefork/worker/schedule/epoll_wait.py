"""epoll_wait(2), called by a function of Python in the compiled build, too.

Python looks for pending signals where a function of its own begins, and compiled code does not: a
signal that came a moment before would stay without its handler until a descriptor is ready.  The
handlers set the worker's wake-up (prefork.worker.schedule.wakeup), so that the wait ends at once.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefork.unpatched import select


def epoll_wait(epoll: "select.epoll", limit: float | None, most: int) -> list[tuple[int, int]]:
    """(descriptor, events) of what is ready, `most` of them, after `limit` seconds at the latest;
    None for no limit."""
    return epoll.poll(limit, most)
