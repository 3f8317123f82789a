"""Settings of the unit tests."""

import os
from collections.abc import Iterator

import pytest

from prefork.scoreboard.board import Scoreboard


@pytest.fixture(autouse=True)
def _scoreboards_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server keeps its own for life; those of thousands of tests would be more descriptors than
    a process may have, and than select(2) takes."""
    made: list[Scoreboard] = []
    create = Scoreboard.__init__

    def created(self: Scoreboard, fd: int | None = None) -> None:
        create(self, fd)
        made.append(self)

    monkeypatch.setattr(Scoreboard, "__init__", created)
    yield
    for fd in {fd for board in made for fd in (board.fd, board._readable)} - {-1}:
        os.close(fd)
