"""The lifespan of an ASGI application: its start before the worker is ready, and its shutdown.

The Lifespan specification of ASGI, version 2.0.  The worker is ready after `startup.complete`.  An
application does not support the protocol if it raises an exception, or returns, before it has
called `receive` at all; anything that goes wrong later is a failure of its start, and fails the
boot.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from prefork import logs
from prefork.apps.application_loader import LoadError
from prefork.apps.asgi_response import Message, MisusedProtocol, kind_of

_SPEC_VERSION = "2.0"

_Application = Callable[[dict[str, Any], Any, Any], Awaitable[object]]


_QUIT_CALLS = 0.2
"""Seconds for calls that are cancelled when the server stops at once: the master kills a worker
that is still there after 1 s (`prefork.master.pool.roster.EXIT_GRACE`)."""

_QUIT_LIFESPAN = 0.5
"""Seconds for the shutdown then."""


class Lifespan:
    """The lifespan of one worker's application."""

    def __init__(
        self,
        application: _Application,
        loop: asyncio.AbstractEventLoop,
        mode: Literal["auto", "on", "off"],
    ) -> None:
        """`mode`: `server.lifespan`."""
        self.state: dict[str, Any] | None = None
        """What the application has put there; None if it has no lifespan."""
        self._application = application
        self._loop = loop
        self._mode = mode
        self._asked = 0  # calls of `receive`
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] = loop.create_future()
        self._shutting_down: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()

    async def start(self) -> None:
        """Returns when the application is ready, or does not support the protocol.

        Raises LoadError if it says that it cannot start, and what it raises.
        """
        if self._mode == "off":
            return
        self.state = {}
        self._task = self._loop.create_task(self._run(self.state), name="lifespan")
        await self._started
        if self.state is None and self._mode == "on":
            raise LoadError(
                "server.lifespan: the application does not support the lifespan protocol; "
                'set "auto"'
            )

    async def shut_down(self, seconds: float | None = None) -> bool:
        """Has the application shut down, and waits for that, but no longer than `seconds`; returns
        whether it has come to an end."""
        if self._task is None or self._task.done():
            return True
        self._shutting_down.set_result(None)
        await asyncio.wait([self._ended], timeout=seconds)
        return self._ended.done()

    async def quit(self, calls: "Sequence[asyncio.Task[None]]") -> None:
        """The server stops at once: gives calls that were cancelled, and then the application, a
        moment to end."""
        if calls:
            await asyncio.wait(calls, timeout=_QUIT_CALLS)
        if not await self.shut_down(_QUIT_LIFESPAN):
            logs.event("warning", "lifespan cut off", elapsed=_QUIT_LIFESPAN)

    async def _run(self, state: dict[str, Any]) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": _SPEC_VERSION},
            "state": state,
        }
        problem: BaseException | None = None
        try:
            await self._application(scope, self._receive, self._send)
        except BaseException as raised:
            problem = raised
        if not self._started.done():
            if not self._asked:
                self.state = None
                self._started.set_result(None)
            elif problem is None:
                reason = "the application has left its lifespan before lifespan.startup.complete"
                self._started.set_exception(LoadError(f"server.lifespan: {reason}"))
            elif isinstance(problem, StopIteration):  # which no future takes
                self._started.set_exception(RuntimeError(f"StopIteration: {problem}"))
            else:
                self._started.set_exception(problem)
        elif problem is not None and not isinstance(problem, asyncio.CancelledError):
            self._report(logs.application_traceback(problem))
        if not self._ended.done():
            self._ended.set_result(None)
        problem = None  # its traceback holds this frame

    async def _receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        await asyncio.shield(self._shutting_down)
        if self._asked > 2:
            await asyncio.Event().wait()  # there is no third message
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind = kind_of(message)
        if kind == "lifespan.startup.complete":
            if self._started.done():
                raise MisusedProtocol("the application has started already")
            self._started.set_result(None)
        elif kind == "lifespan.startup.failed":
            if not self._started.done():
                text = str(message.get("message") or "").strip()
                reason = f": {text}" if text else ""
                self._started.set_exception(LoadError(f"the application cannot start{reason}"))
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            if kind == "lifespan.shutdown.failed":
                self._report(str(message.get("message") or ""))
            if not self._ended.done():
                self._ended.set_result(None)
        else:
            raise MisusedProtocol(f"the message {kind!r} is unknown, or not one of a lifespan")

    def _report(self, reason: str) -> None:
        what = "serving" if self._started.done() else "startup"
        if self._shutting_down.done():
            what = "shutdown"
        logs.event("error", "lifespan failed", phase=what, traceback=reason)
