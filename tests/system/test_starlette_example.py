"""The example for ASGI, used by real clients: a page, a WebSocket, events, an upload, a task."""

import hashlib
import json
import random

from websockets.sync.client import connect

from tests.support.commands import ROOT
from tests.support.server import Start
from tests.support.waiting import PATIENCE

FILE = random.Random(7).randbytes(3_000_000)


def test_the_example_does_what_its_page_says(start: Start) -> None:
    server = start("examples.starlette_app:app", "--workers", "2", cwd=ROOT).wait_ready(2)
    status, page = server.get("/")
    assert status == 200
    assert b"<h1>Worker " in page
    assert server.get("/clock?n=3")[1].count(b"data: ") == 3
    connection = server.http()
    connection.request("PUT", "/upload", FILE)
    answer = json.loads(connection.getresponse().read())
    assert answer == {"size": len(FILE), "sha256": hashlib.sha256(FILE).hexdigest()}
    # One connection stays with its worker, and so with the state of its lifespan.  The tasks run
    # beside the next requests.
    done = 0
    while not done:
        connection.request("GET", "/later")
        done = int(connection.getresponse().read().removesuffix(b" tasks were done before\n"))
    connection.close()
    with connect(f"ws://127.0.0.1:{server.port}/talk", open_timeout=PATIENCE) as socket:
        for text in ("hello", "wörld", "x" * 70_000):
            socket.send(text)
            worker, _, rest = str(socket.recv(PATIENCE)).partition(": ")
            assert rest == text
            assert worker.removeprefix("worker ") in map(str, server.worker_pids())
