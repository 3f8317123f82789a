"""HTTP connections that do not begin with HTTP, or whose peer is a trusted proxy.

Before its first request a connection may have to send a header of the PROXY protocol, and then to
complete a TLS handshake.  Each is a state of its own (PROXY_HEADER, HANDSHAKE, HANDSHAKE_WRITE of
prefork.worker.protocol.connection_state), in which the connection is parked like any other, with a
time limit.  After that it is a connection like any other.  A listener without any of this makes
plain ones, which pay nothing for it.
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
from prefork.http.request import Environ, Request
from prefork.worker.protocol.connection_state import (
    TABLE,
    ConnectionState,
    Readiness,
    TimeLimit,
)
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.schedule.handover import HandoverMessage
from prefork.worker.transport.client_limits import ClientLimits
from prefork.worker.transport.output_buffer import SendFile
from prefork.worker.transport.proxy_header import ProxyHeaderReader, report_refused

if TYPE_CHECKING:
    from ssl import SSLContext

    from prefork.worker.transport.tls_transport import TlsTransport

_PROXY_HEADER, _NEW = ConnectionState.PROXY_HEADER, ConnectionState.NEW
_HANDSHAKE, _HANDSHAKE_WRITE = ConnectionState.HANDSHAKE, ConnectionState.HANDSHAKE_WRITE
_LINGER, _CLOSED = ConnectionState.LINGER, ConnectionState.CLOSED

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

    def converse(
        self, sock: socket.SocketType, base: Environ, peer: Peer, rules: ClientLimits, now: float
    ) -> HttpConnection:
        return SecuredConnection(sock, base, peer, rules, now, self)


class SecuredConnection(HttpConnection):
    """One accepted connection of such a listener."""

    __slots__ = ("_base", "_header", "_security", "_tls")

    def __init__(
        self,
        sock: socket.SocketType,
        base: Environ,
        peer: Peer,
        rules: ClientLimits,
        now: float,
        security: ListenerSecurity,
    ) -> None:
        super().__init__(sock, base, peer, rules, now)
        self._base = base
        self._security = security
        self._header = ProxyHeaderReader()
        self._tls: TlsTransport | None = None
        self.state = _PROXY_HEADER
        if not security.proxy_protocol:
            self._peer_known(now)

    # The PROXY header.

    def _refuse(self, reason: str) -> None:
        report_refused(self.reader.peer[0], reason)
        self.broken = True

    def _read_proxy_header(self, now: float) -> None:
        """Leaves the state PROXY_HEADER if the header is complete: TLS or HTTP follows."""
        if not self._security.trusts(self.reader.peer[0]):
            self._refuse("the peer is not one of http.trusted_proxies")
            return
        try:
            header = self._header.read(self.sock)
        except ProxyError as problem:
            self._refuse(str(problem))
            return
        except OSError:
            self.broken = True
            return
        if header is None:
            return
        if header.source is not None:
            self.reader.peer = header.source
            refusal = self._refusal(header.source[0])
            if refusal is not None:
                if self._security.seal is None:
                    self._end_unencrypted(refusal)
                else:
                    self.broken = True  # no answer is possible before the handshake
                return
        self._peer_known(now)

    def _refusal(self, address: str) -> Reject | None:
        security = self._security
        if security.admit is None:
            return None
        return security.admit(self, "" if security.trusts(address) else address)

    def _peer_known(self, now: float) -> None:
        """From now on, only the peer's own headers can say that it speaks for another one."""
        security = self._security
        peer = self.reader.peer
        if security.trusts(peer[0]):
            self.reader = ProxiedReader(
                self._base, self._rules.limits, peer, security.trusts, security.lines
            )
        if security.seal is None:
            self.enter(_NEW)
            return
        self.enter(_HANDSHAKE)
        self._since = now
        self._tls = security.seal(self.sock)

    # The handshake.

    def _shake_hands(self) -> None:
        """Goes on with the handshake; leaves its states when it is over."""
        tls = self._tls
        assert tls is not None
        try:
            if not tls.shake_hands():
                return
        except Reject as answer:
            self._end_unencrypted(answer)
            return
        except OSError as problem:
            reason = str(getattr(problem, "reason", None) or problem)
            peer = self.reader.peer[0]
            if _failed_handshakes.due():
                skipped = _failed_handshakes.skipped or None
                logs.event("debug", "handshake failed", peer=peer, reason=reason, skipped=skipped)
            self._end_unencrypted(None)
            return
        self.enter(_NEW)
        self.sock = tls  # type: ignore[assignment]  # it has what a connection uses of a socket
        self.tls = tls
        self.reader.extend(tls.environ())

    def _end_unencrypted(self, problem: Reject | None) -> None:
        """The connection ends without TLS: with an answer to a client that can read it."""
        self.enter(_NEW)
        self._tls = None
        self.reader.finish()
        self.reader.surplus = True
        if problem is not None:
            self.reader.error = problem

    # The differences from a plain connection.

    def receive(self, now: float) -> Request | None:
        if self.broken:
            return None
        if self.state is _PROXY_HEADER:
            self._read_proxy_header(now)
        if self.state is _HANDSHAKE and not self.broken:
            self._shake_hands()
        if self.broken or self.state in (_PROXY_HEADER, _HANDSHAKE):
            return None
        return super().receive(now)

    def handover_message(self) -> HandoverMessage | None:
        """None also with TLS: the state of a session can't be sent."""
        return None if self._security.seal is not None else super().handover_message()

    def resume(self, message: HandoverMessage) -> Request | None:
        if self.state is _PROXY_HEADER:  # the other worker has read it, and sends whom it named
            self._peer_known(message.since)
        return super().resume(message)

    def flush(self) -> None:
        if self.state is _HANDSHAKE_WRITE:
            tls = self._tls
            assert tls is not None
            with contextlib.suppress(OSError):
                tls.push()
            return
        super().flush()

    def _file_sender(self) -> SendFile:
        tls = self.tls
        return super()._file_sender() if tls is None else tls.send_file

    def _next_state(self, now: float) -> ConnectionState:
        if self.broken:
            return _CLOSED
        if self.state is _PROXY_HEADER:
            return _PROXY_HEADER
        if self.state is _HANDSHAKE or self.state is _HANDSHAKE_WRITE:
            tls = self._tls
            return _HANDSHAKE_WRITE if tls is not None and tls.unsent else _HANDSHAKE
        state = super()._next_state(now)
        waits = TABLE[state].waits_for is Readiness.READABLE and state is not _LINGER
        return _CLOSED if waits and self._ended_unseen else state

    def _time_limit(self, limit: TimeLimit, now: float) -> float:
        if limit is TimeLimit.HANDSHAKE:
            timeout = self._security.handshake_timeout
            return self._since + timeout if timeout else 0.0
        return super()._time_limit(limit, now)

    def close(self) -> None:
        # Not if an answer was cut: its client has to see that.
        if self.tls is not None and self.unsent is None:
            self.tls.close_notify()
        super().close()
