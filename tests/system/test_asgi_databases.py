"""Requests that their clients abandon in the middle leave no connection of a database in use."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, servers
from tests.support.sockets import read_all
from tests.support.waiting import until

ABANDONED = 200
AT_ONCE = 4  # fewer than the pool has
POOL = 5


@pytest.fixture(scope="module", params=["fastapi", "starlette", "django_asgi"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    tmp = tmp_path_factory.mktemp("databases")
    database = tmp / "data.sqlite3"
    args = (f"tests.apps.database_sessions:{request.param}", "--set", "server.protocol=asgi")
    for start in servers(tmp):
        server = start(*args, "--workers", "1", env={"DATABASE": str(database)}).wait_ready(1)
        yield server


def open_databases(server: Server) -> int:
    """Descriptors of the database that the worker has open."""
    (worker,) = server.workers()
    return sum(file.path.endswith("/data.sqlite3") for file in worker.open_files())


def leave(server: Server, path: str, *, wait: bool, reset: bool) -> socket.socket:
    """A client that has sent its request, and has got the beginning of its response, or has not."""
    sock = server.connect()
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.sendall(f"GET {path}{'?wait=1' if wait else ''} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    if not wait:
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    return sock


@pytest.mark.parametrize("path", ["/async", "/sync"])
def test_abandoned_requests_leave_no_connection_in_use(server: Server, path: str) -> None:
    for first in range(0, ABANDONED, AT_ONCE):
        socks = [
            leave(server, path, wait=number % 3 == 0, reset=number % 2 == 0)
            for number in range(first, first + AT_ONCE)
        ]
        for sock in socks:
            sock.close()
    until(lambda: not server.status()["workers"][0]["calls"])
    if "django" in str(server.process.args):
        until(lambda: open_databases(server) == 0)
    else:
        until(lambda: json.loads(server.get("/pools")[1]) == {"async": 0, "sync": 0})
        assert 0 < open_databases(server) <= 2 * POOL
    assert not server.find("application failed")


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Server]:
    args = ("tests.apps.database_sessions:django_asgi", "--set", "server.protocol=asgi")
    limit = ("--workers", "1", "--set", "workers.request_timeout=0.5")
    for start in servers(tmp_path):
        server = start(*args, *limit, env={"DATABASE": str(tmp_path / "data.sqlite3")})
        server.expected_errors.add("request timed out")
        yield server.wait_ready(1)


def test_a_django_call_over_its_time_ends_with_its_view(impatient: Server) -> None:
    socks = [leave(impatient, "/async", wait=True, reset=False) for _ in range(AT_ONCE)]
    for sock in socks:
        assert read_all(sock).startswith(b"HTTP/1.1 504 ")
        sock.close()
    until(lambda: not impatient.status()["workers"][0]["calls"])
    until(lambda: open_databases(impatient) == 0)
    assert len(impatient.find("request timed out")) == AT_ONCE
