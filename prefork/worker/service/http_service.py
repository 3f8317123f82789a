"""The HTTP connections of one worker: their admission, their waiting, their handover, their end.

The state of a connection decides for which event it waits, and what a stop or a deadline does to it
(prefork.worker.protocol.connection_state).  The connection itself reads and writes, and a caller
answers each request (prefork.worker.service.wsgi_caller).
"""

import socket
import sys
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from prefork.http.head_rules import Reject
from prefork.http.reader import Peer
from prefork.http.request import Request
from prefork.scoreboard import ThreadRecord, WorkerStatsWriter
from prefork.unpatched import Lock
from prefork.worker.protocol.connection_state import (
    READING,
    TABLE,
    WRITING,
    ConnectionState,
    Movable,
    Readiness,
)
from prefork.worker.protocol.http_connection import Call, HttpConnection, RefusedRequest
from prefork.worker.schedule.handover import Handover, HandoverMessage
from prefork.worker.schedule.poller import (
    EPOLLIN,
    EPOLLOUT,
    ConnectionPoller,
    SharedConnectionPoller,
)
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener
from prefork.worker.service.admission import Admission, refuse
from prefork.worker.service.listener_profile import ListenerProfile
from prefork.worker.service.refusals import Refusals
from prefork.worker.transport.accepted_socket import peer_name, socket_of
from prefork.worker.transport.client_limits import ClientLimits

if TYPE_CHECKING:
    from prefork.worker.service.wsgi_websockets import WsgiWebsockets

# An enum's member is looked up by a descriptor, at 80 ns each time in CPython 3.11.
_IDLE: Final = ConnectionState.IDLE
_CLOSED: Final = ConnectionState.CLOSED
_READABLE: Final = Readiness.READABLE

FLUSH_AGAIN: Final = 0.5
"""Seconds after which `flush` writes more than the access log, though no number has changed."""

_LAST_CHANCE: Final = 5.0
"""Seconds that an idle connection gets at the end if no limit is configured."""


class RequestCaller(Protocol):
    """What answers the requests."""

    forked: bool
    """This is a child that the application has forked."""

    @property
    def call(self) -> Call: ...

    def flush(self) -> None:
        """Writes the lines that were kept for a batch."""


class HttpService:
    """All HTTP connections of one worker."""

    def __init__(
        self,
        caller: RequestCaller,
        rules: ClientLimits,
        threads: LeaderFollowers | None,
        handover: Handover,
        stats: WorkerStatsWriter,
        profiles: Sequence[ListenerProfile],
        *,
        admission: Admission[HttpConnection],
        refusals: Refusals,
        request_timeout: float,
        graceful_timeout: float,
        websockets: "WsgiWebsockets | None" = None,
    ) -> None:
        """`threads`: of a worker that has several.  `profiles`: of the listeners, by number."""
        self.poller: ConnectionPoller[HttpConnection] = (
            ConnectionPoller() if threads is None else SharedConnectionPoller()
        )
        self._parked = self.poller.parked
        self._alone = threads is None
        self._caller = caller
        self._call = caller.call  # one object: to bind a method takes 25 ns
        self._rules = rules
        self._handover = handover
        self._stats = stats
        self._profiles = profiles
        self._reading = self._writing = 0
        self._counting = Lock()
        self._admission = admission
        self._refusals = refusals
        self._request_timeout = request_timeout
        self._websockets = websockets
        limits = [limit for limit in (rules.keepalive, graceful_timeout) if limit]
        self._last_chance = min(limits, default=_LAST_CHANCE)
        self._open = admission.members
        self._flushed: tuple[int, ...] = ()
        self._flush_again = 0.0
        self._last = False
        self._leave_at = 0.0
        """Monotonic seconds at which idle connections end; 0 while the worker serves on."""

    # prefork.worker.schedule.service_interface.Service

    def serve_accepted(
        self, accepted: AcceptedSocket, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        fd, peer = accepted
        name = peer_name(peer)
        profile = self._profiles[listener.number]
        sock = socket_of(fd)
        holder = profile.sharing_address(name)
        problem = self._refused(holder, record)
        if problem is not None:
            answer = refuse(sock, problem, tls=profile.tls)
            if answer is not None:
                refusal = RefusedRequest(problem.status, problem.reason, *answer)
                self._refusals.note(name[0], refusal, record)
            return
        now = monotonic()
        connection = self._add(sock, name, holder, listener, now)
        self._begin(connection, record, now)
        self._wait(connection, _CLOSED, record)

    def _begin(
        self,
        connection: HttpConnection,
        record: ThreadRecord,
        now: float,
        request: Request | None = None,
    ) -> None:
        """Serves a new connection as far as its client has sent something; `request`: its first
        one, if that was read."""
        connection.proceed(self._call, record, now, self._leave_at, request)

    def serve_received(
        self, message: HandoverMessage, fd: int, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        if message.peer is not None:  # nothing was read yet
            self.serve_accepted((fd, message.peer), listener, record)
            return
        now = monotonic()
        # The worker from which it comes has admitted it.
        holder = self._profiles[listener.number].sharing_address(message.client)
        connection = self._add(socket_of(fd), message.client, holder, listener, now)
        request = connection.resume(message)
        self._begin(connection, record, now, request)
        idle = TABLE[connection.state].movable is Movable.EMPTY
        if idle and connection.served == message.served and message.deadline and not self._leave_at:
            # Nothing has come. One reload after another must not keep it for ever.
            connection.deadline = message.deadline
        self._wait(connection, _CLOSED, record)

    def _add(
        self,
        sock: socket.SocketType,
        peer: Peer,
        holder: str,
        listener: WorkerListener,
        now: float,
    ) -> HttpConnection:
        profile = self._profiles[listener.number]
        connection = profile.connect(sock, profile.environ, peer, self._rules, now)
        connection.listener = listener.inode
        connection.reader.heads = profile.heads
        connection.closing = self._last
        self._open.add(connection)
        self._admission.note(holder, connection)
        return connection

    def serve_ready(self, fd: int, events: int, record: ThreadRecord, now: float) -> float:
        connection = self._parked.pop(fd, None)
        if connection is None:
            self.poller.event_not_parked(fd)
            return now
        before = connection.state
        now = connection.proceed(self._call, record, now, self._leave_at)
        if connection.state is _IDLE and before is _IDLE and not self._leave_at:
            if self._alone and connection.deadline >= connection.wheel_time:
                self._parked[fd] = connection  # all that `park` comes to
            else:
                self.poller.park(connection, EPOLLIN)
        else:
            self._wait(connection, before, record)
        return now

    def close_overdue(self, now: float, record: ThreadRecord) -> None:
        for connection in self.poller.claim_expired(now):
            self._close_late(connection, now, record)

    def _close_late(self, connection: HttpConnection, now: float, record: ThreadRecord) -> None:
        before = connection.state
        connection.on_deadline()
        connection.advance(now, self._leave_at)
        self._wait(connection, before, record)

    def hand_over(self, fd: int, slot: int | None = None) -> bool:
        connection = self.poller.parked.get(fd)
        return connection is not None and self._move(connection, only_idle=True, slot=slot)

    def hand_over_all(self) -> bool:
        stays = False
        for connection in list(self.poller.parked.values()):
            if connection.handover_message() is not None:
                stays = not self._move(connection, only_idle=False) or stays
        return stays

    def begin_shutdown(self, seconds: float | None = None) -> None:
        if self._websockets is not None:
            self._websockets.close_all(seconds, restarts=self._handover.expects_receiver)
        if self._handover.expects_receiver:
            # Idle connections go to a sibling, even before the main thread calls `shut_down_idle`.
            self._leave_at = monotonic() + self._last_chance
            return
        self._last = True
        for connection in list(self._open):
            connection.closing = True

    def shut_down_idle(self) -> None:
        now = monotonic()
        self._leave_at = now + self._last_chance
        if self._handover.has_receiver:
            self.hand_over_all()
        for connection in list(self.poller.parked.values()):
            if self.poller.claim_connection(connection):
                connection.stop(now, self._leave_at)
                self.poller.park(connection, connection.events)

    def expire_requests(self, now: float) -> None:
        for connection in list(self._open):
            if connection.overdue(now, self._request_timeout):
                connection.expire()

    def flush(self) -> None:
        held, parked, websockets = len(self._open), len(self._parked), self._websockets
        count = 0 if websockets is None else len(websockets)
        numbers = (held, parked, self._reading, self._writing, self._admission.displaced, count)
        now, ends = monotonic(), self._last or self._leave_at
        if numbers == self._flushed and now < self._flush_again and not ends:
            self._caller.flush()
            return
        self._flushed, self._flush_again = numbers, now + FLUSH_AGAIN
        self._report()

    def _report(self) -> None:
        """Has the master know of the connections, and logs what was counted."""
        held, parked = len(self._open), self._waiting
        self._stats.set_connections(held, parked, self._reading, self._writing)
        if self._websockets is not None:
            self._stats.set_websockets(len(self._websockets))
        finally_ = self._last or self._leave_at > 0.0
        self._refusals.report(finally_=finally_)
        self._admission.report(finally_=finally_)
        if self._admission.displaced:
            self._stats.set_displaced(self._admission.displaced)
        self._caller.flush()

    @property
    def _waiting(self) -> int:
        """Connections that wait for their client."""
        return len(self.poller.parked)

    def after_fork_in_child(self) -> None:
        self._caller.forked = True
        for connection in self._open:
            connection.abandon()

    # Bounds.

    def _refused(self, holder: str, record: ThreadRecord) -> Reject | None:
        """Why a new connection may not stay; None if it may."""
        admission = self._admission
        if len(self._open) < (admission.limit or sys.maxsize) and not admission.per_address:
            return None
        parked = self.poller.parked.values()
        return admission.refusal(holder, monotonic(), parked, partial(self._displace, record))

    def _displace(self, record: ThreadRecord, connection: HttpConnection) -> bool:
        """Ends a parked connection for another one; False if another thread has it."""
        if not self.poller.claim_connection(connection):
            return False
        before = connection.state
        connection.give_way()
        connection.enter(_CLOSED)
        self._wait(connection, before, record)
        return True

    # One connection, which this thread has.

    def _wait(
        self, connection: HttpConnection, before: ConnectionState, record: ThreadRecord
    ) -> None:
        """Parks a connection, hands it over or closes it, by its state.

        `before`: the state in which it was parked the last time, CLOSED for a new one.
        """
        state = connection.state
        refusal = connection.refusal
        if refusal is not None:
            connection.refusal = None
            self._refusals.note(connection.reader.peer[0], refusal, record)
        if state is not before:
            self._count(before, state)
        if state is _CLOSED:
            self._close(connection)
            return
        if self._leave_at and self._handed_over(connection, only_idle=False):
            return
        readable = TABLE[state].waits_for is _READABLE
        self.poller.park(connection, EPOLLIN if readable else EPOLLOUT)

    def _count(self, before: ConnectionState, after: ConnectionState) -> None:
        """Notes how many connections wait for the rest of a request, and for a client to take."""
        reading = (after in READING) - (before in READING)
        writing = (after in WRITING) - (before in WRITING)
        if reading or writing:
            with self._counting:
                self._reading += reading
                self._writing += writing

    def _move(
        self, connection: HttpConnection, *, only_idle: bool, slot: int | None = None
    ) -> bool:
        """Hands a parked connection over; False if it stays, or another thread has it."""
        if connection.handover_message() is None:  # only a look: it is not this thread's yet
            return False
        if not self.poller.claim_connection(connection):
            return False
        events = connection.events
        if self._handed_over(connection, only_idle=only_idle, slot=slot):
            return True
        self.poller.park(connection, events)
        return False

    def _handed_over(
        self, connection: HttpConnection, *, only_idle: bool, slot: int | None = None
    ) -> bool:
        """Whether a sibling has taken a connection."""
        message = connection.handover_message()
        if message is None:
            return False
        self.poller.unregister(connection)
        if not self._handover.send(message, connection.fd, only_idle=only_idle, slot=slot):
            return False
        self._count(connection.state, _CLOSED)
        self._open.discard(connection)
        connection.close()
        return True

    def _close(self, connection: HttpConnection) -> None:
        self.poller.remove(connection)
        connection.close()
        self._open.discard(connection)
