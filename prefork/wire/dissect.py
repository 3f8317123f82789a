"""From bytes to packets: scapy parses the formats, and the fields that are needed are taken."""

import struct
from typing import Any

from scapy.config import conf
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet as Layers

from prefork.wire.packet import Endpoint, Flags, Frame, Packet, http_lines

_WITH_VALUE = {"MSS": "MSS", "WScale": "window scale"}
_NAMES = {
    "SAckOK": "SACK permitted",
    "Timestamp": "timestamps",
    "AltChkSum": "other checksum",
    "AltChkSumOpt": "other checksum data",
    "MD5": "MD5 signature",
    "TFO": "fast open",
    "AO": "authentication",
    "UTO": "user timeout",
    **_WITH_VALUE,
}

# The exceptions of scapy for truncated or forged bytes.
_MALFORMED = (struct.error, ValueError, IndexError, TypeError, KeyError, OSError)


def unwrap(data: bytes, link: int) -> bytes | None:
    """The bytes of a file's frame from the IP header on; None if it is not IP.

    link: a LINKTYPE_ number (tcpdump.org/linktypes.html).

    Raises ValueError for an unknown link type.
    """
    kind = conf.l2types.num2layer.get(link)
    if kind is None:
        raise ValueError(f"unknown link type {link}")
    layers = _layers(kind, data)
    ip = None if layers is None else layers.getlayer(IP) or layers.getlayer(IPv6)
    return None if ip is None else bytes(ip.original)


def dissect(frame: Frame) -> Packet | None:
    """The TCP segment in a frame; None if there is none, or if it is malformed."""
    version = frame.data[0] >> 4 if frame.data else 0
    kind = {4: IP, 6: IPv6}.get(version)
    layers = None if kind is None else _layers(kind, frame.data)
    tcp = None if layers is None else layers.getlayer(TCP)
    if tcp is None or len(tcp.original) < 20:
        return None
    ip = _carrier(tcp)
    header = 4 * max(5, tcp.dataofs or 0)
    payload = tcp.original[header:]
    return Packet(
        at=frame.at,
        source=Endpoint(ip.src, tcp.sport),
        target=Endpoint(ip.dst, tcp.dport),
        flags=Flags(int(tcp.flags) & 0xFF),
        seq=tcp.seq,
        ack=tcp.ack,
        window=tcp.window,
        length=_tcp_length(ip, tcp) - header,
        options=tuple(_options(tcp.options)),
        sack=tuple(_sack(tcp.options)),
        lines=http_lines(payload),
        interface=frame.interface,
    )


def _layers(kind: type[Layers], data: bytes) -> Layers | None:
    try:
        return kind(data)
    except _MALFORMED:
        return None


def _carrier(tcp: Layers) -> Any:
    """The IP layer below TCP, before IPv6 extension headers."""
    layer: Any = tcp.underlayer
    while not isinstance(layer, IP | IPv6):
        layer = layer.underlayer
    return layer


def _tcp_length(ip: Any, tcp: Any) -> int:
    """Bytes of header and data by the IP header: the frame may be truncated, or padded."""
    if isinstance(ip, IP):
        # 0 in a segment for the network card to split (TCP segmentation offload).
        total = ip.len or len(ip.original)
        return int(total) - 4 * int(ip.ihl)
    extensions = len(ip.payload.original) - len(tcp.original)
    return int(ip.plen or len(ip.original) - 40) - extensions


def _options(options: list[tuple[Any, Any]]) -> list[str]:
    """The names of the options of RFC 9293 section 3.2 and later RFCs, without padding."""
    named = []
    for name, value in options:
        # The value of a forged option of any length is bytes.
        if name in _WITH_VALUE and isinstance(value, int):
            named.append(f"{_WITH_VALUE[name]} {value}")
        elif name not in ("NOP", "EOL", "SAck"):
            named.append(_NAMES.get(name, f"option {name}"))
    return named


def _sack(options: list[tuple[Any, Any]]) -> list[tuple[int, int]]:
    """The ranges of selective acknowledgments (RFC 2018)."""
    found = [value for name, value in options if name == "SAck" and isinstance(value, tuple)]
    return [pair for edges in found for pair in zip(edges[::2], edges[1::2], strict=False)]
