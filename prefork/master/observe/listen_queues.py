"""Listen queues that stay full: more connections come than the workers accept."""

from collections.abc import Callable, Iterable

from prefork import linux, logs
from prefork.listeners import Listener
from prefork.master.periodic import Periodic, next_tick

_LOOK = 2.0
"""Seconds between two looks."""

_PATIENCE = 2
"""Looks in a row that make a burst a lasting state."""


class QueueWatch(Periodic):
    """Warns once a queue stays above a share of its limit, and reports when that is over."""

    due: float | None = 0.0
    """None if no share is set."""

    def __init__(
        self, listeners: Callable[[], Iterable[Listener]], share: Callable[[], float]
    ) -> None:
        """`listeners` and `share` of the queue's limit (0: do not look) are those of the generation
        that serves."""
        self._listeners = listeners
        self._share = share
        self._above: dict[Listener, int] = {}
        self._overflows = linux.listen_overflows()

    def generation_changed(self) -> None:
        """Another generation serves, whose listeners and share may be others."""
        self.due = 0.0

    def run(self, now: float) -> None:
        """Reads the depth of each queue, if that is due."""
        if self.due is None or now < self.due:
            return
        share = self._share()
        self.due = next_tick(now, _LOOK) if share else None
        above: dict[Listener, int] = {}
        for listener in self._listeners() if share else ():
            if listener.closed:
                continue
            depth, limit = linux.listen_queue(listener.sock)
            before = self._above.get(listener, 0)
            if limit > 0 and depth > share * limit:
                above[listener] = before + 1
                if before + 1 == _PATIENCE:
                    self._event("warning", "listen queue fills up", listener, depth, limit)
            elif before >= _PATIENCE:
                self._event("info", "listen queue is taken again", listener, depth, limit)
        self._above = above
        self._count_overflows()

    def _count_overflows(self) -> None:
        """The kernel counts for the whole network namespace: they are logged if a queue of ours is
        full."""
        overflows = linux.listen_overflows()
        new = overflows - self._overflows
        self._overflows = overflows
        if new > 0 and any(listener.is_tcp for listener in self._above):
            logs.event("warning", "connections dropped", handshakes=new)

    def _event(
        self, level: logs.Level, name: str, listener: Listener, depth: int, limit: int
    ) -> None:
        logs.event(level, name, address=listener.name, depth=depth, limit=limit)
