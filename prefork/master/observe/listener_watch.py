"""Listeners that were shut down by a process that has them open, as a worker that was taken over.

No connection comes any more, and no worker would show it: so the master looks.
"""

from collections.abc import Callable

from prefork import logs
from prefork.listeners import Listener, ListenError
from prefork.master.periodic import Periodic, next_tick
from prefork.master.processes.generation import Generation

_LOOK = 2.0
"""Seconds between two looks: an idle master wakes for nothing else so often."""


class ListenerWatch(Periodic):
    """Listens again where that is possible, and logs it."""

    due: float | None = 0.0

    def __init__(self, serving: Callable[[], Generation], stopping: Callable[[], bool]) -> None:
        """`serving`: the generation that serves.  `stopping`: the server ends its listeners."""
        self._serving = serving
        self._stopping = stopping
        self._lost: set[Listener] = set()

    def run(self, now: float) -> None:
        """Looks at the listeners, if that is due."""
        if self.due is None or now < self.due:
            return
        self.due = next_tick(now, _LOOK)
        if self._stopping():
            return
        generation = self._serving()
        for listener in generation.held:
            if not listener.closed and listener not in self._lost and not listener.listens:
                self._listen_again(listener, generation)

    def _listen_again(self, listener: Listener, generation: Generation) -> None:
        try:
            listener.listen_again(generation.options)
            outcome = "it listens again"
        except ListenError as problem:
            self._lost.add(listener)
            outcome = f"{problem}; restart the server"
        reason = f"a process that has the socket open has called shutdown(2): {outcome}"
        logs.event("error", "listener shut down", address=listener.name, reason=reason)
