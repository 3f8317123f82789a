"""The kernel's own answer to which packets of a port pass; no rights are needed for that.

The filter runs on whatever a socket receives: here, packets as datagrams of a Unix socket.
"""

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from prefork.linux import attach_filter
from prefork.wire.filter import capture_filter, port_filter

PORT = 8000
V4 = "127.0.0.1"
V6 = "::1"
# Eight bytes of options: the ports do not stand at a fixed place.
OPTIONS = [b"\x07\x04\x04\x00\x01\x01\x01\x00"]


@pytest.fixture
def through() -> Iterator[tuple[socket.socket, socket.socket]]:
    into, out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with into, out:
        attach_filter(out, port_filter(PORT))
        yield into, out


def passes(through: tuple[socket.socket, socket.socket], packet: bytes) -> bool:
    into, out = through
    # A Unix socket tells the sender where the filter of the other end has dropped it: with EPERM.
    with contextlib.suppress(PermissionError):
        into.send(packet)
    try:
        return out.recv(65536, socket.MSG_DONTWAIT) == packet
    except BlockingIOError:
        return False


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=V4, dst=V4) / TCP(sport=50000, dport=PORT),
        IP(src=V4, dst=V4) / TCP(sport=PORT, dport=50000) / (b"x" * 5000),
        IP(src=V4, dst=V4, options=OPTIONS) / TCP(sport=50000, dport=PORT),
        IPv6(src=V6, dst=V6) / TCP(sport=50000, dport=PORT),
        IPv6(src=V6, dst=V6) / TCP(sport=PORT, dport=50000) / b"x",
    ],
    ids=["to", "from", "behind IP options", "to, v6", "from, v6"],
)
def test_the_ports_own_packets_pass(
    through: tuple[socket.socket, socket.socket], packet: IP | IPv6
) -> None:
    assert passes(through, bytes(packet))


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=V4, dst=V4) / TCP(sport=50000, dport=PORT + 1),
        IPv6(src=V6, dst=V6) / TCP(sport=PORT - 1, dport=50000),
        IP(src=V4, dst=V4) / UDP(sport=PORT, dport=PORT),
        IPv6(src=V6, dst=V6) / UDP(sport=PORT, dport=PORT),
        IP(src=V4, dst=V4) / ICMP(),
        IP(src=V4, dst=V4, frag=100) / TCP(sport=PORT, dport=PORT),
        b"\x45",
        b"\x15" + bytes(60),
    ],
    ids=["port", "port, v6", "UDP", "UDP, v6", "ICMP", "fragment", "cut", "neither 4 nor 6"],
)
def test_nothing_else_does(
    through: tuple[socket.socket, socket.socket], packet: IP | IPv6 | bytes
) -> None:
    assert not passes(through, bytes(packet))


def test_the_kernel_takes_the_filter_of_a_capture_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        attach_filter(sock, capture_filter(PORT))


def test_the_kernel_refuses_what_is_no_program() -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        pytest.raises(OSError, match="Invalid") as caught,
    ):
        attach_filter(sock, [(0x05, 0, 0, 1000), *(port_filter(PORT)[:2])])
    assert caught.value.errno == errno.EINVAL


def test_jumps_fit_their_eight_bits() -> None:
    for code, true, false, _ in capture_filter(65535):
        assert 0 <= true < 256
        assert 0 <= false < 256
        # struct.pack of attach_filter would refuse more.
        struct.pack("=H", code)
