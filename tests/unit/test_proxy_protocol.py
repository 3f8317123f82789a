"""The PROXY protocol: headers of both versions, whole, cut and wrong."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.http.proxy_protocol import V2_LIMIT, ProxyError, ProxyHeader, read

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, family, size) + body


V4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + struct.pack("!HH", 5000, 443)
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 65535, 443)
)
TLVS = b"\x01\0\x02h2\x02\0\x03abc"

GOOD = [
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n", ("192.0.2.1", "5000")),
    (b"PROXY TCP6 2001:DB8:0::1 2001:db8::2 65535 0\r\n", ("2001:db8::1", "65535")),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n", ("192.0.2.1", "1")),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f::ffff ffff::ffff 65535 65535\r\n", None),
    (v2(0x21, 0x11, V4), ("192.0.2.1", "5000")),
    (v2(0x21, 0x11, V4 + TLVS), ("192.0.2.1", "5000")),
    (v2(0x21, 0x21, V6), ("2001:db8::1", "65535")),
    (v2(0x21, 0x21, V6 + b"x" * (V2_LIMIT - len(V6))), ("2001:db8::1", "65535")),
    (v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") + b"\0" * 108), ("", "")),
    (v2(0x20, 0x00, b""), None),
    (v2(0x20, 0x11, V4), None),  # LOCAL: whatever addresses there are say nothing
    (v2(0x21, 0x00, TLVS), None),  # unspecified
    (v2(0x21, 0x12, V4), None),  # a datagram's
]

BAD = [
    b"GET / HTTP/1.1\r\n",
    b"PROXX",
    b"proxy TCP4 192.0.2.1 192.0.2.2 5000 443\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\n",
    b"PROXY  TCP4 192.0.2.1 192.0.2.2 5000 443\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 5000\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443 \r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.2 5000 443\r\n",
    b"PROXY TCP4 192.0.2.1 nowhere 5000 443\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 05000 443\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 5000 443\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 5000 443\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 5000 443\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY UNKNOWN " + b"x" * 93,
    b"PROXY " + b"x" * 200,
    v2(0x22, 0x11, V4),
    v2(0x11, 0x11, V4),
    v2(0x21, 0x11, V4[:-1]),
    v2(0x21, 0x21, V4),
    v2(0x21, 0x31, V6),
    v2(0x21, 0x11, b"", length=V2_LIMIT + 1),
]


@pytest.mark.parametrize(("data", "source"), GOOD)
@pytest.mark.parametrize("after", [b"", b"GET / HTTP/1.1\r\n", b"\n\xff"])
def test_a_header_is_read_and_what_follows_is_not_its_own(
    data: bytes, source: tuple[str, str] | None, after: bytes
) -> None:
    assert read(data + after) == ProxyHeader(len(data), source)


@pytest.mark.parametrize("data", [data for data, _ in GOOD])
def test_a_part_of_a_header_waits_for_the_rest(data: bytes) -> None:
    for size in range(len(data)):
        assert read(data[:size]) is None


@pytest.mark.parametrize("data", BAD)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyError):
        read(data)


@given(st.one_of(st.binary(max_size=300), st.sampled_from([data for data, _ in GOOD])), st.data())
def test_any_bytes_are_read_the_same_whole_and_cut(data: bytes, draw: st.DataObject) -> None:
    """A part may only wait, or be refused where the whole is; nothing else is ever raised."""

    def outcome(part: bytes) -> ProxyHeader | str | None:
        try:
            return read(part)
        except ProxyError:
            return "refused"

    flip = draw.draw(st.integers(0, max(len(data) - 1, 0)))
    bent = bytearray(data)
    if bent:
        bent[flip] ^= draw.draw(st.integers(0, 255))
    whole = outcome(bytes(bent))
    for size in range(len(bent)):
        part = outcome(bytes(bent[:size]))
        assert part is None or part == whole
