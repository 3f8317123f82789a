"""Heads with a long line: found, split and read as `bytes` does it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prefork.http.long_lines import find_empty_line, plain_text, split_lines

PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"a", b"Cookie: x", b"c" * 50, b"c" * 400])
).map(b"".join)


@given(PIECES)
@example(b"")
@example(b"GET / HTTP/1.1\r\nA: b\r\n\r\nCookie: " + b"c" * 400 + b"\r\n\r\n")
@example(b"A: b\r\nCookie: " + b"c" * 400 + b"\r\n\r\nA: b\r\n\r\n")
def test_the_empty_line_is_where_it_is_without_a_long_line(data: bytes) -> None:
    assert find_empty_line(data) == data.find(b"\r\n\r\n")


@given(PIECES)
@example(b"A: b\r\nCookie: " + b"c" * 400)
@example(b"A: b\r\nCookie: " + b"c" * 400 + b"\r")
@example(b"A: b\nCookie: " + b"c" * 400 + b"\n\r\nA: b")
def test_the_lines_are_those_without_a_long_line(data: bytes) -> None:
    lines, number = split_lines(data)
    assert lines == data.split(b"\r\n")
    assert not number or lines[number] == max(lines, key=len)


@pytest.mark.parametrize("before", range(18))
def test_text_is_plain_if_each_byte_is(before: int) -> None:
    for byte in range(256):
        data = b"a" * before + bytes([byte]) + b"b" * 40
        plain = chr(byte).isascii() and chr(byte).isprintable() and byte not in b'"\\'
        assert plain_text(data) == (data.decode() if plain else None)


@pytest.mark.parametrize("data", [b"", b"c" * 4096])
def test_text_of_any_length_is_plain(data: bytes) -> None:
    assert plain_text(data) == data.decode()


@pytest.mark.parametrize("data", [rb"\"", rb"a\u0041", rb"\/", b'a" ', b'"', b"a\\"])
def test_text_is_not_taken_for_json(data: bytes) -> None:
    assert plain_text(data) is None
