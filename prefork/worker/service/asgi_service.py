"""The HTTP connections of a worker with an event loop.

Admission, waiting, handover and the end are those of every HTTP service.  What differs: a
connection stays parked while the application has its request, with the events of its exchange, and
it may get its next state at any moment of the loop, and not only when its socket is ready.
"""

from collections.abc import Callable, Sequence
from time import monotonic

from prefork.scoreboard import ThreadRecord, WorkerStatsWriter
from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.protocol.connection_state import ConnectionState
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.schedule.handover import Handover
from prefork.worker.service.admission import Admission
from prefork.worker.service.asgi_caller import AsgiCaller
from prefork.worker.service.http_service import HttpService
from prefork.worker.service.lifespan import Lifespan
from prefork.worker.service.listener_profile import ListenerProfile
from prefork.worker.service.refusals import Refusals
from prefork.worker.transport.client_limits import ClientLimits

_CLOSED = ConnectionState.CLOSED


class AsgiService(HttpService):
    """All HTTP connections of one worker with an event loop."""

    def __init__(
        self,
        caller: AsgiCaller,
        lifespan: Lifespan,
        rules: ClientLimits,
        handover: Handover,
        stats: WorkerStatsWriter,
        profiles: Sequence[ListenerProfile],
        record: ThreadRecord,
        *,
        admission: Admission[HttpConnection],
        refusals: Refusals,
        request_timeout: float,
        graceful_timeout: float,
    ) -> None:
        """`record`: for what is no call of the application."""
        super().__init__(
            *(caller, rules, None, handover, stats, profiles),
            admission=admission,
            refusals=refusals,
            request_timeout=request_timeout,
            graceful_timeout=graceful_timeout,
        )
        self.caller = caller
        self._lifespan = lifespan
        self.changed: Callable[[], None] = lambda: None
        """Set by the loop: something has happened between two of its turns."""
        self._record = record
        caller.connection_changed = self.settle
        caller.call_ended = self._call_ended

    @property
    def calls(self) -> int:
        """Calls whose task runs."""
        return len(self.caller.calls)

    @property
    def held(self) -> int:
        """Open connections."""
        return len(self._open)

    def serve_ready(self, fd: int, events: int, record: ThreadRecord, now: float) -> float:
        connection = self._parked.get(fd)
        if connection is not None and connection.exchange is not None:
            assert isinstance(connection, AsgiConnection)
            connection.noticed(events)
        return super().serve_ready(fd, events, record, now)

    def settle(self, connection: AsgiConnection) -> None:
        """A connection may have another state, and it waits for something else now."""
        if connection.proceeding:
            return  # that will look by itself
        before = connection.state
        if before is _CLOSED:
            return
        fd = connection.fd
        if self._parked.get(fd) is connection:
            del self._parked[fd]
        connection.advance(monotonic(), self._leave_at)
        self._wait(connection, before, self._record)
        self.changed()

    def _wait(
        self, connection: HttpConnection, before: ConnectionState, record: ThreadRecord
    ) -> None:
        if connection.exchange is None:
            super()._wait(connection, before, record)
            return
        assert isinstance(connection, AsgiConnection)
        if connection.state is not before:
            self._count(before, connection.state)
        if connection.broken:
            # Nothing comes of it any more but the end of the call.
            self.poller.remove(connection)
        else:
            self.poller.park(connection, connection.wanted)

    async def shut_down(self) -> None:
        """The last call has ended: the application shuts down."""
        await self._lifespan.shut_down()

    def _call_ended(self) -> None:
        self.changed()
