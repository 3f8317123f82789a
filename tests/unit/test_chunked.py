"""The chunked coding: what a piece of it brings, and where it ends."""

import pytest

from prefork.http.chunked import ChunkedDecoder
from prefork.http.field_lines import FieldLines
from prefork.http.limits import RequestLimits

LINES = FieldLines()
LIMITS = RequestLimits(1000, 10, 1000, 10_000, 0)


def decoder(limits: RequestLimits = LIMITS) -> ChunkedDecoder:
    return ChunkedDecoder(LINES, limits)


def test_the_body_and_its_end_are_found_in_the_middle_of_a_piece() -> None:
    chunks = decoder()
    data = b"head3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nX: 1\r\n\r\nnext"
    assert b"".join(chunks.feed(data, 4)) == b"abcd"
    assert chunks.end == len(data) - 4
    assert chunks.size == 4
    assert chunks.problem is None
    assert chunks.held == 0


def test_a_piece_without_an_end() -> None:
    chunks = decoder()
    assert chunks.feed(b"5\r\nab") == [b"ab"]
    assert (chunks.end, chunks.held) == (-1, 0)
    assert chunks.feed(b"cde\r") == [b"cde"]
    assert chunks.feed(b"\n1;name") == []
    assert chunks.held == len(b"1;name")
    assert chunks.feed(b"=value\r") == []
    assert chunks.held == len(b"1;name=value\r")
    assert chunks.feed(b"\nf\r\n0\r\n\r") == [b"f"]
    assert chunks.end == -1
    assert chunks.feed(b"\nrest") == []
    assert chunks.end == 1


def test_chunks_of_each_size() -> None:
    for size in (1, 15, 16, 255, 256, 1023, 1024, 4096):
        for form in (b"%x", b"%X", b"00%x"):
            data = (form % size + b"\r\n" + b"x" * size + b"\r\n") * 2 + b"0\r\n\r\n"
            for piece in (1, 3, len(data)):
                chunks = decoder()
                body = b"".join(
                    part
                    for at in range(0, len(data), piece)
                    for part in chunks.feed(data[at : at + piece])
                )
                assert body == b"x" * 2 * size
                assert chunks.end > 0


def test_what_came_before_a_fault_is_given_out() -> None:
    """An application that reads the body while it comes may have a use for it."""
    chunks = decoder()
    assert chunks.feed(b"3\r\nabc\r\nzz\r\n") == [b"abc"]
    assert chunks.problem is not None
    assert chunks.problem.status == 400
    assert chunks.problem.__traceback__ is None
    assert chunks.end == -1


def test_a_body_over_the_limit_is_refused_by_the_size_of_its_chunk() -> None:
    chunks = decoder()
    assert chunks.feed(b"2711\r\n") == []
    assert chunks.problem is not None
    assert chunks.problem.status == 413
    chunks = decoder()
    assert chunks.feed(b"2710\r\n") == []
    assert chunks.problem is None
    assert decoder(LIMITS._replace(body=0)).feed(b"ffffffffffffffff\r\nab") == [b"ab"]


@pytest.mark.parametrize("line", [b"1;" + b"a" * 20_000, b"0\r\n" + b"X: " + b"a" * 2000])
def test_what_is_held_is_bounded(line: bytes) -> None:
    chunks = decoder()
    for at in range(0, len(line), 100):
        chunks.feed(line[at : at + 100])
        assert chunks.held <= 1000 + 16 * 1024 + 100
        if chunks.problem is not None:
            break
    assert chunks.problem is not None
    assert chunks.problem.status == 431


def test_a_control_character_is_refused_before_its_line_ends() -> None:
    for data in (b"1\n", b"1\rx", b"1;a=\0", b"0\r\n\n", b"0\r\nX: \x01"):
        for piece in (1, len(data)):
            chunks = decoder()
            for at in range(0, len(data), piece):
                if chunks.problem is None:
                    chunks.feed(data[at : at + piece])
            assert chunks.problem is not None
            assert chunks.problem.status == 400
