"""The output of a response, and its progress bar."""

import os
import shutil
import time
from collections.abc import Callable
from typing import TextIO

from prefork.client.exchange import ClientResponse


class Progress:
    """A line on a terminal, drawn at most ten times a second."""

    def __init__(
        self, stream: TextIO, total: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`total`: bytes; None if it is not known."""
        self._stream = stream
        self._total = total
        self._clock = clock
        self._start = self._drawn = clock()
        self._done = 0

    def advance(self, count: int) -> None:
        """`count` more bytes were received."""
        self._done += count
        if self._clock() - self._drawn >= 0.1:
            self._draw()

    def finish(self) -> None:
        """Draws the last state, which stays on the terminal."""
        self._draw()
        self._stream.write("\n")
        self._stream.flush()

    def _draw(self) -> None:
        self._drawn = self._clock()
        width = shutil.get_terminal_size().columns - 1
        line = progress_line(self._done, self._total, self._drawn - self._start, width)
        self._stream.write(f"\r{line}")
        self._stream.flush()


def progress_line(done: int, total: int | None, seconds: float, width: int) -> str:
    """`[#####     ]  50%  1.0 MiB of 2.0 MiB  512.0 KiB/s`, filled up to `width` columns."""
    rate = f"{size(done / seconds)}/s" if seconds > 0 else ""
    if not total:
        return f"{size(done)}  {rate}"[:width].ljust(width)
    share = min(1.0, done / total)
    text = f" {share:4.0%}  {size(done)} of {size(total)}  {rate}"
    room = width - len(text) - 2
    if room < 1:
        return text.strip()[:width].ljust(width)
    return f"[{'#' * int(share * room):<{room}}]{text}"


def size(count: float) -> str:
    """Bytes in the largest unit that leaves at least 1."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def write(
    response: ClientResponse, sink: int, *, include: bool = False, bar: Progress | None = None
) -> None:
    """Writes the body to a descriptor as it is received; with `include`, the head before it.

    Raises ClientError for a failure of the connection, OSError for a failure of `sink`.
    """
    if include:
        write_all(sink, response.head)
    try:
        for piece in response:
            write_all(sink, piece)
            if bar is not None:
                bar.advance(len(piece))
    finally:
        if bar is not None:
            bar.finish()


def write_all(fd: int, data: bytes) -> None:
    """Writes without a buffer, so that nothing is left that could fail at exit."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
