"""One address that takes all it can get keeps no other client out, with real clients."""

import socket
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection

import pytest

from tests.support.raw_http import Raw, request
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE, until
from tests.system.test_http import APP, settings

ROOM = 40

ATTACKS = {
    "unfinished heads": b"GET /pid HTTP/1.1\r\nHost: test\r\n",
    "unfinished bodies": b"POST /pid HTTP/1.1\r\nHost: test\r\nContent-Length: 9000\r\n\r\nx",
    "nothing of a request": b"\r\n",
    "pipelines": (b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n") * 5_000,
    "responses that are not taken": b"GET /big?n=4000000 HTTP/1.1\r\nHost: test\r\n\r\n",
}


class Clients(ExitStack):
    def __init__(self, server: Server) -> None:
        super().__init__()
        self._port = server.port

    def connect(self, number: int) -> Raw:
        """From 127.0.0.NUMBER."""
        sock = self.enter_context(socket.socket())
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((f"127.0.0.{number}", 0))
        sock.connect(("127.0.0.1", self._port))
        return Raw(sock)


def full_server(start: Start, *more: str) -> Server:
    return start(
        *(APP, "--workers", "1", *settings("http", max_connections=ROOM, header_timeout=60)),
        *settings("http", body_timeout=60, write_timeout=60),
        *more,
    ).wait_ready(1)


METRICS = ("--set", "metrics.bind=127.0.0.2:0")


def displaced(server: Server) -> float:
    """How many connections have given way so far."""
    port = int(server.wait("metrics served")["address"].rpartition(":")[2])
    connection = HTTPConnection("127.0.0.2", port, timeout=PATIENCE)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    (line,) = [
        line for line in text.splitlines() if line.startswith("prefork_connections_displaced")
    ]
    return float(line.split()[1])


@pytest.mark.parametrize("threads", ["1", "3"])
def test_another_address_is_served(start: Start, threads: str) -> None:
    server = full_server(start, "--threads", threads, *METRICS)
    # Each attack comes from an address of its own.
    for attacker, attack in enumerate(ATTACKS, 9):
        before = displaced(server)
        with Clients(server) as clients:
            for _ in range(ROOM + 20):
                clients.connect(attacker).send(ATTACKS[attack])
            for number in (2, 3, 4):
                good = clients.connect(number)
                for _ in range(3):
                    assert (attack, good.ask(request("/pid")).status) == (attack, 200)
            until(partial(lambda count: displaced(server) > count, before), attack)
        until(lambda: server.status()["workers"][0]["held"] == 0, f"the end of {attack}")
    event = server.wait("connections displaced")
    assert (event["peer"], event["limit"]) == ("127.0.0.9", ROOM)


WEBSOCKETS = {
    "websockets": (
        b"GET /echo HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
}


@pytest.mark.parametrize(
    ("app", "attacks"), [("async_basic", ATTACKS), ("asgi_websockets", WEBSOCKETS)]
)
def test_another_address_is_served_by_an_asgi_application(
    start: Start, app: str, attacks: dict[str, bytes]
) -> None:
    """Its calls begin before a body is there, and a WebSocket is one call."""
    server = start(
        *(f"tests.apps.{app}:app", "--workers", "1", "--set", "server.protocol=asgi", *METRICS),
        *settings("http", max_connections=ROOM, header_timeout=60, body_timeout=60),
    ).wait_ready(1)
    for attacker, attack in enumerate(attacks, 20):
        before = displaced(server)
        with Clients(server) as clients:
            for _ in range(ROOM):
                clients.connect(attacker).send(attacks[attack])
            for number in range(2, 11):
                answer = clients.connect(number).ask(request("/pid"))
                assert (attack, answer.status) == (attack, 200)
            until(partial(lambda count: displaced(server) > count, before), attack)
        until(lambda: server.status()["workers"][0]["held"] == 0, f"the end of {attack}")
    assert server.wait("connections displaced")["limit"] == ROOM


def test_the_metric_counts_and_outlives_the_worker(start: Start) -> None:
    server = full_server(start, *METRICS)
    with Clients(server) as clients:
        for _ in range(ROOM + 7):
            clients.connect(9).send(ATTACKS["unfinished bodies"])
        until(lambda: displaced(server) == 7, "the metric shows all of them")
        server.expected_errors = {"worker died"}
        server.workers()[0].kill()
        server.wait("worker ready", 2)
        assert displaced(server) == 7


def test_a_client_that_sends_stays_while_others_of_its_address_do_not(start: Start) -> None:
    server = full_server(start)
    with Clients(server) as clients:
        upload = clients.connect(9)
        head = f"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {ROOM * 1000}\r\n\r\n"
        upload.send(head.encode())
        for _ in range(ROOM):
            upload.send(b"x" * 1000)
            clients.connect(9).send(ATTACKS["unfinished bodies"])
        assert upload.answer().status == 200


def test_one_that_gives_way_is_told(start: Start) -> None:
    server = full_server(start)
    with Clients(server) as clients:
        first = clients.connect(9)
        first.send(ATTACKS["unfinished bodies"])
        for _ in range(ROOM):
            clients.connect(9).send(ATTACKS["unfinished bodies"])
        answer = first.answer()
        assert (answer.status, answer["Retry-After"], answer.closes) == (503, "1", True)
