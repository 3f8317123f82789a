"""What comes before HTTP on a connection: a header of the PROXY protocol, a TLS handshake.

Each is a state of its own (PROXY_HEADER, HANDSHAKE, HANDSHAKE_WRITE of
prefork.worker.protocol.connection_state), in which the connection is parked like any other, with a
time limit.  After that it is a connection like any other, for WSGI or ASGI, and its opening is
forgotten.  A listener without any of this makes connections that have none.
"""

import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from prefork import logs
from prefork.config import Config
from prefork.http import forwarded
from prefork.http.field_lines import FieldLines
from prefork.http.head_rules import Reject
from prefork.http.proxied_reader import ProxiedReader, keys
from prefork.http.proxy_protocol import ProxyError
from prefork.http.reader import Peer
from prefork.http.request import Environ
from prefork.worker.protocol.connection_state import ConnectionState
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.transport.client_limits import ClientLimits
from prefork.worker.transport.proxy_header import ProxyHeaderReader, report_refused

if TYPE_CHECKING:
    from ssl import SSLContext

    from prefork.worker.transport.tls_transport import TlsTransport

_PROXY_HEADER, _NEW = ConnectionState.PROXY_HEADER, ConnectionState.NEW
_HANDSHAKE, _HANDSHAKE_WRITE = ConnectionState.HANDSHAKE, ConnectionState.HANDSHAKE_WRITE

_failed_handshakes = logs.RateLimit(5.0, burst=10)

AdmitProxied = Callable[[HttpConnection, str], Reject | None]
"""Why a connection is refused whose client a PROXY header has named, by the address that shares in
the limit on connections; None if it may stay."""


def security(
    config: Config, address: str, context: "SSLContext | None", admit: AdmitProxied
) -> "ListenerSecurity | None":
    """The requirements of the listener with that address; `context`: the server's.

    None if its connections are plain ones.
    """
    http, settings = config.http, config.tls
    seal = None
    if settings.is_spoken_at(address):
        # Imported here: OpenSSL costs each process megabytes that few servers have a use for.
        from prefork.worker.transport.tls_transport import TlsTransport

        assert context is not None
        seal = partial(TlsTransport, context=context)
    if seal is None and not http.trusted_proxies:
        return None
    return ListenerSecurity(
        seal,
        settings.handshake_timeout,
        http.proxy_protocol,
        forwarded.trust(http.trusted_proxies),
        FieldLines(keys(http.trusted_headers) if http.trusted_proxies else {}),
        admit,
    )


class ListenerSecurity(Struct, frozen=True):
    """The requirements of one listener."""

    seal: "Callable[[socket.SocketType], TlsTransport] | None"
    """Begins TLS; None if that is not spoken."""
    handshake_timeout: float
    """Seconds, 0 for no limit."""
    proxy_protocol: bool
    trusts: forwarded.Trusts
    lines: FieldLines
    """Of trusted proxies: made with the headers that are believed if one of them sends them."""
    admit: AdmitProxied | None = None

    def connect(
        self,
        kind: type[HttpConnection],
        sock: socket.SocketType,
        base: Environ,
        peer: Peer,
        rules: ClientLimits,
        now: float,
    ) -> HttpConnection:
        """A connection of that kind with its opening before it; the other arguments are its own."""
        connection = kind(sock, base, peer, rules, now)
        connection.opening = opening = ConnectionOpening(self, base, rules)
        connection.state = _PROXY_HEADER
        if not self.proxy_protocol:
            opening.peer_known(connection, now)
        return connection


class ConnectionOpening:
    """That of one connection (prefork.worker.protocol.http_connection.Opening)."""

    __slots__ = ("_base", "_header", "_limits", "_security", "_tls", "began")

    def __init__(self, security: ListenerSecurity, base: Environ, rules: ClientLimits) -> None:
        self._security = security
        self._base = base
        self._limits = rules.limits
        self._header = ProxyHeaderReader()
        self._tls: TlsTransport | None = None
        self.began = 0.0
        """Monotonic seconds at which the handshake began."""

    def proceed(self, connection: HttpConnection, now: float) -> None:
        if connection.state is _PROXY_HEADER:
            self._read_proxy_header(connection, now)
        if connection.state is _HANDSHAKE and not connection.broken:
            self._shake_hands(connection)

    def push(self) -> None:
        assert self._tls is not None
        with contextlib.suppress(OSError):
            self._tls.push()

    @property
    def state(self) -> ConnectionState:
        tls = self._tls
        if tls is None:
            return _PROXY_HEADER
        return _HANDSHAKE_WRITE if tls.unsent else _HANDSHAKE

    @property
    def due(self) -> float:
        timeout = self._security.handshake_timeout
        return self.began + timeout if timeout else 0.0

    # The PROXY header.

    def _read_proxy_header(self, connection: HttpConnection, now: float) -> None:
        """Leaves the state PROXY_HEADER if the header is complete: TLS or HTTP follows."""
        security, reader = self._security, connection.reader
        if not security.trusts(reader.peer[0]):
            self._refuse(connection, "the peer is not one of http.trusted_proxies")
            return
        try:
            header = self._header.read(connection.sock)
        except ProxyError as problem:
            self._refuse(connection, str(problem))
            return
        except OSError:
            connection.broken = True
            return
        if header is None:
            return
        if header.source is not None:
            reader.peer = header.source
            refusal = self._refusal(connection, header.source[0])
            if refusal is not None:
                if security.seal is None:
                    self._end_unencrypted(connection, refusal)
                else:
                    connection.broken = True  # no answer is possible before the handshake
                return
        self.peer_known(connection, now)

    def _refuse(self, connection: HttpConnection, reason: str) -> None:
        report_refused(connection.reader.peer[0], reason)
        connection.broken = True

    def _refusal(self, connection: HttpConnection, address: str) -> Reject | None:
        security = self._security
        if security.admit is None:
            return None
        return security.admit(connection, "" if security.trusts(address) else address)

    def peer_known(self, connection: HttpConnection, now: float) -> None:
        """From now on, only the peer's own headers can say that it speaks for another one."""
        security, peer = self._security, connection.reader.peer
        if security.trusts(peer[0]):
            connection.reader = ProxiedReader(
                self._base, self._limits, peer, security.trusts, security.lines
            )
        if security.seal is None:
            self._end(connection)
            return
        connection.enter(_HANDSHAKE)
        self.began = now
        self._tls = security.seal(connection.sock)

    # The handshake.

    def _shake_hands(self, connection: HttpConnection) -> None:
        """Goes on with the handshake; leaves its states when it is over."""
        tls = self._tls
        assert tls is not None
        try:
            if not tls.shake_hands():
                return
        except Reject as answer:
            self._end_unencrypted(connection, answer)
            return
        except OSError as problem:
            reason = str(getattr(problem, "reason", None) or problem)
            peer = connection.reader.peer[0]
            if _failed_handshakes.due():
                skipped = _failed_handshakes.skipped or None
                logs.event("debug", "handshake failed", peer=peer, reason=reason, skipped=skipped)
            self._end_unencrypted(connection, None)
            return
        self._end(connection)
        connection.sock = tls  # type: ignore[assignment]  # it has what is used of a socket
        connection.tls = tls
        connection.reader.extend(tls.environ())

    # The end.

    def _end(self, connection: HttpConnection) -> None:
        connection.enter(_NEW)
        connection.opening = None

    def _end_unencrypted(self, connection: HttpConnection, problem: Reject | None) -> None:
        """The connection ends without TLS: with an answer to a client that can read it."""
        self._end(connection)
        connection.reader.finish()
        connection.reader.surplus = True
        if problem is not None:
            connection.reader.error = problem
