"""Bytes to packets: scapy knows the formats, this takes from it what a conversation needs."""

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

# What scapy raises of its own accord on bytes that are cut or forged.
_MALFORMED = (struct.error, ValueError, IndexError, TypeError, KeyError, OSError)


def unwrap(data: bytes, link: int) -> bytes | None:
    """What a file's frame holds from the IP header on, None where that is no IP.

    `link` is a LINKTYPE_ number (tcpdump.org/linktypes.html); raises ValueError for one that
    is not known.
    """
    kind = conf.l2types.num2layer.get(link)
    if kind is None:
        raise ValueError(f"frames of link type {link} are not understood")
    layers = _layers(kind, data)
    ip = None if layers is None else layers.getlayer(IP) or layers.getlayer(IPv6)
    return None if ip is None else bytes(ip.original)


def dissect(frame: Frame) -> Packet | None:
    """The TCP segment in a frame, None where there is none that can be read."""
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
    """The IP layer just below, past IPv6 extension headers."""
    layer: Any = tcp.underlayer
    while not isinstance(layer, IP | IPv6):
        layer = layer.underlayer
    return layer


def _tcp_length(ip: Any, tcp: Any) -> int:
    """Bytes of header and data, by what IP says: the frame may be cut, or padded."""
    if isinstance(ip, IP):
        # 0 in a segment that the network card was to cut up (TCP segmentation offload).
        total = ip.len or len(ip.original)
        return int(total) - 4 * int(ip.ihl)
    extensions = len(ip.payload.original) - len(tcp.original)
    return int(ip.plen or len(ip.original) - 40) - extensions


def _options(options: list[tuple[Any, Any]]) -> list[str]:
    """The options of RFC 9293 section 3.2 and its successors, by name; padding is left out."""
    named = []
    for name, value in options:
        # A forged option may have any length; scapy then leaves it as bytes.
        if name in _WITH_VALUE and isinstance(value, int):
            named.append(f"{_WITH_VALUE[name]} {value}")
        elif name not in ("NOP", "EOL", "SAck"):
            named.append(_NAMES.get(name, f"option {name}"))
    return named


def _sack(options: list[tuple[Any, Any]]) -> list[tuple[int, int]]:
    """What has come beyond a gap (RFC 2018)."""
    found = [value for name, value in options if name == "SAck" and isinstance(value, tuple)]
    return [pair for edges in found for pair in zip(edges[::2], edges[1::2], strict=False)]
