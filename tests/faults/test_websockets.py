"""A thousand WebSockets through a reload, a stop, and the death of a worker."""

import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from selectors import EVENT_READ, DefaultSelector

import pytest

from tests.support.server import Server, Start
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE, until
from tests.support.websocket_client import HANDSHAKE
from tests.support.websocket_frames import client_frame

COUNT = 1000
APP = "tests.apps.asgi_websockets:app"


@contextmanager
def crowd(server: Server) -> Iterator[list[socket.socket]]:
    """Clients whose handshake is over."""
    clients: list[socket.socket] = []
    try:
        for _ in range(COUNT):
            client = server.connect()
            clients.append(client)
            client.sendall(HANDSHAKE % b"/echo")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(4096)
            assert head.startswith(b"HTTP/1.1 101 ")
        yield clients
    finally:
        for client in clients:
            client.close()


def serve(start: Start, *settings: str) -> Server:
    server = start(
        *(APP, "--workers", "2", "--set", "server.protocol=asgi"),
        *("--set", "websocket.ping_interval=0"),  # the clients answer no ping
        *(part for each in settings for part in ("--set", each)),
    )
    return server.wait_ready(2)


def closings(clients: list[socket.socket]) -> tuple[Counter[int], list[float]]:
    """Answers each close frame; returns how many there were of each code (0: none came), and the
    seconds at which they came."""
    codes: Counter[int] = Counter()
    times = []
    began = time.monotonic()
    with DefaultSelector() as selector:
        for each in clients:
            selector.register(each, EVENT_READ, each)
        while selector.get_map():
            ready = selector.select(PATIENCE)
            assert ready, f"{len(selector.get_map())} clients hear nothing more"
            for key, _ in ready:
                client: socket.socket = key.data
                selector.unregister(client)
                frame = client.recv(4096)
                times.append(time.monotonic() - began)
                if frame[:2] != b"\x88\x02":
                    codes[0] += 1
                    continue
                codes[int.from_bytes(frame[2:], "big")] += 1
                client.sendall(client_frame(8, frame[2:]))
                client.settimeout(PATIENCE)
                assert read_all(client) == b""
    return codes, times


@pytest.mark.parametrize("reload", [True, False], ids=["reload", "stop"])
def test_each_gets_a_close_frame_at_a_time_of_its_own(start: Start, reload: bool) -> None:
    server = serve(start, "workers.graceful_timeout=200")  # a busy machine does not reach it
    with crowd(server) as clients:
        until(lambda: sum(each["websockets"] for each in server.status()["workers"]) == COUNT)
        server.process.send_signal(signal.SIGHUP if reload else signal.SIGTERM)
        codes, times = closings(clients)
        assert codes == {1012 if reload else 1001: COUNT}
        # Each worker has some 500, spread at random over 10 s: no second is without one.
        assert len({int(each) for each in times}) >= 9
    if reload:
        for event in server.find("worker ready", generation=1):
            server.wait("worker exited", pid=event["pid"])
        assert server.get("/")[0] == 200
    else:
        assert server.wait_exit() == 0
    assert not server.find("worker killed")


def test_a_worker_that_is_killed_leaves_the_others_theirs(start: Start) -> None:
    server = serve(start)
    server.expected_errors.add("worker died")
    with crowd(server) as clients:
        until(lambda: sum(each["websockets"] for each in server.status()["workers"]) == COUNT)
        first = server.status()["workers"][0]
        server.workers()[0].kill()
        server.wait("worker died")
        lost = 0
        for client in clients:
            try:
                client.sendall(client_frame(1, b"a"))
                lost += client.recv(100) != b"\x81\x01a"
            except OSError:
                lost += 1
        assert lost == first["websockets"]
        assert 0 < lost < COUNT
    server.wait_ready(3)
    assert server.get("/")[0] == 200


def test_clients_that_all_die_at_once_leave_nothing(start: Start) -> None:
    server = serve(start)
    with crowd(server):
        pass
    until(lambda: not any(each["held"] for each in server.status()["workers"]))
    until(lambda: not any(each["websockets"] for each in server.status()["workers"]))
    assert server.other == []
