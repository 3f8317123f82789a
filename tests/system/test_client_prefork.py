"""The client and the server of this house, with each other."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefork.client import ClientRequest, ClientResponse, HttpClient, RequestContent, parse_url
from tests.support.commands import prefork_command
from tests.support.server import Server, Start, servers

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any) -> Iterator[Server]:
    for start in servers(tmp_path_factory.mktemp("client")):
        yield start("tests.apps.basic:app", "--workers", "2").wait_ready(2)


# Named last by each test, so that it closes first: a server that stops waits for its clients.
@pytest.fixture
def client() -> Iterator[HttpClient]:
    with HttpClient(timeout=60) as client:
        yield client


def request(client: HttpClient, server: Server, path: str, **options: Any) -> ClientResponse:
    url = parse_url(f"http://127.0.0.1:{server.port}{path}")
    return client.request(ClientRequest(url, **options))


def test_requests_on_one_connection_are_answered_by_one_worker(
    server: Server, client: HttpClient
) -> None:
    pids = set()
    for _ in range(10):
        response = request(client, server, "/pid")
        pids.add(b"".join(response))
        assert response.reusable
    assert len(pids) == 1


def test_a_long_answer_and_one_in_chunks(server: Server, client: HttpClient) -> None:
    assert b"".join(request(client, server, "/big?n=3000000")) == b"x" * 3_000_000
    pieces = b"".join(request(client, server, "/stream?n=3"))
    assert pieces == b"piece 0\npiece 1\npiece 2\n"


def test_an_answer_to_head(server: Server, client: HttpClient) -> None:
    response = request(client, server, "/big?n=1000", method="HEAD")
    assert (response.status, b"".join(response)) == (200, b"")
    assert ("Content-Length", "1000") in response.headers
    assert response.reusable


@pytest.mark.parametrize("size", [0, 513, 65_537, 5 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_arrives_whole(server: Server, client: HttpClient, size: int, chunked: bool) -> None:
    data = os.urandom(size)
    headers = (("Transfer-Encoding", "chunked"),) if chunked else ()
    body = RequestContent(data)
    response = request(client, server, "/digest", method="POST", headers=headers, body=body)
    told = json.loads(b"".join(response))
    assert told == {"size": size, "sha256": hashlib.sha256(data).hexdigest()}


def test_a_gigabyte_is_refused_and_the_refusal_is_read(
    server: Server, client: HttpClient, tmp_path: Path
) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 30)
    with open(path, "rb") as file:
        body = RequestContent(fd=file.fileno())
        response = request(client, server, "/digest", method="POST", body=body)
    assert response.status == 413


def test_a_unix_socket(start: Start, client: HttpClient, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    start("tests.apps.basic:app", "--workers", "1", bind=(f"unix:{path}",)).wait_ready(1)
    url = parse_url("http://localhost/", str(path))
    assert b'"world"' in b"".join(client.request(ClientRequest(url)))


def test_talk_to_a_tcp_handler(start: Start) -> None:
    server = start("tests.apps.tcp_apps:echo", "--tcp", "--workers", "1").wait_ready(1)
    data = os.urandom(MIB)
    done = subprocess.run(
        prefork_command("talk", f"127.0.0.1:{server.port}"),
        input=data,
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    assert done.stdout == data
