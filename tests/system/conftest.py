"""Fixtures of the tests with real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, Start, servers


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers: `start("tests.apps.basic:app", "--workers", "2")`."""
    yield from servers(tmp_path)


@pytest.fixture
def prefork_server(start: Start) -> Server:
    """A server of `tests.apps.basic` with two workers, ready."""
    return start("tests.apps.basic:app", "--workers", "2").wait_ready(2)
