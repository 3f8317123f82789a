"""The grammar of addresses: what is taken, its canonical text, and why the rest is refused."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.address import UNIX_PATH_MAX, Address, parse


@pytest.mark.parametrize(
    ("text", "address", "canonical"),
    [
        ("127.0.0.1:8000", Address("tcp", host="127.0.0.1", port=8000), "127.0.0.1:8000"),
        (":8000", Address("tcp", host="0.0.0.0", port=8000), "0.0.0.0:8000"),
        ("0.0.0.0:0", Address("tcp", host="0.0.0.0"), "0.0.0.0:0"),
        ("LocalHost:080", Address("tcp", host="localhost", port=80), "localhost:80"),
        ("my_db.example-1.org.:1", Address("tcp", "my_db.example-1.org.", 1), None),
        ("[::]:65535", Address("tcp", host="::", port=65535), "[::]:65535"),
        ("[0:0::0:1]:80", Address("tcp", host="::1", port=80), "[::1]:80"),
        ("[FE80::1%eth0]:80", Address("tcp", host="fe80::1%eth0", port=80), "[fe80::1%eth0]:80"),
        ("unix:/run/a b.sock", Address("unix", path="/run/a b.sock"), "unix:/run/a b.sock"),
        ("unix:run/a.sock", Address("unix", path="run/a.sock"), "unix:run/a.sock"),
        ("unix:@name", Address("abstract", path="name"), "unix:@name"),
        ("fd:3", Address("fd", number=3), "fd:3"),
        ("fd:007", Address("fd", number=7), "fd:7"),
        ("systemd", Address("systemd"), "systemd"),
        ("systemd:web", Address("systemd", path="web"), "systemd:web"),
    ],
)
def test_takes(text: str, address: Address, canonical: str | None) -> None:
    assert parse(text) == address
    assert str(address) == (canonical or text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("8000", "no port; write :8000"),
        ("localhost", "no port; write localhost:8000"),
        ("/run/a.sock", "for a path write unix:/run/a.sock"),
        ("a:", 'the port "" is not a number from 0 to 65535'),
        ("a:65536", 'the port "65536" is not a number'),
        ("a:-1", 'the port "-1"'),
        ("a:+1", 'the port "+1"'),
        ("a:1_0", 'the port "1_0"'),
        ("a:²", 'the port "²"'),
        ("a:http", 'the port "http"'),
        ("http://a:80", "this is a URL; write host:port"),
        ("*:80", "write :PORT"),
        ("::1:80", "in brackets"),
        ("[::1]", "in brackets"),
        ("[::1:80", "in brackets"),
        ("[]:80", '"" is not an IPv6 address'),
        ("[1.2.3.4]:80", '"1.2.3.4" is not an IPv6 address'),
        ("1.2.3:80", '"1.2.3" is not an IPv4 address'),
        ("1.2.3.256:80", '"1.2.3.256" is not an IPv4 address'),
        ("a b:80", '"a b" is not a host name'),
        ("-a:80", '"-a" is not a host name'),
        ("a..b:80", '"a..b" is not a host name'),
        ("bücher:80", '"bücher" is not a host name'),
        ("a\n:80", "control or unprintable"),
        ("unix:/a\0b", "control or unprintable"),
        ("unix:", "no path"),
        ("unix:@", "no path"),
        ("unix:/run/", "ends with a slash"),
        ("fd:", "as in fd:3"),
        ("fd:-1", "as in fd:3"),
        ("fd:²", "as in fd:3"),
        ("fd:2147483648", "as in fd:3"),
        ("systemd:", "no name"),
        ("systemd:a:b", "no colon"),
        ("systemd:" + "a" * 256, "at most 255"),
        ("systemdx", "no port"),
    ],
)
def test_refuses_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the reason is compared below
        parse(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["/", "@", "/ä"])
def test_a_unix_name_has_at_most_107_bytes(prefix: str) -> None:
    fits = UNIX_PATH_MAX - len(prefix.removeprefix("@").encode())
    assert parse(f"unix:{prefix}{'a' * fits}")
    with pytest.raises(ValueError, match="108 bytes is too long"):
        parse(f"unix:{prefix}{'a' * (fits + 1)}")


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("127.0.0.1:1", socket.AF_INET),
        ("[::1]:1", socket.AF_INET6),
        ("localhost:1", socket.AF_UNSPEC),
        ("unix:/a", socket.AF_UNIX),
        ("unix:@a", socket.AF_UNIX),
        ("fd:3", socket.AF_UNSPEC),
        ("systemd", socket.AF_UNSPEC),
    ],
)
def test_family(text: str, family: socket.AddressFamily) -> None:
    assert parse(text).family is family


_hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.from_regex(r"[a-zA-Z][a-zA-Z0-9]{0,20}(\.[a-z]{2,5})?", fullmatch=True),
    st.just(""),
)
_texts = st.one_of(
    st.tuples(_hosts, st.integers(0, 65535)).map(lambda pair: f"{pair[0]}:{pair[1]}"),
    st.from_regex(r"unix:[@/][a-z/]{0,50}[a-z]", fullmatch=True),
    st.integers(0, 2**31 - 1).map(lambda number: f"fd:{number}"),
)


@given(_texts)
def test_canonical_text_reads_back_as_the_same_address(text: str) -> None:
    address = parse(text)
    assert parse(str(address)) == address
    assert str(parse(str(address))) == str(address)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse(text)
    except ValueError:
        return
    assert parse(str(address)) == address
