"""The bar that shows how far an answer has come."""

import io
import itertools

import pytest

from prefork.client.output import Progress, progress_line, size


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2**30, "1.0 GiB"), (2**41, "2048.0 GiB")],
)
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown


def test_half_of_a_known_length() -> None:
    line = progress_line(1 << 20, 2 << 20, 2.0, 60)
    assert len(line) == 60
    bar, text = line[1:].split("]")
    assert text == "  50%  1.0 MiB of 2.0 MiB  512.0 KiB/s"
    assert bar.count("#") == len(bar) // 2


@pytest.mark.parametrize("total", [None, 0])
def test_an_unknown_length_shows_what_has_come(total: int | None) -> None:
    assert progress_line(2048, total, 1.0, 40).rstrip() == "2.0 KiB  2.0 KiB/s"


@pytest.mark.parametrize("width", [0, 5, 20, 79])
@pytest.mark.parametrize(("done", "total"), [(0, None), (5, 10), (11, 10), (10, 10)])
def test_a_line_never_wraps(done: int, total: int | None, width: int) -> None:
    for seconds in (0.0, 1.0):
        assert len(progress_line(done, total, seconds, width)) == width


def test_it_is_drawn_ten_times_a_second_and_at_the_end() -> None:
    # The clock: at the start, then at each advance, and again where a line is drawn.
    stream, clock = io.StringIO(), itertools.count(0.0, 0.03)
    bar = Progress(stream, 100, lambda: next(clock))
    for _ in range(10):
        bar.advance(10)
    drawn = stream.getvalue().count("\r")
    assert 1 <= drawn < 10
    bar.finish()
    assert "100%" in stream.getvalue().rsplit("\r", 1)[1]
    assert stream.getvalue().endswith("\n")
