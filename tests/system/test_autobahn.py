"""The cases of the Autobahn test suite: sections 1 to 7 and 10 here, the others by night.

The night's are those with large messages and compression: `make autobahn`.
"""

from pathlib import Path

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
