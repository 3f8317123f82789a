"""Event loops of a user's own."""

import asyncio
import selectors


def plain() -> asyncio.AbstractEventLoop:
    """A loop that waits in poll(2), and so has no epoll to show."""
    return asyncio.SelectorEventLoop(selectors.PollSelector())
