"""The table of a connection's states, and connections that are driven through all of them."""

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterable, Iterator
from functools import partial
from time import monotonic
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from prefork import logs
from prefork.apps.wsgi import StartResponse
from prefork.compiled import COMPILED
from prefork.http import forwarded
from prefork.http.field_lines import FieldLines
from prefork.http.request import Environ
from prefork.scoreboard import Scoreboard
from prefork.worker.protocol import http_connection
from prefork.worker.protocol.connection_opening import ListenerSecurity
from prefork.worker.protocol.connection_state import (
    TABLE,
    ConnectionState,
    Movable,
    OnDeadline,
    OnStop,
    Readiness,
    StateRow,
    TimeLimit,
)
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.protocol.state_change import successor
from prefork.worker.schedule.poller import EPOLLIN, EPOLLOUT
from prefork.worker.schedule.worker_listener import WorkerListener
from prefork.worker.service.admission import Admission
from prefork.worker.service.http_service import HttpService
from prefork.worker.service.listener_profile import ListenerProfile
from prefork.worker.service.refusals import Refusals
from prefork.worker.service.wsgi_caller import WsgiCaller
from prefork.worker.transport.client_limits import ClientLimits, due
from prefork.worker.transport.tls_transport import TlsTransport
from tests.support.client_limits import BASE, client_limits

S = ConnectionState

AUTHORITY = trustme.CA()
SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
# More names than a socket's buffer has room for: the client has to take the flight in parts.
NAMES = [f"{number}.names.test" for number in range(400)]
AUTHORITY.issue_cert("localhost", *NAMES).configure_cert(SERVER)
TRUSTING = ssl.create_default_context()
AUTHORITY.configure_trust(TRUSTING)

BIG = b"x" * 300_000


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/fail":
        return 1 / 0  # type: ignore[return-value]
    if path == "/hints":
        environ["wsgi.early_hints"]([("Link", "</a>; rel=preload")])
    if path == "/read":
        environ["wsgi.input"].read()
    headers = [("Connection", "close")] if path == "/close" else []
    start_response("200 OK", headers)
    return [BIG] if path == "/big" else [b"hello\n"]


def ask(path: str, body: bytes = b"", *, chunked: bool = False, expects: bool = False) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\n" + "Expect: 100-continue\r\n" * expects
    if chunked:
        pieces = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (body[:9], body[9:]))
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + pieces + b"0\r\n\r\n"
    if not body:
        return f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


PATHS = st.sampled_from(["/", "/", "/read", "/big", "/fail", "/close", "/hints"])
BODIES = st.sampled_from([b"", b"", b"b" * 10, b"b" * 3000, b"b" * 100_000])
REQUESTS = st.one_of(
    st.builds(ask, PATHS, BODIES, expects=st.booleans()),
    st.builds(ask, PATHS, st.just(b"b" * 4000), chunked=st.just(True)),
    st.sampled_from(
        [b"\0nothing\r\n\r\n", b"BREW / HTTP/1.1\r\n\r\n", b"\r\n", b"GET / HTTP/1.0\r\n\r\n"]
    ),
)
SIZES = st.sampled_from([1, 10, 60, 300, 5000, 100_000, 1_000_000])
STEPS = st.one_of(
    st.tuples(st.just("send"), SIZES),
    st.tuples(st.just("send"), SIZES),
    st.tuples(st.just("take"), SIZES),
    st.tuples(st.sampled_from(["turn", "overdue", "stop", "leave", "end", "reset"]), st.just(0)),
)


class NoSiblings:
    """As a worker's side of the handover is while it is the only one."""

    expects_receiver = has_receiver = False

    def send(self, *_args: object, **_how: object) -> bool:
        return False


class Peer:
    """The other end, which may speak TLS: what it sends goes out in the pieces that we say."""

    def __init__(self, sock: socket.socket, *, tls: bool) -> None:
        self.sock = sock
        sock.setblocking(False)
        self._tls: ssl.SSLObject | None = None
        self._out = bytearray()
        if tls:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = TRUSTING.wrap_bio(
                self._incoming, self._outgoing, server_hostname="localhost"
            )
        self._plain = bytearray()

    def says(self, data: bytes) -> None:
        self._plain += data

    def header(self, data: bytes) -> None:
        """What goes before TLS."""
        self._out += data

    def send(self, size: int) -> None:
        self._seal()
        with contextlib.suppress(OSError):
            sent = self.sock.send(self._out[:size])
            del self._out[:sent]

    def _seal(self) -> None:
        if self._tls is None:
            self._out += self._plain
            self._plain.clear()
            return
        with contextlib.suppress(ssl.SSLError):
            self._tls.do_handshake()
            if self._plain:
                self._tls.write(bytes(self._plain))
                self._plain.clear()
        self._out += self._outgoing.read()

    def take(self, size: int) -> None:
        with contextlib.suppress(OSError):
            data = self.sock.recv(size)
            if self._tls is not None:
                self._incoming.write(data)
                with contextlib.suppress(ssl.SSLError):
                    while self._tls.read(65536):
                        pass


def expected_deadline(c: HttpConnection, state: ConnectionState, now: float, leave: float) -> float:
    """By the table's word for it."""
    limits = c._rules
    kind = TABLE[state].time_limit
    at = 0.0

    def after(since: float, seconds: float) -> float:
        return since + seconds if seconds else 0.0

    if kind is TimeLimit.PROXY_HEADER or kind is TimeLimit.HEAD:
        at = after(c._since, limits.header_timeout)
    elif kind is TimeLimit.HANDSHAKE:
        assert c.opening is not None
        at = after(c.opening.began, HANDSHAKE_TIMEOUT)
    elif kind is TimeLimit.FIRST_BYTE:
        at = after(now, limits.header_timeout)
    elif kind is TimeLimit.KEEPALIVE:
        at = after(now, limits.keepalive)
    elif kind is TimeLimit.BODY:
        body = c.reader.body
        assert body is not None
        at = due(
            now,
            silence=limits.body_timeout,
            rate=limits.min_body_rate,
            since=body.since,
            done=body.size,
        )
    elif kind is TimeLimit.WRITE:
        assert c.unsent is not None
        at = c.unsent.due()
    elif kind is TimeLimit.LINGER:
        assert c._lingering is not None
        at = c._lingering.due(now)
    if leave and TABLE[state].on_stop is OnStop.LAST_CHANCE:
        at = min(at or leave, leave)
    return at


HANDSHAKE_TIMEOUT = 7.0


class World:
    """A service with one connection, and the client at the other end."""

    def __init__(self, kind: str, limits: ClientLimits) -> None:
        self.seen: list[ConnectionState] = []
        board = Scoreboard()
        siblings: Any = NoSiblings()
        tls = "tls" in kind
        profile = ListenerProfile(BASE, HttpConnection, None)
        if tls or "proxy" in kind:
            security = ListenerSecurity(
                (lambda sock: TlsTransport(sock, SERVER)) if tls else None,
                HANDSHAKE_TIMEOUT,
                "proxy" in kind,
                forwarded.trust(["127.0.0.1"]),
                FieldLines(),
            )
            profile = ListenerProfile(BASE, partial(security.connect, HttpConnection), None)
        stats = board.stats_writer(0)
        caller = WsgiCaller(
            *(self._app, None, stats), access=None, ids=None, proxies=False, draining=None
        )
        self.service = HttpService(
            *(caller, limits, None, siblings, stats, [profile]),
            admission=Admission[HttpConnection](0, 0, descriptors=None),
            refusals=Refusals(None),
            request_timeout=0.0,
            graceful_timeout=0.0,
        )
        self._record = board.record(0, 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self._worker_listener = worker_listener = WorkerListener(self._listener)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(self._listener.getsockname())
        self.peer = Peer(sock, tls=tls)
        if "proxy" in kind:
            self.peer.header(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n")
        self._leave = 0.0
        self._watch = self._watched()
        self._watch.__enter__()
        sock, peer = self._listener.accept()
        self.service.serve_accepted((sock.detach(), peer), worker_listener, self._record)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Each state that the connection enters is noted, and its deadline compared."""
        advance = HttpConnection.advance

        def watched(c: HttpConnection, now: float, leave_at: float = 0.0) -> ConnectionState:
            state = advance(c, now, leave_at)
            self.seen.append(state)
            if state is not S.CLOSED:
                assert c.deadline == expected_deadline(c, state, now, leave_at)
            return state

        with pytest.MonkeyPatch.context() as patch:
            # Of a pipeline, each has to wait for its turn.
            patch.setattr(http_connection, "_TIME_SLICE", -1.0)
            patch.setattr(HttpConnection, "advance", watched)
            patch.setattr(HttpConnection, "enter", self._enter)
            yield

    @staticmethod
    def _enter(connection: HttpConnection, state: ConnectionState) -> None:
        assert state is connection.state or state in TABLE[connection.state].successors
        connection.state = state

    def _app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        c = self.connection
        assert c is not None
        assert c.state is S.CALL
        assert c.serving is not None
        self.seen.append(c.state)
        return app(environ, start_response)

    @property
    def connection(self) -> HttpConnection | None:
        return next(iter(self.service._open), None)

    def step(self, name: str, size: int) -> None:
        if name == "send":
            self.peer.send(size)
        elif name == "take":
            self.peer.take(size)
        elif name == "end":
            with contextlib.suppress(OSError):
                self.peer.sock.shutdown(socket.SHUT_WR)
        elif name == "reset":
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                self.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.peer.sock.close()
        elif name == "stop":
            self.service.begin_shutdown()
        elif name == "leave":
            self._stop()
        elif name == "overdue":
            self._pass_deadline()
        self.turn()

    def turn(self) -> None:
        for fd, events in self.service.poller.wait(monotonic(), 0.0):
            self.service.serve_ready(fd, events, self._record, monotonic())
        self.check()

    def check(self) -> None:
        """What a parked connection is, by the table."""
        c = self.connection
        if c is None:
            return
        row = TABLE[c.state]
        assert c.serving is None
        assert not c.broken
        assert (c.unsent is not None) == (c.state is S.WRITE)
        waits = {Readiness.READABLE: EPOLLIN, Readiness.WRITABLE: EPOLLOUT}[row.waits_for]
        assert c.events == waits
        self._check_movable(c, row)

    def _check_movable(self, c: HttpConnection, row: StateRow) -> None:
        message = c.handover_message()
        if c.tls is not None or row.movable is Movable.NO:
            assert message is None
        elif row.movable is Movable.EMPTY:
            assert message is not None
            assert message.data == b""
        else:
            unread = c.reader.partial if c.state is S.HEAD else c._unfinished
            assert (message is not None) == (unread is not None)
            assert message is None or message.data

    def _stop(self) -> None:
        c = self.connection
        row = TABLE[c.state] if c is not None else None
        self.service.shut_down_idle()
        if c is None or row is None or not self.service._open:
            return
        if row.on_stop is OnStop.LAST_CHANCE:
            assert 0 < c.deadline <= self.service._leave_at
        elif row.on_stop is OnStop.FINISH:
            assert c.closing

    def _pass_deadline(self) -> None:
        c = self.connection
        if c is None or not c.deadline or not self.service.poller.claim_connection(c):
            return
        before, row = c.state, TABLE[c.state]
        sent: list[bytes] = []

        def send(_self: HttpConnection, data: bytes) -> None:
            sent.append(data)  # nothing comes of it but this

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HttpConnection, "send", send)
            c.on_deadline()
        assert bool(sent) == (row.on_deadline is OnDeadline.ANSWER_408)
        if row.on_deadline is not OnDeadline.CHECK_PROGRESS:
            assert c.broken
        c.advance(monotonic(), self.service._leave_at)
        self.service._wait(c, before, self._record)

    def close(self) -> None:
        for c in list(self.service._open):
            self.service._close(c)
        self._watch.__exit__(None, None, None)
        self.service.poller._epoll.close()
        self.peer.sock.close()
        self._listener.close()
        self._worker_listener.release_spare()


KINDS = st.sampled_from(["plain", "plain", "tls", "proxy", "proxy tls"])


@pytest.mark.skipif(COMPILED, reason="does not apply: no method of a compiled class is replaced")
@settings(max_examples=300)
@given(
    KINDS,
    st.booleans(),
    st.lists(REQUESTS, min_size=1, max_size=5),
    st.lists(STEPS, min_size=4, max_size=30),
)
def test_a_connection_does_what_the_table_says(
    kind: str, stream: bool, requests: list[bytes], steps: list[tuple[str, int]]
) -> None:
    # An application that reads a body whose rest has not come waits for so long.
    limits = client_limits(stream=stream, body_timeout=0.02, min_body_rate=3, min_write_rate=3)
    world = World(kind, limits)
    with contextlib.closing(world):
        world.peer.says(b"".join(requests))
        world.turn()
        for name, size in steps:
            world.step(name, size)


def test_each_state_has_a_row() -> None:
    assert set(TABLE) == set(ConnectionState)


def test_each_state_can_be_reached_and_ends() -> None:
    reached = {S.PROXY_HEADER, S.NEW}  # the states in which connections begin
    for _ in ConnectionState:
        reached |= {after for state in reached for after in TABLE[state].successors}
    assert reached == set(ConnectionState)
    assert all(S.CLOSED in row.successors for state, row in TABLE.items() if state is not S.CLOSED)
    assert not TABLE[S.CLOSED].successors


def test_a_state_that_has_a_deadline_says_what_comes_of_it() -> None:
    for row in TABLE.values():
        limited = row.time_limit is not TimeLimit.NONE
        assert limited == (row.on_deadline is not OnDeadline.NOTHING)


def test_a_state_that_the_table_does_not_allow_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost: list[str] = []
    monkeypatch.setattr(logs, "event", lambda *_, reason: lost.append(reason))
    ours, theirs = socket.socketpair()
    with theirs:
        connection = HttpConnection(ours, BASE, ("", ""), client_limits(), 0.0)
        for state in ConnectionState:
            for after in ConnectionState:
                connection.state = state
                if after is state or after in TABLE[state].successors:
                    connection.enter(after)
                    continue
                connection.enter(after)
                assert connection.state is S.CLOSED
                assert connection.broken
                assert lost.pop() == f"state {after.value!r} after {state.value!r}"
                connection.broken = False
        connection.close()


@pytest.mark.parametrize("now", ConnectionState)
@pytest.mark.parametrize("wanted", ConnectionState)
def test_a_state_that_the_table_does_not_allow_is_the_end_of_the_connection(
    now: ConnectionState, wanted: ConnectionState, capfd: pytest.CaptureFixture[str]
) -> None:
    allowed = wanted is now or wanted in TABLE[now].successors
    assert successor(now, wanted) is (wanted if allowed else ConnectionState.CLOSED)
    assert ("connection lost" in capfd.readouterr().err) is not allowed
