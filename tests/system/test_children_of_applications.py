"""No process of an application's pools outlives the server."""

import json
import signal

import psutil
import pytest

from tests.support.server import Start
from tests.support.waiting import PATIENCE


@pytest.mark.parametrize("preload", ["true", "false"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_a_stop_leaves_no_process_of_a_pool(
    start: Start, number: signal.Signals, preload: str
) -> None:
    server = start(
        *("tests.apps.pools:app", "--workers", "1", "--set", f"workers.preload={preload}")
    ).wait_ready(1)
    server.expected_errors.add("worker exited")  # INT may be faster than the end of the call
    pids = json.loads(server.get("/")[1])
    assert len(pids) >= 3
    children = [psutil.Process(pid) for pid in pids]
    server.signal(number)
    assert server.wait_exit() == 0
    _, alive = psutil.wait_procs(children, PATIENCE)
    for child in alive:
        child.kill()
    assert not alive
