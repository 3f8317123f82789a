"""A conversation that does not begin with HTTP, or whose peer speaks for somebody else.

Before its first request a connection may owe a header of the PROXY protocol, and then a TLS
handshake.  Each is a state in which the connection is parked like any other, with a time limit;
once both are behind it, it is a conversation like any other, too.  A listener without any of this
has plain conversations, and pays nothing for it.
"""

import contextlib
import socket
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from prefork import logs
from prefork.config import Config
from prefork.http import forwarded
from prefork.http.head_rules import Reject
from prefork.http.proxied_request import ProxiedRequestParser, keys
from prefork.http.proxy_protocol import ProxyError
from prefork.http.request import Environ, Request
from prefork.http.request_parser import Peer
from prefork.worker.protocol.http_connection import HttpConnection, NextStep
from prefork.worker.schedule.handover import HandoverMessage
from prefork.worker.transport.client_limits import ClientLimits
from prefork.worker.transport.output_buffer import SendFile
from prefork.worker.transport.proxy_header import ProxyHeaderReader

if TYPE_CHECKING:
    from ssl import SSLContext

    from prefork.worker.transport.tls_transport import TlsTransport


AdmitProxied = Callable[[HttpConnection, str], Reject | None]
"""Why a connection is refused whose client a PROXY header has named, by the address that shares in
the limit on connections; None if it may stay."""


def security(
    config: Config, address: str, context: "SSLContext | None", admit: AdmitProxied
) -> "ListenerSecurity | None":
    """What the listener of that address asks of its connections; `context`: the server's.

    None if they are plain HTTP.
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
        keys(http.trusted_headers) if http.trusted_proxies else {},
        admit,
    )


class ListenerSecurity(Struct, frozen=True):
    """What one listener asks of its connections."""

    seal: "Callable[[socket.SocketType], TlsTransport] | None"
    """Begins TLS, where that is spoken."""
    handshake_timeout: float
    """Seconds, 0 for no limit."""
    proxy_protocol: bool
    trusts: forwarded.Trusts
    headers: dict[bytes, str]
    """What is believed from whom is trusted; see prefork.http.proxied_request.keys."""
    admit: AdmitProxied | None = None

    def converse(
        self, sock: socket.SocketType, base: Environ, peer: Peer, rules: ClientLimits, now: float
    ) -> HttpConnection:
        return SecuredConnection(sock, base, peer, rules, now, self)


class _Owed(Enum):
    """What has to come first."""

    PROXY = "PROXY header"
    HANDSHAKE = "TLS handshake"
    NOTHING = "nothing"


_WAITING = (NextStep.IDLE, NextStep.READ)

_PROXY, _HANDSHAKE, _NOTHING = _Owed.PROXY, _Owed.HANDSHAKE, _Owed.NOTHING


class SecuredConnection(HttpConnection):
    """One accepted connection."""

    __slots__ = ("_base", "_header", "_owed", "_security", "_tls")

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
        self._header = ProxyHeaderReader() if security.proxy_protocol else None
        self._tls: TlsTransport | None = None
        self._owed = _PROXY if security.proxy_protocol else _HANDSHAKE
        if not security.proxy_protocol:
            self._know_peer(now)

    # The PROXY header.

    def _refuse(self, why: str) -> None:
        logs.event("warning", "connection refused", peer=self.connection.peer[0], reason=why)
        self.broken = True

    def _read_proxy_header(self, now: float) -> bool:
        """Whether it is behind us: what follows is for TLS, or HTTP."""
        if not self._security.trusts(self.connection.peer[0]):
            self._refuse("the peer is not one of http.trusted_proxies")
            return False
        owed = self._header
        assert owed is not None
        try:
            header = owed.read(self.sock)
        except ProxyError as problem:
            self._refuse(str(problem))
            return False
        except OSError:
            self.broken = True
            return False
        if header is None:
            return False
        self._header = None
        if header.source is not None:
            self.connection.peer = header.source
            refusal = self._refusal(header.source[0])
            if refusal is not None:
                if self._security.seal is None:
                    self._stay_plain(refusal)
                else:
                    self.broken = True  # there is no way to tell
                return False
        self._know_peer(now)
        return True

    def _refusal(self, address: str) -> Reject | None:
        security = self._security
        if security.admit is None:
            return None
        return security.admit(self, "" if security.trusts(address) else address)

    def _know_peer(self, now: float) -> None:
        """Nothing more will be said of the peer but by itself."""
        security = self._security
        peer = self.connection.peer
        if security.trusts(peer[0]):
            self.connection.close()
            self.connection = ProxiedRequestParser(
                self._base, self._rules.limits, peer, security.trusts, security.headers
            )
        if security.seal is None:
            self._owed = _NOTHING
            return
        self._owed = _HANDSHAKE
        self._since = now
        self._tls = security.seal(self.sock)

    # The handshake.

    def _shake_hands(self) -> bool:
        tls = self._tls
        assert tls is not None
        try:
            if not tls.shake_hands():
                return False
        except Reject as answer:
            self._stay_plain(answer)
            return False
        except OSError as problem:
            reason = str(getattr(problem, "reason", None) or problem)
            peer = self.connection.peer[0]
            logs.event("debug", "handshake failed", peer=peer, reason=reason)
            self._stay_plain(None)
            return False
        self._owed = _NOTHING
        self.sock = tls  # type: ignore[assignment]  # it has what a conversation uses of one
        self.connection.extend(tls.environ())
        return True

    def _stay_plain(self, problem: Reject | None) -> None:
        """No TLS will come of it: the end, with a word to who can read it."""
        self._owed = _NOTHING
        self._tls = None
        self.connection.finish()
        self.connection.surplus = True
        if problem is not None:
            self.connection.error = problem

    # What a conversation does.

    def read(self, now: float) -> Request | None:
        if self.broken:
            return None
        if self._owed is _PROXY and not self._read_proxy_header(now):
            return None
        if self._owed is _HANDSHAKE and not self._shake_hands():
            return None
        return super().read(now)

    def parcel(self) -> HandoverMessage | None:
        """The state of a TLS session can't be sent, nor half a PROXY header."""
        if self._owed is not _NOTHING or self._security.seal is not None:
            return None
        return super().parcel()

    def resume(self, parcel: HandoverMessage) -> None:
        if self._owed is _PROXY:  # it was read where this comes from, and is in the environ
            self._header = None
            self._know_peer(parcel.since)
        super().resume(parcel)

    def flush(self) -> None:
        if self._owed is _HANDSHAKE:
            tls = self._tls
            assert tls is not None
            with contextlib.suppress(OSError):
                tls.push()
            return
        super().flush()

    def _file_sender(self) -> SendFile:
        return super()._file_sender() if self._tls is None else self._tls.send_file

    def settle(self, now: float, leaving: float = 0.0) -> NextStep:
        tls = self._tls
        if self._owed is _NOTHING:
            wish = super().settle(now, leaving)
            if tls is not None and tls.ended and wish in _WAITING and self._lingering is None:
                return NextStep.CLOSE  # the epoll would not tell of it
            return wish
        if self.broken:
            return NextStep.CLOSE
        if self._owed is _PROXY:
            timeout = self._rules.header_timeout
        else:
            timeout = self._security.handshake_timeout
        self.deadline = self._since + timeout if timeout else 0.0
        if leaving and (not self.deadline or leaving < self.deadline):
            self.deadline = leaving
        return NextStep.WRITE if tls is not None and tls.unsent else NextStep.READ

    def close(self) -> None:
        # Not where an answer was cut: its client has to see that.
        if self._tls is not None and self._owed is _NOTHING and self.unsent is None:
            self._tls.farewell()
        super().close()
