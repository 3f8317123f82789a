"""ASGI applications: HTTP as the specification has it, by real workers and clients."""

import gzip
import hashlib
import http.client
import json
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.raw_http import Raw
from tests.support.server import Server, Start, servers
from tests.support.sockets import read_all
from tests.support.waiting import until

APP = "tests.apps.async_basic:app"
ASGI = ("--set", "server.protocol=asgi", "--set", "workers.count=1")


@pytest.fixture(scope="module", params=["asyncio", "uvloop", "tests.apps.loops:plain"])
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    for start in servers(tmp_path_factory.mktemp("asgi")):
        loop = ("--set", f"workers.loop={request.param}")
        server = start(APP, *ASGI, *loop).wait_ready(1)
        server.expected_errors.add("application failed")
        yield server
        assert server.other == []


def test_pages_of_a_kept_connection(server: Server) -> None:
    connection = server.http()
    for _ in range(3):
        connection.request("GET", "/pid")
        answer = connection.getresponse()
        assert (answer.status, answer.read().decode()) == (200, str(server.worker_pids()[0]))
    connection.close()


def test_the_scope(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(
            b"GET /scope?a=%20b HTTP/1.1\r\nHost: example.org\r\nX-Twice: 1\r\nX_Spoof: 1\r\n"
            b"x-twice: 2\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n"
        )
        own = list(sock.getsockname())
        scope = json.loads(read_all(sock).partition(b"\r\n\r\n")[2])
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert (scope["http_version"], scope["method"], scope["scheme"]) == ("1.1", "GET", "http")
    assert (scope["path"], scope["raw_path"], scope["root_path"]) == ("/scope", "/scope", "")
    assert scope["query_string"] == "a=%20b"
    assert scope["client"] == own
    assert scope["server"] == ["127.0.0.1", server.port]
    assert scope["headers"] == [
        ["host", "example.org"],
        ["x-twice", "1"],
        ["x-twice", "2"],
        ["connection", "close"],
    ]


def test_a_path_that_is_encoded(server: Server) -> None:
    status, body = server.get("/%73cope")
    scope = json.loads(body)
    assert (status, scope["path"], scope["raw_path"]) == (200, "/scope", "/%73cope")


def test_a_body_is_read_on_demand_and_in_pieces(server: Server) -> None:
    data = random.Random(1).randbytes(3_000_000)
    connection = server.http()
    connection.request("POST", "/digest", body=data)
    digest, largest = connection.getresponse().read().decode().split()
    assert digest == hashlib.sha256(data).hexdigest()
    assert int(largest) <= 128 * 1024
    connection.request("POST", "/digest", body=iter([data[:10], data[10:]]), encode_chunked=True)
    assert connection.getresponse().read().decode().split()[0] == digest
    connection.request("POST", "/echo", body=b"small")
    assert connection.getresponse().read() == b"small"
    connection.close()


def test_a_client_that_waits_for_100(server: Server) -> None:
    with server.connect() as sock:
        raw = Raw(sock)
        raw.send(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert raw.line() == "HTTP/1.1 100 Continue"
        assert raw.line() == ""
        assert raw.ask(b"hello").body == b"hello"


def test_no_100_if_the_body_is_not_asked_for(server: Server) -> None:
    with server.connect() as sock:
        raw = Raw(sock)
        answer = raw.ask(
            b"POST /pid HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert answer.status == 200
        assert answer.closes


def test_a_pipeline(server: Server) -> None:
    one = b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"
    slow = b"GET /sleep?s=0.01 HTTP/1.1\r\nHost: x\r\n\r\n"
    with server.connect() as sock:
        raw = Raw(sock)
        raw.send(one + slow + one + slow)
        raw.send(one)
        assert [raw.answer().status for _ in range(5)] == [200] * 5


def test_a_large_response(server: Server) -> None:
    connection = server.http()
    for size in (100_000, 20_000_000):
        connection.request("GET", f"/large?n={size}")
        assert len(connection.getresponse().read()) == size
    connection.close()


def test_a_client_of_1_0(server: Server) -> None:
    answer = server.raw(b"GET /large?n=200000 HTTP/1.0\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert body == b"x" * 200_000


def test_head(server: Server) -> None:
    answer = server.raw(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length" in answer or b"content-length" in answer


def test_an_exception_before_the_response(server: Server) -> None:
    assert server.get("/fail")[0] == 500
    assert server.get("/silent")[0] == 500
    assert server.get("/")[0] == 200


def test_an_exception_in_the_response_is_an_unclean_end(server: Server) -> None:
    connection = server.http()
    connection.request("GET", "/fail-late")
    answer = connection.getresponse()
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    connection.close()


def test_trailers_reach_a_client_that_takes_them(server: Server) -> None:
    ask = b"GET /trailers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    assert server.raw(ask + b"TE: trailers\r\n\r\n").endswith(b"4\r\nsome\r\n0\r\nx-sum: 1\r\n\r\n")
    assert server.raw(ask + b"\r\n").endswith(b"4\r\nsome\r\n0\r\n\r\n")


def test_early_hints(server: Server) -> None:
    answer = server.raw(b"GET /hints HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n"
    )


def test_a_file_by_its_path(server: Server, tmp_path: Path) -> None:
    for size in (10, 5_000_000):
        file = tmp_path / f"file-{size}"
        file.write_bytes(random.Random(size).randbytes(size))
        assert server.get(f"/file?path={file}") == (200, file.read_bytes())


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_parts_of_an_open_file(server: Server, tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    data = random.Random(size).randbytes(size)
    file.write_bytes(data)
    offset, count = size // 5, size // 2
    path = f"/zero-copy?path={file}&offset={offset}&count={count}"
    for length in ("", f"&length={size - offset}"):
        assert server.get(path + length) == (200, data[offset:])
    _, _, body = server.raw(f"GET {path} HTTP/1.0\r\n\r\n".encode()).partition(b"\r\n\r\n")
    assert body == data[offset:]
    extensions = json.loads(server.get("/scope")[1])["extensions"]
    assert {"http.response.zerocopysend", "http.response.pathsend"} <= extensions.keys()


def test_a_path_that_would_block_the_loop_is_not_sent(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # nobody writes to it
    server = start(APP, *ASGI).wait_ready(1)
    server.expected_errors = {"application failed"}
    assert server.get(f"/file?path={tmp_path}/fifo")[0] == 500
    assert "is not a regular file" in server.wait("application failed")["traceback"]
    assert server.get("/pid")[0] == 200


def test_a_request_that_is_refused(server: Server) -> None:
    assert server.raw(b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_body_that_is_no_body(server: Server) -> None:
    """The server answers, whatever the application makes of it."""
    answer = server.raw(
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_background_work_holds_up_neither_client_nor_connection(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "done"
    connection = server.http()
    for path in (f"/background?path={file}", "/pid"):
        connection.request("GET", path)
        assert connection.getresponse().read().decode() == str(server.worker_pids()[0])
    file.touch()
    connection.close()


def test_stop_waits_for_background_work(start: Start, tmp_path: Path) -> None:
    server = start(APP, *ASGI).wait_ready(1)
    file = tmp_path / "done"
    server.get(f"/background?path={file}")
    server.signal(15)
    server.wait("worker leaving")
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    assert server.process.poll() is None
    file.touch()
    assert server.wait_exit() == 0


def test_what_stands_around_the_application(start: Start, tmp_path: Path) -> None:
    """Mounts, compression, health path, request ids, access log, and a Unix socket."""
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "style.css").write_bytes(b"body { color: teal }\n" * 200)
    log, unix = tmp_path / "access", tmp_path / "http.sock"
    server = start(
        *(APP, *ASGI, "--set", f'static.mounts={{ "/static/" = "{assets}" }}'),
        *("--set", 'http.compress=["gzip"]', "--set", "http.health_path=/health"),
        *("--set", "http.request_id_header=X-Request-ID", "--set", f"log.access={log}"),
        *("--set", "log.access_format=json"),
        bind=("127.0.0.1:0", f"unix:{unix}"),
    ).wait_ready(1)
    connection = server.http()
    for path, size in (("/static/style.css", 4200), ("/scope?" + "x" * 2000, 0)):
        connection.request("GET", path, headers={"Accept-Encoding": "gzip", "X-Request-ID": "me"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["X-Request-ID"] == "me"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert len(gzip.decompress(body)) == size or not size
    assert server.get("/health") == (200, b"ok\n")
    assert server.get("/static/nothing")[0] == 404
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(unix))
        sock.sendall(b"GET /scope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        scope = json.loads(read_all(sock).partition(b"\r\n\r\n")[2])
    assert scope["server"] == [str(unix), None]
    assert scope["client"] is None
    server.stop()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["uri"].partition("?")[0] for line in lines] == [
        *("/static/style.css", "/scope", "/health", "/static/nothing", "/scope"),
    ]
    assert lines[0]["request_id"] == lines[1]["request_id"] == "me"
    assert all(line["size"] > 0 and line["elapsed"] >= 0 for line in lines)


def test_a_trusted_proxy_speaks_for_its_client(start: Start) -> None:
    trusted = 'http.trusted_proxies=["127.0.0.1"]'
    headers = 'http.trusted_headers=["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Prefix"]'
    server = start(APP, *ASGI, "--set", trusted, "--set", headers).wait_ready(1)
    told = {
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/shop",
    }
    connection = server.http()
    connection.request("GET", "/scope", headers=told)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (404, b"not found\n")  # the path has the prefix
    connection.request("GET", "/scope", headers={**told, "X-Forwarded-Prefix": ""})
    scope = json.loads(connection.getresponse().read())
    assert scope["client"] == ["192.0.2.7", 0]
    assert scope["scheme"] == "https"
    connection.close()


def test_abandoned_requests_leave_nothing_behind(start: Start, tmp_path: Path) -> None:
    """Each of 200 has left in the middle; the application ends all of them."""
    server = start(APP, *ASGI).wait_ready(1)
    (worker,) = server.workers()
    for number in range(200):
        with server.connect() as sock:
            path = f"/events?path={tmp_path}/{number}" if number % 2 else "/large?n=50000000"
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert sock.recv(100)
    until(lambda: server.status()["workers"][0]["held"] == 0)
    until(lambda: not server.status()["workers"][0]["calls"])
    assert len(list(tmp_path.glob("*.left"))) == 100
    assert server.get("/pid") == (200, str(worker.pid).encode())
