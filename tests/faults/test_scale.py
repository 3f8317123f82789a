"""More workers and fewer again, under a load that notices each connection that is lost."""

import pytest

from tests.support.path_load import PathLoad, tcp
from tests.support.server import Start


@pytest.mark.parametrize("preload", ["false", "true"])
def test_from_one_worker_to_sixteen_and_back_loses_nothing(start: Start, preload: str) -> None:
    options = ("--workers", "1", "--set", f"workers.preload={preload}")
    server = start("tests.apps.basic:app", *options).wait_ready(1)
    load = PathLoad(tcp(server.port), one_shot=4, kept=4)
    load.wait_answers(50)
    server.ask("scale", count=16)
    server.wait("worker ready", 16)
    load.wait_answers(50)
    server.ask("scale", count=1)
    server.wait("worker exited", 15)
    load.wait_answers(50)
    load.end()
    assert len(server.workers()) == 1
    # The lowest slot stays, and each of the others was filled once.
    assert sorted(event["slot"] for event in server.find("worker ready")) == list(range(16))
    assert {event["slot"] for event in server.find("worker exited")} == set(range(1, 16))
