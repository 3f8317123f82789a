"""HTTP in a worker: connections to conversations, conversations to the application and back."""

import socket
import sys
import threading
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import Protocol

from prefork import logs
from prefork.apps.wsgi import Application
from prefork.http.queue_time import waited
from prefork.http.request import Environ, Request
from prefork.http.request_id import RequestIds
from prefork.scoreboard import ThreadRecord, WorkerStatsWriter
from prefork.worker.protocol.http_connection import HEAD, HttpConnection, NextStep
from prefork.worker.schedule.handover import Handover, HandoverMessage
from prefork.worker.schedule.poller import (
    EPOLLIN,
    EPOLLOUT,
    ConnectionPoller,
    SharedConnectionPoller,
)
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener
from prefork.worker.service import forked_child
from prefork.worker.service.admission import Admission, turn_away
from prefork.worker.service.listener_profile import ListenerProfile
from prefork.worker.transport.accepted_socket import adopt, peer_name
from prefork.worker.transport.client_limits import ClientLimits
from prefork.worker.transport.output_buffer import AHEAD

# An enum's member is looked up by a descriptor, at 80 ns each time in CPython 3.11.
_IDLE, _READ, _WRITE, _SERVE = NextStep.IDLE, NextStep.READ, NextStep.WRITE, NextStep.SERVE

_DONTWAIT = socket.MSG_DONTWAIT

_TURN = 0.001
"""Seconds after which a connection with more requests in its pipeline waits behind others.  A
switch costs some microseconds, so that a pipeline of trivial requests loses next to nothing."""

_LAST_CHANCE = 5.0
"""Seconds that an idle connection gets at the end where no limit is configured."""


class AccessLogWriter(Protocol):
    def add(
        self, environ: Environ, status: int, size: int, started: float, elapsed: float
    ) -> None: ...

    def flush(self) -> None: ...


class HttpService:
    """All HTTP conversations of one worker."""

    def __init__(
        self,
        application: Application,
        rules: ClientLimits,
        threads: LeaderFollowers | None,
        handover: Handover,
        stats: WorkerStatsWriter,
        profiles: Sequence[ListenerProfile],
        *,
        admission: Admission[HttpConnection],
        request_timeout: float,
        graceful_timeout: float,
        access: AccessLogWriter | None,
        ids: RequestIds | None,
        proxies: bool,
        draining: Callable[[], bool] | None,
    ) -> None:
        """`profiles`: of the listeners, by number.  `proxies`: some are trusted.  `draining`:
        whether the server is about to stop, though it serves on; None if it never does both."""
        self.poller: ConnectionPoller[HttpConnection] = (
            ConnectionPoller() if threads is None else SharedConnectionPoller()
        )
        self._parked = self.poller.parked
        self._application = application
        self._rules = rules
        self._threads = threads
        self._handover = handover
        self._stats = stats
        self._profiles = profiles
        self._ids = ids
        self._draining = draining
        self._reading = self._writing = 0
        self._counting = threading.Lock()
        self._admission = admission
        self._request_timeout = request_timeout
        limits = [limit for limit in (rules.keepalive, graceful_timeout) if limit]
        self._last_chance = min(limits, default=_LAST_CHANCE)
        self._access = access
        # There is more to a call than the application.
        self._attended = proxies or any(
            each is not None for each in (threads, ids, draining, access)
        )
        self._on_failure = self._failed  # one object: to bind a method takes 25 ns
        self._open = admission.members
        self._forked = False
        self._last = False
        self._until = 0.0

    # prefork.worker.schedule.worker_loop.Service

    def serve_accepted(
        self, accepted: AcceptedSocket, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        fd, peer = accepted
        name = peer_name(peer)
        profile = self._profiles[listener.number]
        address = profile.sharing_address(name)
        sock = adopt(fd)
        if not self._admitted(sock, address, tls=profile.tls):
            return
        now = monotonic()
        conversation = profile.connect(sock, profile.environ, name, self._rules, now)
        conversation.listener = listener.inode
        conversation.connection.recall = profile.head_cache
        self._open.add(conversation)
        self._admission.note(address, conversation)
        conversation.closing = self._last
        self._proceed(conversation, record, now, conversation.read(now))

    def serve_received(
        self, parcel: HandoverMessage, fd: int, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        if parcel.peer is not None:  # nothing was read yet
            self.serve_accepted((fd, parcel.peer), listener, record)
            return
        now = monotonic()
        profile = self._profiles[listener.number]
        conversation = profile.connect(adopt(fd), profile.environ, parcel.client, self._rules, now)
        conversation.listener = listener.inode
        conversation.connection.recall = profile.head_cache
        self._open.add(conversation)
        # It was admitted where it came from.
        self._admission.note(profile.sharing_address(parcel.client), conversation)
        conversation.closing = self._last
        conversation.resume(parcel)
        request = conversation.read(now)
        waits = request is None and conversation.idle and not conversation.broken
        if waits and parcel.deadline and not self._until:
            # A reload after the other must not keep it for ever.
            self._count(conversation, _IDLE)
            conversation.deadline = parcel.deadline
            self.poller.park(conversation, EPOLLIN)
        else:
            self._proceed(conversation, record, now, request)

    def serve_ready(self, fd: int, events: int, record: ThreadRecord, now: float) -> float:
        """The short way for what is most frequent: on an idle connection a request that came
        before, byte for byte, and an answer that its client takes at once.

        What Conversation's `read` and `settle` and what `_proceed` would do around the call, in one
        place; where anything is not as usual, it is left to them.
        """
        conversation = self._parked.pop(fd, None)
        if conversation is None:
            self.poller.event_not_parked(fd)
            return now
        connection = conversation.connection
        recall = connection.recall
        if (
            recall is None
            or conversation.wish is not _IDLE
            or conversation.weight > AHEAD
            or events & EPOLLOUT
        ):
            return self._go_on(conversation, events, record, now)
        try:
            data = conversation.sock.recv(HEAD, _DONTWAIT)
        except OSError:
            data = b""
        known = recall.heads.get(data)
        if known is None:
            # Where nothing came, it is asked once more, for the reason.
            request = conversation.digest(data, now) if data else conversation.read(now)
            return self._proceed(conversation, record, now, request)
        connection.last = not known.keep_alive
        now = self._call(conversation, connection.again(known), record, now)
        if connection.last or conversation.unsent is not None or self._until:
            return self._proceed(conversation, record, now)
        keepalive = self._rules.keepalive
        conversation.deadline = deadline = now + keepalive if keepalive else 0.0
        if (
            deadline < conversation.wheel_time
            or conversation.events != EPOLLIN
            or self._threads is not None
        ):
            self.poller.park(conversation, EPOLLIN)
        else:
            self._parked[fd] = conversation
        return now

    def _go_on(
        self, conversation: HttpConnection, events: int, record: ThreadRecord, now: float
    ) -> float:
        """The long way, for all else."""
        if events & EPOLLOUT:
            conversation.flush()
        else:
            request = conversation.read(now)
            if request is not None:
                return self._proceed(conversation, record, now, request)
        return self._proceed(conversation, record, monotonic())

    def close_overdue(self, now: float, record: ThreadRecord) -> None:
        for conversation in self.poller.claim_expired(now):
            conversation.overdue()
            self._proceed(conversation, record, now)

    def hand_over(self, fd: int, slot: int | None = None) -> bool:
        conversation = self.poller.parked.get(fd)
        return conversation is not None and self._move(conversation, only_idle=True, slot=slot)

    def hand_over_all(self) -> None:
        for conversation in list(self.poller.parked.values()):
            self._move(conversation, only_idle=False)

    def _move(
        self, conversation: HttpConnection, *, only_idle: bool, slot: int | None = None
    ) -> bool:
        """Hands a parked conversation over; False where it stays, or is somebody else's."""
        if conversation.parcel() is None:  # only a look: it is not ours yet
            return False
        if not self.poller.claim_connection(conversation):
            return False
        events = conversation.events
        if self._sent(conversation, only_idle=only_idle, slot=slot):
            return True
        self.poller.park(conversation, events)
        return False

    def _sent(
        self, conversation: HttpConnection, *, only_idle: bool, slot: int | None = None
    ) -> bool:
        """Hands over a conversation that this thread owns; False where it stays."""
        parcel = conversation.parcel()
        if parcel is None:
            return False
        self.poller.unregister(conversation)
        if not self._handover.send(parcel, conversation.fd, only_idle=only_idle, slot=slot):
            return False
        self._count(conversation, NextStep.CLOSE)
        self._open.discard(conversation)
        conversation.close()
        return True

    def begin_shutdown(self) -> None:
        if self._handover.expects_receiver:
            # What runs now goes on elsewhere, also before the main thread gets to `leave`.
            self._until = monotonic() + self._last_chance
            return
        self._last = True
        for conversation in list(self._open):
            conversation.closing = True

    def shut_down_idle(self) -> None:
        now = monotonic()
        self._until = now + self._last_chance
        if self._handover.has_receiver:
            self.hand_over_all()
        for conversation in list(self.poller.parked.values()):
            if self.poller.claim_connection(conversation):
                if conversation.idle:
                    conversation.settle(now, self._until)
                else:
                    conversation.closing = True
                self.poller.park(conversation, conversation.events)

    def expire_requests(self, now: float) -> None:
        for conversation in list(self._open):
            if now - conversation.began >= self._request_timeout:
                conversation.expire()  # if it is being served

    def flush(self) -> None:
        parked = len(self.poller.parked)
        self._stats.set_connections(len(self._open), parked, self._reading, self._writing)
        if self._access is not None:
            self._access.flush()

    def after_fork_in_child(self) -> None:
        self._forked = True
        for conversation in self._open:
            conversation.abandon()

    # Bounds.

    def _admitted(self, sock: socket.SocketType, address: str, *, tls: bool) -> bool:
        """Whether a new connection may stay; one that may not is closed."""
        admission = self._admission
        if len(self._open) < (admission.limit or sys.maxsize) and not admission.per_address:
            return True
        problem = admission.refusal(address, list(self.poller.parked.values()), self._end_idle)
        if problem is None:
            return True
        turn_away(sock, problem, tls=tls)
        return False

    def _end_idle(self, conversation: HttpConnection) -> bool:
        if not self.poller.claim_connection(conversation):
            return False
        self._close(conversation)
        return True

    def _close(self, conversation: HttpConnection) -> None:
        self.poller.remove(conversation)
        conversation.close()
        self._open.discard(conversation)

    # One conversation.

    def _proceed(
        self,
        conversation: HttpConnection,
        record: ThreadRecord,
        now: float,
        request: Request | None = None,
    ) -> float:
        """Does what can be done now, then parks the conversation, hands it over or ends it.

        `now`: monotonic seconds; returned is when that was over.  `request`: to be answered first.
        """
        began = now
        if request is not None:
            now = self._call(conversation, request, record, now)
        while True:
            wish = conversation.settle(now, self._until)
            if wish is _SERVE:
                if now - began > _TURN:
                    # As good as ready: it comes back at once, behind all that is ready by then.
                    self.poller.park(conversation, EPOLLOUT)
                    return now
                request = conversation.take()
                if request is not None:
                    now = self._call(conversation, request, record, now)
                continue
            if wish is not conversation.wish:
                self._count(conversation, wish)
            if wish is _IDLE or wish is _READ:
                if self._until and self._sent(conversation, only_idle=False):
                    return now
                self.poller.park(conversation, EPOLLIN)
            elif wish is _WRITE:
                self.poller.park(conversation, EPOLLOUT)
            else:
                self._close(conversation)
            return now

    def _count(self, conversation: HttpConnection, wish: NextStep) -> None:
        """Notes how many conversations wait for a request's rest, and for a client to take."""
        before, conversation.wish = conversation.wish, wish
        reading = (wish is _READ) - (before is _READ)
        writing = (wish is _WRITE) - (before is _WRITE)
        if reading or writing:
            with self._counting:
                self._reading += reading
                self._writing += writing

    def _call(
        self, conversation: HttpConnection, request: Request, record: ThreadRecord, now: float
    ) -> float:
        """Has the application answer a request; returns when that was over.

        `now`: as of a moment ago, when its last bytes were read.
        """
        attended = self._attended
        if attended:
            self._before(conversation, request, record)
        record.start(now, request.line, request.environ["REMOTE_ADDR"], request.id)
        response = conversation.answer(request, self._application, self._on_failure, now)
        if self._forked:
            forked_child.leave(None)
        ended = monotonic()
        head, sent = response.head, response.sent
        code = head.code if head is not None else response.failure
        if conversation.expired:
            code = 504
        record.end(ended, code, sent)
        if attended:
            self._after(request, code, sent, ended - now)
        return ended

    def _before(self, conversation: HttpConnection, request: Request, record: ThreadRecord) -> None:
        """What not every server does before a call."""
        environ = request.environ
        if self._ids is not None:
            self._ids.give(request)
        if "HTTP_X_REQUEST_START" in environ and conversation.connection.proxied:
            seconds = waited(environ["HTTP_X_REQUEST_START"], time())
            if seconds is not None:
                record.add_queue_time(seconds)
        if self._draining is not None and self._draining():
            conversation.closing = True
        if self._threads is not None:
            self._threads.before_call(record)

    def _after(self, request: Request, code: int, sent: int, elapsed: float) -> None:
        """And after it: it took `elapsed` seconds."""
        if self._threads is not None:
            self._threads.after_call(elapsed)
        if self._access is not None:
            self._access.add(request.environ, code, sent, time() - elapsed, elapsed)

    def _failed(self, request: Request, problem: BaseException) -> None:
        if self._forked and isinstance(problem, SystemExit):
            forked_child.leave(problem)
        line = request.line.decode("latin-1")
        self._stats.set_error(f"{line}: {logs.summary_of(problem)}")
        logs.event(
            "error",
            "application failed",
            request=line,
            peer=str(request.environ.get("REMOTE_ADDR", "")),
            request_id=request.id or None,
            traceback=logs.traceback_of(problem),
        )
        if self._forked:
            forked_child.leave(problem)
