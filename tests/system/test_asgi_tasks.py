"""The task in which an application is called is one that each library of asyncio expects."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.apps.start_checks import CHECKS
from tests.support.server import Server, servers


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    settings = ("server.protocol=asgi", "workers.count=1", f"workers.loop={request.param}")
    given = [part for setting in settings for part in ("--set", setting)]
    for start in servers(tmp_path_factory.mktemp("tasks")):
        yield start("tests.apps.start_checks:app", *given).wait_ready(1)


@pytest.mark.parametrize("check", CHECKS)
def test_a_call_is_a_task_like_any_other(server: Server, check: str) -> None:
    connection = server.http()
    for _ in range(3):  # also on a connection that is kept, and after what was done there before
        connection.request("GET", f"/{quote(check)}")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"ok"), server.log()
    connection.close()
