"""What many clients can make a worker keep is bounded, whatever state their connections are in.

The table of docs/operations.md says what each of them may hold.  A good client is served
beside them.
"""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.support.raw_http import request, talk
from tests.support.server import Server, servers
from tests.support.waiting import PATIENCE, until
from tests.system.test_http import APP, settings

CLIENTS = 400
BUDGET = 4 << 20  # http.buffer_memory
REST = 8 << 20
"""What the worker may take beyond that: some KB for each connection and its place in tables, what
malloc does not give back, and for each thread a response that is being made."""

LARGE = b"GET /big?n=500000 HTTP/1.1\r\nHost: test\r\n\r\n"
SMALL = b"GET /nolength HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture(params=["1 thread", "4 threads"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    for start in servers(tmp_path):
        yield start(
            *(APP, "--workers", "1", "--threads", request.param.split()[0]),
            *settings(
                "http", buffer_memory=BUDGET, header_timeout=120, body_timeout=120, keepalive=120
            ),
            *settings("http", write_timeout=120, response_memory="64KiB", min_body_rate=0),
            *settings("http", max_header_size="64KiB", body_memory="64KiB"),
        ).wait_ready(1)


def resident(server: Server) -> int:
    """Bytes of memory of the worker."""
    (pid,) = server.worker_pids()
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def connections(server: Server) -> list[int]:
    """Of each connection that the worker has not closed: the bytes that it has not read."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        # TCP_ESTABLISHED and TCP_CLOSE_WAIT
        if state in ("01", "08") and int(local.partition(":")[2], 16) == server.port:
            found.append(int(queues.partition(":")[2], 16))
    return found


def unread(server: Server) -> int:
    """Bytes that the worker has not read."""
    return sum(connections(server))


def all_was_read(_clients: list[socket.socket], server: Server) -> bool:
    return unread(server) == 0


def each_is_answered(clients: list[socket.socket], _server: Server) -> bool:
    poll = select.poll()
    for client in clients:
        poll.register(client, select.POLLIN)
    return len(poll.poll(0)) == len(clients)


ATTACKS: dict[str, tuple[bytes, Callable[[list[socket.socket], Server], bool]]] = {
    "pipelines behind a response that nobody takes": (
        LARGE + SMALL * ((16 * 1024 - len(LARGE)) // len(SMALL)),
        each_is_answered,
    ),
    "heads without an end": (SMALL[:-2] + b"X: " + b"a" * 60_000, all_was_read),
    "bodies without an end": (
        b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n" + bytes(60_000),
        all_was_read,
    ),
    "extensions of chunks without an end": (
        b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1;"
        + b"a" * 60_000,
        all_was_read,
    ),
}


def attack(stack: ExitStack, server: Server, data: bytes) -> list[socket.socket]:
    clients = []
    for _ in range(CLIENTS):
        client = stack.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", server.port))
        client.sendall(data)
        clients.append(client)
    return clients


@pytest.mark.parametrize("name", ATTACKS)
def test_many_clients_take_no_more_memory_than_they_may(server: Server, name: str) -> None:
    data, done = ATTACKS[name]
    with talk(server) as good, ExitStack() as stack:
        for _ in range(20):
            assert good.ask(request("/big?n=500000")).status == 200
        before = resident(server)
        clients = attack(stack, server, data)
        until(lambda: done(clients, server), "the worker has had them all")
        assert resident(server) - before < BUDGET + REST
        assert good.ask(request("/nolength")).body == b"no length given"


def test_what_they_had_is_there_for_others_once_they_are_gone(server: Server) -> None:
    """The budget is given back: heads and pipelines are served as before."""
    for data, done in ATTACKS.values():
        with ExitStack() as stack:
            clients = attack(stack, server, data)
            until(partial(done, clients, server), "the worker has had them all")
        until(lambda: not connections(server), "the worker has closed them")
    with ExitStack() as stack:
        clients = []
        half = SMALL[:-2] + b"X: " + b"a" * 10_000
        for _ in range(100):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.settimeout(PATIENCE)
            client.sendall(half)
            clients.append(client)
        until(lambda: unread(server) == 0, "the worker has read them")
        for client in clients:
            client.sendall(b"\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
