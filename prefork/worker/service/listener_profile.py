"""What the HTTP service knows of one listener; the same for all its connections."""

import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from prefork.config import Config
from prefork.http.forwarded import Trusts
from prefork.http.head_rules import Reject
from prefork.http.reader import Peer
from prefork.http.request import Environ
from prefork.http.whole_heads import WholeHeads
from prefork.listeners import Listener
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.service.admission import holder_of
from prefork.worker.transport.client_limits import ClientLimits

if TYPE_CHECKING:
    from ssl import SSLContext


Connect = Callable[[socket.SocketType, Environ, Peer, ClientLimits, float], HttpConnection]
"""Creates the connection object of an accepted socket."""


class ListenerProfile(Struct, frozen=True):
    """One listener, as the HTTP service sees it."""

    environ: Environ
    """What the environ of each request at this listener begins with."""
    connect: Connect
    heads: WholeHeads | None
    """None with trusted proxies: heads are not read alike there."""
    trusts: Trusts | None = None
    """Which peers are proxies that speak for many clients."""
    tls: bool = False

    def sharing_address(self, peer: Peer) -> str:
        """The address or network that a connection of this peer counts for; empty for none.

        A proxy has no share of its own: its clients would have to divide it.
        """
        address = peer[0]
        return "" if self.trusts is not None and self.trusts(address) else holder_of(address)


def listener_profile(
    listener: Listener,
    config: Config,
    tls: "SSLContext | None",
    environ: Mapping[str, object],
    admit: Callable[[HttpConnection, str], Reject | None],
    kind: type[HttpConnection] = HttpConnection,
) -> ListenerProfile:
    """The profile of a listener.

    `environ`: what does not depend on the listener.  `admit`: why a client is refused that a PROXY
    header has named, or None; see `Admission.admit_proxied`.  `kind`: of its connections.
    """
    server = _server_address(listener)
    if config.tls.certificate is None and not config.http.trusted_proxies:
        return ListenerProfile(base_environ(server, environ), kind, WholeHeads())
    from prefork.worker.protocol.connection_opening import security

    secured = security(config, str(listener.address), tls, admit)
    if secured is None:
        return ListenerProfile(base_environ(server, environ), kind, WholeHeads())
    sealed = secured.seal is not None
    return ListenerProfile(
        base_environ(server, environ, tls=sealed),
        partial(secured.connect, kind),
        heads=None if config.http.trusted_proxies else WholeHeads(),
        trusts=secured.trusts,
        tls=sealed,
    )


def _server_address(listener: Listener) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT, which CGI wants even if there is no port (RFC 3875)."""
    if not listener.is_tcp:
        return "localhost", "80"
    host, port = listener.sock.getsockname()[:2]
    return host, str(port)


def base_environ(
    server: tuple[str, str], more: Mapping[str, object], *, tls: bool = False
) -> Environ:
    """What the environ of every request at one listener begins with; `server`: name and port."""
    name, port = server
    return {
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "REMOTE_ADDR": "",
        "REMOTE_PORT": "",
        "SCRIPT_NAME": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if tls else "http",
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        **({"HTTPS": "on"} if tls else {}),
        **more,
    }
