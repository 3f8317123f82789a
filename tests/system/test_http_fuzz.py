"""Streams of pieces of HTTP and of nonsense to a real worker, which has to survive them all.

What they are read as is held by tests/unit/test_reader_properties.py, without a socket.
"""

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.support.raw_http import request, talk
from tests.support.server import BRIDGED, Server, servers
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE
from tests.system.test_http import APP, settings
from tests.unit.http_pieces import PIECES, WHOLE

STREAMS = 320
AT_ONCE = 40


@pytest.fixture(
    scope="module", params=["false", "true", "asgi"], ids=["gathered", "streamed", "awaited"]
)
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    for start in servers(tmp_path_factory.mktemp("fuzz")):
        asgi = request.param == "asgi"
        kind = BRIDGED if asgi else (APP, *settings("http", stream_body=request.param))
        server = start(*kind, "--workers", "1", *settings("http", keepalive=60))
        yield server.wait_ready(1)


def stream(rng: random.Random) -> bytes:
    pieces = []
    for _ in range(rng.randrange(1, 14)):
        kind = rng.randrange(10)
        if kind < 4:
            pieces.append(rng.choice(WHOLE))
        elif kind < 9:
            pieces.append(rng.choice(PIECES))
        else:
            pieces.append(rng.randbytes(rng.randrange(1, 200)))
    return b"".join(pieces)


def test_a_worker_survives_any_bytes_cut_anywhere_and_answers_in_http(server: Server) -> None:
    (worker,) = server.workers()
    rng = random.Random(1)
    for _ in range(STREAMS // AT_ONCE):
        with ExitStack() as stack:
            clients = []
            for _ in range(AT_ONCE):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                client.settimeout(PATIENCE)
                clients.append((client, stream(rng)))
            # In two pieces, so that the worker holds the first ones of all at a time.
            with suppress(ConnectionError):
                for client, data in clients:
                    client.sendall(data[: len(data) // 2])
            for client, data in clients:
                with suppress(ConnectionError):
                    client.sendall(data[len(data) // 2 :])
                    client.shutdown(socket.SHUT_WR)
            for client, data in clients:
                with suppress(ConnectionError):
                    answer = read_all(client)
                    assert answer == b"" or answer.startswith(b"HTTP/1.1 "), (data, answer)
    with talk(server) as good:
        assert good.ask(request("/pid")).body == str(worker.pid).encode()
