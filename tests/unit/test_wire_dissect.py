"""Bytes to packets, whole, cut, padded or forged."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, PadN
from scapy.layers.l2 import Dot1Q, Ether

from prefork.wire.dissect import dissect, unwrap
from prefork.wire.packet import Endpoint, Flags, Frame, Packet

V4 = IP(src="127.0.0.1", dst="127.0.0.2")
V6 = IPv6(src="::1", dst="2001:db8::1")
SEGMENT = TCP(sport=50000, dport=8000, flags="PA", seq=2**32 - 1, ack=7, window=512)
GET = b"GET / HTTP/1.1\r\n\r\n"


def seen(packet: object) -> Packet:
    found = dissect(Frame(5, bytes(packet), "lo"))  # type: ignore[call-overload]
    assert found is not None
    return found


def test_all_fields() -> None:
    assert seen(V4 / SEGMENT / GET) == Packet(
        at=5,
        source=Endpoint("127.0.0.1", 50000),
        target=Endpoint("127.0.0.2", 8000),
        flags=Flags.PSH | Flags.ACK,
        seq=2**32 - 1,
        ack=7,
        window=512,
        length=len(GET),
        lines=("GET / HTTP/1.1",),
        interface="lo",
    )


def test_ipv6_with_extension_headers() -> None:
    extended = V6 / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 12)]) / IPv6ExtHdrDestOpt()
    for packet in (V6 / SEGMENT / GET, extended / SEGMENT / GET):
        found = seen(packet)
        assert (found.source, found.target) == (
            Endpoint("::1", 50000),
            Endpoint("2001:db8::1", 8000),
        )
        assert (found.length, found.lines) == (len(GET), ("GET / HTTP/1.1",))


def test_options_have_their_names() -> None:
    options = [
        ("MSS", 1460),
        ("SAckOK", b""),
        ("Timestamp", (1, 2)),
        ("NOP", None),
        ("WScale", 7),
        ("SAck", (10, 20, 30, 40)),
    ]
    found = seen(V4 / TCP(options=options) / b"x")
    assert found.options == ("MSS 1460", "SACK permitted", "timestamps", "window scale 7")
    assert found.sack == ((10, 20), (30, 40))
    assert found.length == 1


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b"\x02\x03\x05\x00", ("MSS",)),  # a value of one byte
        (b"\x05\x06\x00\x00\x00\x01\x00\x00", ()),  # half a pair
        (b"\xfd\x04\xab\xcd", ("option 253",)),
        (b"\x22\x06\xab\xcd\xef\x01\x00\x00", ("fast open",)),
    ],
)
def test_forged_and_unknown_options(raw: bytes, names: tuple[str, ...]) -> None:
    header = bytearray(bytes(TCP(sport=1, dport=2)))
    header[12] = (5 + len(raw) // 4) << 4
    packet = bytes(IP(src="1.1.1.1", dst="2.2.2.2", proto=6) / (bytes(header) + raw))
    assert seen(packet).options == names


def test_padding_of_a_short_ethernet_frame_is_no_data() -> None:
    frame = bytes(Ether() / V4 / TCP()) + bytes(6)
    inner = unwrap(frame, 1)
    assert inner is not None
    assert seen(inner).length == 0


def test_the_length_is_the_wires_where_the_frame_was_cut() -> None:
    assert seen(bytes(V4 / SEGMENT / (b"x" * 1000))[:60]).length == 1000
    assert seen(bytes(V6 / SEGMENT / (b"x" * 1000))[:80]).length == 1000


def test_a_segment_that_the_network_card_is_still_to_cut_up_has_no_length() -> None:
    packet = bytearray(bytes(V4 / SEGMENT / (b"x" * 1000)))
    packet[2:4] = b"\0\0"
    assert seen(bytes(packet)).length == 1000


def test_tcp_in_a_tunnel_has_the_inner_addresses() -> None:
    outer = IP(src="10.0.0.1", dst="10.0.0.2")
    assert seen(outer / V4 / SEGMENT).source == Endpoint("127.0.0.1", 50000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(40),
        bytes(V4 / UDP()),
        bytes(V4 / ICMP(type=3) / IPerror(src="1.1.1.1") / TCPerror(sport=8000)),
        bytes(V4 / SEGMENT)[:30],
    ],
    ids=["empty", "no IP", "UDP", "an error that quotes TCP", "cut in the TCP header"],
)
def test_what_is_no_segment(data: bytes) -> None:
    assert dissect(Frame(0, data)) is None


@pytest.mark.parametrize(
    ("link", "frame"),
    [
        (1, Ether() / V4 / SEGMENT),
        (1, Ether() / Dot1Q(vlan=3) / V6 / SEGMENT),
        (101, V4 / SEGMENT),
        (101, V6 / SEGMENT),
        (0, struct.pack("=I", 2) + bytes(V4 / SEGMENT)),
        (113, struct.pack("!HHH8sH", 0, 772, 6, bytes(8), 0x0800) + bytes(V4 / SEGMENT)),
        (276, struct.pack("!HHIHBB8s", 0x86DD, 0, 1, 772, 0, 6, bytes(8)) + bytes(V6 / SEGMENT)),
    ],
    ids=["ethernet", "vlan", "raw", "raw, v6", "BSD loopback", "Linux any", "Linux any, 2"],
)
def test_links(link: int, frame: object) -> None:
    inner = unwrap(bytes(frame), link)  # type: ignore[call-overload]
    assert inner is not None
    assert seen(inner).target.port == 8000


def test_a_frame_without_ip_and_an_unknown_link() -> None:
    assert unwrap(bytes(Ether(type=0x0806)), 1) is None
    with pytest.raises(ValueError, match="unknown link type 250"):
        unwrap(b"", 250)


@given(st.binary(max_size=200), st.sampled_from([b"\x45", b"\x60", b"\x4f", b"\x46", b""]))
def test_no_bytes_make_it_fail(data: bytes, first: bytes) -> None:
    dissect(Frame(0, first + data))
    for link in (0, 1, 101, 113, 276):
        unwrap(first + data, link)


@given(st.binary(max_size=80), st.sampled_from([V4, V6]), st.integers(0, 15))
def test_no_tcp_header_makes_it_fail(data: bytes, ip: IP | IPv6, offset: int) -> None:
    header = bytearray(20) + data
    header[12] = offset << 4
    upper = {"proto": 6} if isinstance(ip, IP) else {"nh": 6}
    packet = ip.copy()
    for name, value in upper.items():
        setattr(packet, name, value)
    found = dissect(Frame(0, bytes(packet / bytes(header))))
    assert found is None or found.length <= len(data)
