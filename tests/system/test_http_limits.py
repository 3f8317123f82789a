"""Bounds on connections: what a client of a full worker gets, and what becomes of the others."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.raw_http import Raw, request
from tests.support.server import BRIDGED, Server, servers
from tests.support.waiting import PATIENCE
from tests.system.test_http import APP, settings

BEGUN = b"GET /pid HTTP/1.1\r\nHost: test\r\n"


@pytest.fixture(scope="module", params=[(APP,), BRIDGED], ids=["wsgi", "asgi"])
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    """One worker with room for six connections, four of one address, and no name of its own."""
    for start in servers(tmp_path_factory.mktemp("limits")):
        yield start(
            *(*request.param, "--workers", "1"),
            *settings("http", max_connections=6, max_connections_per_address=4, keepalive=60),
            *settings("http", header_timeout=60, keepalive_requests=3, server_header="false"),
        ).wait_ready(1)


class Clients(ExitStack):
    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def connect(self, number: int) -> Raw:
        """From 127.0.0.NUMBER."""
        sock = self.enter_context(socket.socket())
        sock.settimeout(PATIENCE)
        sock.bind((f"127.0.0.{number}", 0))
        sock.connect(("127.0.0.1", self._server.port))
        return Raw(sock)

    def begun(self, number: int) -> Raw:
        """One whose request has begun, and is held by the worker."""
        client = self.connect(number)
        client.send(BEGUN)
        return client


def test_a_full_worker_ends_the_longest_idle_then_says_503_and_429_to_an_address_with_its_share(
    server: Server,
) -> None:
    with Clients(server) as clients:
        oldest = clients.connect(2)
        assert oldest.ask(request("/pid")).status == 200
        older = clients.connect(2)
        assert older.ask(request("/pid")).status == 200
        busy = [clients.begun(1) for _ in range(4)]

        over = clients.connect(1)
        refusal = over.ask(request("/pid"))
        assert (refusal.status, refusal["Retry-After"], refusal.closes) == (429, "1", True)
        assert over.at_end()

        # Six are there: each new one takes the place of one that waits for its next request.
        busy.append(clients.begun(3))
        assert oldest.at_end()
        busy.append(clients.begun(4))
        assert older.at_end()
        over = clients.connect(5)
        refusal = over.ask(request("/pid"))
        assert (refusal.status, refusal["Retry-After"], refusal.closes) == (503, "1", True)
        assert over.at_end()

        # Who was there is served.
        for client in busy:
            assert client.ask(b"\r\n").status == 200
        assert clients.connect(5).ask(request("/pid")).status == 200
        assert busy[0].at_end()
    server.wait("connections refused")


def test_a_connection_ends_with_its_last_request_and_the_server_need_not_be_named(
    server: Server,
) -> None:
    with Clients(server) as clients:
        client = clients.connect(9)
        answers = [client.ask(request("/pid")) for _ in range(3)]
        assert [answer.closes for answer in answers] == [False, False, True]
        assert client.at_end()
        assert [answer["Server"] for answer in answers] == [None] * 3
