"""Frameworks that speak ASGI: pages, forms, uploads, streams of events, work after the response."""

import hashlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server, servers
from tests.support.waiting import until

MB = 1024 * 1024
SIZE = 50 * MB
GROWTH = 24 * MB
"""Bytes of memory that an upload may take: far less than it has."""

MULTIPART = (
    b'--limit\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n%b\r\n--limit--\r\n"
)

with_background = pytest.mark.parametrize(
    "server", ["starlette", "fastapi", "quart", "litestar"], indirect=True
)


@pytest.fixture(scope="module", params=["starlette", "fastapi", "quart", "litestar", "django_asgi"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    args = ("--set", "server.protocol=asgi", "--workers", "1")
    for start in servers(tmp_path_factory.mktemp("frameworks")):
        server = start(f"tests.apps.async_frameworks:{request.param}", *args).wait_ready(1)
        yield server
        assert server.other == []


def largest(server: Server) -> int:
    """The largest amount of memory that the worker has had, in bytes (proc(5), VmHWM)."""
    (pid,) = server.worker_pids()
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_pages_and_forms_of_a_kept_connection(server: Server) -> None:
    connection = server.http()
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/form", body="a=1&b=2", headers=kind)
    assert json.loads(connection.getresponse().read()) == {"a": "1", "b": "2"}
    connection.close()


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_an_upload_of_50_mb_arrives_as_it_was_sent_and_is_not_kept_in_memory(
    server: Server, coding: str
) -> None:
    block = random.Random(7).randbytes(MB)
    digest = hashlib.sha256()

    def body() -> Iterator[bytes]:
        for number in range(SIZE // MB):
            piece = number.to_bytes(4, "big") + block[4:]
            digest.update(piece)
            yield piece

    headers = {"Content-Type": "application/octet-stream"}
    if coding == "length":
        headers["Content-Length"] = str(SIZE)
    connection = server.http()
    before = largest(server)
    connection.request("POST", "/sum", body(), headers, encode_chunked=coding == "chunked")
    answer = connection.getresponse()
    told = answer.read().decode()
    assert (answer.status, told) == (200, digest.hexdigest())
    assert largest(server) - before < GROWTH
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello"
    connection.close()


def test_a_file_of_a_form(server: Server) -> None:
    data = random.Random(8).randbytes(3 * MB)
    connection = server.http()
    kind = {"Content-Type": "multipart/form-data; boundary=limit"}
    connection.request("POST", "/file", MULTIPART % data, kind)
    told = json.loads(connection.getresponse().read())
    assert told == {"name": "a.bin", "sha256": hashlib.sha256(data).hexdigest()}
    connection.close()


def test_events(server: Server) -> None:
    connection = server.http()
    for _ in range(2):
        connection.request("GET", "/events")
        answer = connection.getresponse()
        assert (answer.headers["Content-Type"] or "").startswith("text/event-stream")
        assert answer.read() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    connection.close()


@with_background
def test_work_after_the_response(server: Server) -> None:
    assert server.get("/later") == (200, b"soon")
    until(lambda: json.loads(server.get("/done")[1]) == ["later"])


@pytest.mark.parametrize("server", ["fastapi"], indirect=True)
def test_functions_in_threads(server: Server) -> None:
    assert json.loads(server.get("/threads")[1]) == {"hello": "thread"}
