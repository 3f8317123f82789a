"""Nothing that the server holds depends on what an application may change in its process."""

import os
import signal
from pathlib import Path
from time import monotonic

import psutil
import pytest

from tests.support.passable import passable
from tests.support.raw_http import request, talk
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE

CHANGES = "tests.apps.process_wide:app"


@pytest.fixture(params=["import", "request"])
def changed(request: pytest.FixtureRequest, start: Start) -> Server:
    """A server whose application sets a default timeout of sockets, and SIGPIPE to its default."""
    return start(
        *(CHANGES, "--workers", "1", "--set", "workers.preload=true"),
        env={"CHANGE": request.param},
    ).wait_ready(1)


def test_an_upload_may_pause_for_longer_than_the_default_timeout(changed: Server) -> None:
    with talk(changed) as client, talk(changed) as other:
        assert client.ask(request("/pid")).status == 200
        client.send(request("/echo", "Content-Length: 10", method="POST") + b"half,")
        began = monotonic()
        while monotonic() - began < 0.6:  # three times that timeout
            assert other.ask(request("/pid")).status == 200
        assert client.ask(b" half").body == b"half, half"


@pytest.mark.parametrize("path", ["/big?n=100000000", "/wrap?path="])
def test_a_client_that_leaves_does_not_end_the_worker(
    changed: Server, tmp_path: Path, path: str
) -> None:
    if path.endswith("="):
        file = tmp_path / "file"
        file.write_bytes(b"x" * 50_000_000)
        path += str(file)
    worker = changed.get("/pid")
    for _ in range(5):
        with talk(changed, receive_buffer=4096) as client:
            client.send(request(path))
            assert client.line() == "HTTP/1.1 200 OK"
        assert changed.get("/pid") == worker
    assert not changed.find("worker died")


def test_it_stops_and_reloads_as_ever(changed: Server) -> None:
    changed.signal(signal.SIGHUP)
    changed.wait_settled(2)
    assert changed.get("/pid")[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("preload", ["true", "false"])
def test_workers_that_drop_rights_by_themselves_end_with_the_master(
    start: Start, preload: str
) -> None:
    """A change of credentials clears the signal that the kernel sends at a parent's death."""
    server = start(
        *("tests.apps.drops_rights:app", "--workers", "2"),
        *("--set", f"workers.preload={preload}"),
        wrapper=passable(),
    ).wait_ready(2)
    workers = [psutil.Process(event["pid"]) for event in server.find("worker ready")]
    server.signal(signal.SIGKILL)
    server.process.wait()
    _, alive = psutil.wait_procs(workers, PATIENCE)
    for worker in alive:
        worker.kill()
    assert not alive
