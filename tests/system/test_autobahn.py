"""The cases of the Autobahn test suite: sections 1 to 7 and 10 here, the others by night.

Those with large messages and compression take minutes: `make autobahn`, or `make nightly`.
"""

from pathlib import Path

import pytest

from tests.support.autobahn import run_cases
from tests.support.server import Start

PROTOCOL = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")


def test_the_protocol(start: Start, tmp_path: Path) -> None:
    server = start("tests.apps.asgi_websockets:app", "--set", "server.protocol=asgi")
    server.wait("worker ready")
    verdicts = run_cases(server, "/echo", tmp_path / "reports", *PROTOCOL, seconds=100)
    assert len(verdicts.cases) == 247
    assert verdicts.failed == []
    assert server.other == []


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("section", "count"), [("9", 54), ("12", 90), ("13", 126)])
def test_large_and_compressed_messages(
    start: Start, tmp_path: Path, section: str, count: int
) -> None:
    server = start(
        *("tests.apps.asgi_websockets:app", "--set", "server.protocol=asgi"),
        *("--set", "websocket.max_message=32MiB"),
    )
    server.wait("worker ready")
    verdicts = run_cases(server, "/echo", tmp_path / "reports", f"{section}.*", seconds=7000)
    assert len(verdicts.cases) == count
    assert verdicts.failed == []
    assert server.other == []
