"""Detects forwarded headers that are dropped though a proxy may mean them.

From a peer that is not trusted they are dropped as those of any client are. If the peer is on this
machine, it is most likely a proxy, and http.trusted_proxies is not set: then the application sees
http for https.

From a trusted proxy only those that http.trusted_headers names are believed. One that it does not
name may be set by the proxy, or be what a client has sent through it.
"""

from collections.abc import Callable, Iterable
from ipaddress import ip_address

_SIGNIFICANT = (b"\nx-forwarded-proto:", b"\nx-forwarded-for:")


class UntrustedProxyDetector:
    """Inspects requests of which a header was dropped, until it has reported one."""

    def __init__(self) -> None:
        self.report: Callable[[str, str], None] | None = None
        """Called once at most, with the entry that http.trusted_proxies lacks, and with the name of
        the header. None: nothing is inspected."""
        self.report_header: Callable[[str, str], None] | None = None
        """The same for a trusted proxy, with its address."""
        self.disbelieved: tuple[bytes, ...] = ()
        """The beginnings of lines with headers that are not believed, each after a line feed."""

    def inspect(self, peer: str, head: bytes) -> None:
        """Reports the peer if it is on this machine and sends X-Forwarded-Proto or -For.

        peer: an address, or empty for the peer of a Unix socket. head: the head of the request, or
        the beginning of it.
        """
        report = self.report
        if report is None or (peer and not _is_loopback(peer)):
            return
        lower = head.lower()
        for name in _SIGNIFICANT:
            if name in lower:
                self.report = None
                report(peer or "unix", name[1:-1].decode().title())
                return

    def inspect_trusted(self, peer: str, head: bytes) -> None:
        """Reports a header of a trusted proxy that is not believed; as `inspect`."""
        report = self.report_header
        if report is None:
            return
        lower = head.lower()
        for name in self.disbelieved:
            if name in lower:
                self.report_header = None
                report(peer or "unix", name[1:-1].decode().title())
                return


def disbelieved(known: Iterable[str], believed: Iterable[str]) -> tuple[bytes, ...]:
    """What `UntrustedProxyDetector.disbelieved` has for these names of headers."""
    return tuple(f"\n{name.lower()}:".encode() for name in known if name not in set(believed))


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


untrusted_proxies = UntrustedProxyDetector()
"""The detector of this process."""
