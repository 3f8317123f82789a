"""A worker that writes nonsense into shared memory harms nobody else."""

import urllib.request

import psutil
import pytest

from tests.support.server import Start
from tests.support.waiting import PATIENCE, until

APP = "tests.apps.scribbler:app"


def test_a_worker_that_scribbles_crashes_no_other(start: Start) -> None:
    metrics = "metrics.bind=127.0.0.3:0"
    options = ("--set", "workers.slow_request=20", "--set", "workers.max_requests=1000000")
    server = start(APP, "--workers", "2", *options, "--set", metrics).wait_ready(2)
    # It may claim a call that has run for hours: then it is replaced, and no other worker is.
    server.expected_errors = {"request timed out", "worker exited"}
    page = f"http://{server.wait('metrics served')['address']}/metrics"
    for seed in range(4):
        server.get(f"/scribble?seed={seed}")
        status = server.status()
        assert len(status["workers"]) == 2
        assert all(abs(number) < 2**60 for number in _numbers(status))
        with urllib.request.urlopen(page, timeout=PATIENCE) as answer:
            values = [line.split()[-1] for line in answer.read().decode().splitlines()]
        assert not {"nan", "inf", "-inf"} & {value.lower() for value in values}
    assert "\x1b" not in server.command("status").stdout
    # The numbers are handed over, and the dead counted.
    server.ask("upgrade")

    # Who writes elsewhere is gone, and replaced; the others serve.
    server.expected_errors |= {"worker died"}
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
