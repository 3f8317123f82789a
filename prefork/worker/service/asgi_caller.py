"""The calls of an ASGI application: the work before and after each, and what runs at present."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from prefork.apps.asgi_compress import MessageCompressor
from prefork.apps.wsgi import WsgiResponse
from prefork.config import Websocket
from prefork.http.asgi_scope import http_scope, websocket_scope
from prefork.http.head_rules import Reject
from prefork.http.request import Request
from prefork.http.request_id import RequestIds
from prefork.scoreboard import CallRecords, ThreadRecord, WorkerStatsWriter
from prefork.websocket.opening_handshake import asks_for_websocket, read_handshake
from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.service import asgi_messages, websocket_messages
from prefork.worker.service.application_caller import AccessLogWriter, ApplicationCaller
from prefork.worker.service.asgi_call import AsgiApplication, AsgiCall, TaskFate
from prefork.worker.service.asgi_task import run
from prefork.worker.service.asgi_websocket import AsgiWebsocket
from prefork.worker.service.eager_task import task_starter
from prefork.worker.service.forked_child import exit_child
from prefork.worker.service.refused_upgrade import refuse_upgrade
from prefork.worker.service.wsgi_caller import WsgiCaller

_EXPIRED: Final = TaskFate.EXPIRED


class AsgiCaller(ApplicationCaller):
    """Answers the requests of one worker (prefork.worker.service.asgi_call.CallOwner)."""

    def __init__(
        self,
        application: AsgiApplication,
        loop: asyncio.AbstractEventLoop,
        records: CallRecords,
        stats: WorkerStatsWriter,
        *,
        access: AccessLogWriter | None,
        ids: RequestIds | None,
        draining: Callable[[], bool] | None,
        beside: WsgiCaller | None,
        served_beside: Callable[[str], bool] | None,
        codings: Sequence[str],
        compress_min_size: int,
        unix: Mapping[int, str],
        websocket: Websocket,
        proxies: bool,
    ) -> None:
        """`beside`: answers the paths for which `served_beside` is true.  `unix`: the paths
        of Unix sockets, by the inode of the listener.  For others see `WsgiCaller`, `Compress`."""
        super().__init__(stats, access=access, ids=ids, draining=draining)
        self.loop = loop
        self.websockets: set[AsgiWebsocket] = set()
        """Those that are open."""
        self.calls: set[AsgiCall | AsgiWebsocket] = set()
        """Those whose task runs, also if the response is complete."""
        self.under_way = 0
        """Those whose response is not complete."""
        self.state: dict[str, Any] | None = None
        """Of the lifespan; None if the application does not support that."""
        self.connection_changed: Callable[[AsgiConnection], None] = lambda connection: None
        """Set by the service: a connection may have another state now."""
        self.call_ended: Callable[[], None] = lambda: None
        """Set by the service: a task has ended that has outlived the event with which it began."""
        self.body_refused: Callable[[Reject], None] = lambda problem: None
        """Set by the service: a request was answered by the server, for what is wrong with its
        body."""
        self._application = application
        self._start_task = task_starter(loop)
        self._records = records
        self._beside = beside
        self._served_beside = served_beside
        self._codings = codings
        self._compress_min_size = compress_min_size
        self._socket_paths = unix
        self._websocket = websocket
        # If nothing of this is configured, there is nothing to do before a call.
        self._attended = proxies or ids is not None or draining is not None
        self._plain = not (self._attended or served_beside or codings or unix)

    def call(
        self, connection: HttpConnection, request: Request, record: ThreadRecord, now: float
    ) -> WsgiResponse | None:
        """Begins to answer a request; returns a response only if that was given at once."""
        if TYPE_CHECKING:
            assert isinstance(connection, AsgiConnection)
        environ, unix, compressor = request.environ, None, None
        if not self._plain:
            served_beside, beside = self._served_beside, self._beside
            if served_beside and beside and served_beside(environ["PATH_INFO"]):
                return beside.call(connection, request, record, now)
            if self._attended:
                self._prepare(connection, request, record)
            if self._codings:
                compressor = MessageCompressor(environ, self._codings, self._compress_min_size)
            unix = self._socket_paths.get(connection.listener or 0)
        if "HTTP_UPGRADE" in environ and asks_for_websocket(environ, http11=request.http11):
            return self._open_websocket(connection, request, record, now)
        call = AsgiCall(self, connection, request, now, compressor)
        call.slot = self._records.start(now, request.line, environ["REMOTE_ADDR"], request.id)
        self.calls.add(call)
        self.under_way += 1
        connection.exchange = call
        scope = http_scope(request, unix, self.state)
        call.task = self._start_task(
            run(call, self._application, scope, asgi_messages.receive, asgi_messages.send),
            scope["path"],
        )
        return None

    def _open_websocket(
        self, connection: AsgiConnection, request: Request, record: ThreadRecord, now: float
    ) -> WsgiResponse | None:
        """Begins to have a WebSocket accepted; refuses a request for one that is not valid."""
        try:
            handshake = read_handshake(request.environ)
        except Reject as problem:
            problem.__traceback__ = None
            return refuse_upgrade(connection, request, problem, record, self._access, now)
        websocket = AsgiWebsocket(self, connection, request, handshake, self._websocket, now)
        peer = request.environ["REMOTE_ADDR"]
        websocket.slot = self._records.start(now, request.line, peer, request.id)
        self.calls.add(websocket)
        self.under_way += 1
        connection.exchange = websocket
        unix = self._socket_paths.get(connection.listener or 0)
        scope = websocket_scope(request, handshake.subprotocols, unix, self.state)
        receive, send = websocket_messages.receive, websocket_messages.send
        websocket.task = self._start_task(
            run(websocket, self._application, scope, receive, send), scope["path"]
        )
        return None

    # prefork.worker.service.asgi_call.CallOwner

    def settle(self, connection: AsgiConnection) -> None:
        """A connection may have another state now."""
        self.connection_changed(connection)

    def pause(self, call: AsgiCall) -> None:
        """The application waits for its client."""
        now = monotonic()
        if call.at_work_since != inf:
            call.at_work_since = inf
            call.waits_since = now
        self._records.wait(call.slot, now)

    def resume(self, call: AsgiCall) -> None:
        """The application is at work again."""
        now = monotonic()
        if call.at_work_since == inf:
            call.waited += now - call.waits_since
        call.at_work_since = now
        self._records.resume(call.slot, now)

    def refused(self, problem: Reject) -> None:
        """The server answers a request whose body is not as it has to be."""
        self.body_refused(problem)

    def answered(self, call: AsgiCall) -> None:
        """A response is complete, or was given up."""
        self.under_way -= 1
        status, sent = call.status, call.sent
        now = monotonic()
        if call.fate is not _EXPIRED:
            # One that is over its time stays on the scoreboard until its task has ended: if it does
            # not, the master replaces the worker.
            self._records.end(call.slot, call.began, now, status, sent)
        if self._access is not None:
            elapsed = now - call.began
            self._access.add(call.request.environ, status, sent, time() - elapsed, elapsed)

    def upgraded(self, websocket: AsgiWebsocket) -> None:
        """A WebSocket was accepted: what follows has no time limit, and is no call under way."""
        self.under_way -= 1
        now = monotonic()
        self._records.end(websocket.slot, websocket.began, now, 101, 0)
        self.websockets.add(websocket)

    def closed(self, websocket: AsgiWebsocket) -> None:
        """A WebSocket is over, whether it was accepted or not."""
        self.websockets.discard(websocket)
        status, sent, began = websocket.status, websocket.sent, websocket.began
        now = monotonic()
        if not websocket.accepted:
            self.under_way -= 1
        if not websocket.accepted and websocket.fate is not _EXPIRED:
            self._records.end(websocket.slot, began, now, status, sent)
        if self._access is not None:
            elapsed = now - began
            self._access.add(websocket.request.environ, status, sent, time() - elapsed, elapsed)

    def ended(self, call: AsgiCall | AsgiWebsocket) -> None:
        """A task has ended."""
        if self.forked:
            exit_child(None)
        self.calls.discard(call)
        if call.fate is _EXPIRED:
            self._records.end(call.slot, call.began, monotonic(), call.status, call.sent)
        if call.task is not None:
            self.call_ended()
