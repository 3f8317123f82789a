"""Segments: how flags and endpoints are named, and which HTTP heads begin in one."""

import pytest

from prefork.wire.packet import Endpoint, Flags, http_lines


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (0x02, "SYN"),
        (0x12, "SYN,ACK"),
        (0x18, "PSH,ACK"),
        (0x11, "FIN,ACK"),
        (0x14, "RST,ACK"),
        (0xC2, "SYN,ECE,CWR"),
        (0x39, "FIN,PSH,ACK,URG"),
        (0, ""),
    ],
)
def test_flags_are_named(flags: int, shown: str) -> None:
    assert str(Flags(flags)) == shown


def test_an_ipv6_endpoint_has_brackets() -> None:
    assert str(Endpoint("::1", 80)) == "[::1]:80"
    assert str(Endpoint("127.0.0.1", 80)) == "127.0.0.1:80"


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"GET /a?b=1 HTTP/1.1\r\nHost: x\r\n\r\n", ("GET /a?b=1 HTTP/1.1",)),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", ("HTTP/1.1 404 Not Found",)),
        (b"HTTP/1.0 200\r\n\r\n", ("HTTP/1.0 200",)),
        (
            b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: x\r\n\r\n",
            ("GET /1 HTTP/1.1", "HEAD /2 HTTP/1.1"),
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbody",
            ("HTTP/1.1 100 Continue", "HTTP/1.1 200 OK"),
        ),
        (b"GET /cut", ("GET /cut",)),
        (b"", ()),
        (b"hello\r\nGET / HTTP/1.1\r\n", ()),
        (b"GETTING on\r\n\r\n", ()),
        (b"\x16\x03\x01\x02\x00\x01", ()),
        (b"HTTP/1.1 200 \x1b[31m\xff\r\n\r\n", (r"HTTP/1.1 200 \x1b[31m\xff",)),
    ],
)
def test_http_lines(data: bytes, lines: tuple[str, ...]) -> None:
    assert http_lines(data) == lines


def test_a_long_line_is_cut() -> None:
    (line,) = http_lines(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n")
    assert line == "GET /" + "a" * 52 + "..."
    assert len(line) == 60
