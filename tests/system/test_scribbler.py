"""A worker that writes nonsense into shared memory harms nobody else."""

import psutil
import pytest

from tests.support.server import Start
from tests.support.site import ask
from tests.support.waiting import until

APP = "tests.apps.scribbler:app"


def test_a_worker_that_scribbles_crashes_no_other(start: Start) -> None:
    server = start(APP, "--workers", "2", "--set", "workers.slow_request=20").wait_ready(2)
    for seed in range(4):
        server.get(f"/scribble?seed={seed}")
        status = ask(server, "status")
        assert len(status["workers"]) == 2
        assert all(abs(number) < 2**60 for number in _numbers(status))
    assert "\x1b" not in server.command("status").stdout
    # The numbers are handed over, and the dead counted.
    server.command("upgrade")

    # Who writes elsewhere is gone, and replaced; the others serve.
    server.expected_errors = {"worker died"}
    before = {worker.pid for worker in server.workers()}
    with pytest.raises((ConnectionError, OSError)):
        server.get("/wild")
    server.wait("worker died", how="killed by SIGSEGV")
    until(lambda: len({w.pid for w in server.workers()} - before) == 1, "a new worker")
    assert server.get("/")[0] == 200
    assert psutil.pid_exists(server.pid)


@pytest.mark.parametrize("preload", ["false", "true"])
def test_the_rest_of_the_scoreboard_cannot_be_made_writable(start: Start, preload: str) -> None:
    server = start(APP, "--workers", "1", "--set", f"workers.preload={preload}").wait_ready(1)
    _, answer = server.get("/others")
    assert answer.startswith(b"EACCES ")
    assert b"write" not in answer
    assert int(answer.split()[1]) < 2**20  # its own slot


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [each for part in value.values() for each in _numbers(part)]
    if isinstance(value, list):
        return [each for part in value for each in _numbers(part)]
    return [value] if isinstance(value, int | float) else []
