"""Detects forwarded headers from a peer on this machine that is not trusted.

These headers are dropped, as those of any client are. If the peer is on this machine, it is most
likely a proxy, and http.trusted_proxies is not set: then the application sees http for https.
"""

from collections.abc import Callable
from ipaddress import ip_address

_SIGNIFICANT = (b"\nx-forwarded-proto:", b"\nx-forwarded-for:")


class UntrustedProxyDetector:
    """Inspects requests of which a header was dropped, until it has reported one."""

    def __init__(self) -> None:
        self.report: Callable[[str, str], None] | None = None
        """Called once at most, with the entry that http.trusted_proxies lacks, and with the name of
        the header. None: nothing is inspected."""

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


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


untrusted_proxies = UntrustedProxyDetector()
"""The detector of this process."""
