"""Heads with a long line: found and split as `bytes` does it."""

from hypothesis import example, given
from hypothesis import strategies as st

from prefork.http.long_lines import find_empty_line, split_lines

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
    assert split_lines(data) == data.split(b"\r\n")
