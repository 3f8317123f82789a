"""A directory as a site: `prefork serve DIRECTORY`."""

import hashlib
import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.raw_http import Answer, request, talk
from tests.support.server import Server, Start, servers
from tests.support.waiting import until

INDEX = b"<!doctype html><title>Home</title>\n"
TEXT = b"0123456789" * 100
SECRET = b"the secret beside the site"
LARGE = random.Random(4).randbytes(12_000_000)


@pytest.fixture(scope="module")
def site(tmp_path_factory: Any) -> Path:
    above: Path = tmp_path_factory.mktemp("above")
    (above / "secret").write_bytes(SECRET)
    root = above / "site"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "bare").mkdir()
    (root / "index.html").write_bytes(INDEX)
    (root / "deep" / "index.html").write_bytes(b"deep")
    (root / "text.txt").write_bytes(TEXT)
    (root / "deep" / "er" / "a b.json").write_bytes(b"{}")
    (root / "caf\xe9.svg").write_bytes(b"<svg/>")
    (root / "data.unknown").write_bytes(b"?")
    (root / "empty.css").write_bytes(b"")
    (root / "large.bin").write_bytes(LARGE)
    (root / ".hidden").write_bytes(SECRET)
    (root / "out").symlink_to("../secret")
    (root / "absolute").symlink_to(above / "secret")
    (root / "inside").symlink_to("text.txt")
    return root


@pytest.fixture(scope="module", params=["1", "4"], ids=["1 thread", "4 threads"])
def server(request: pytest.FixtureRequest, site: Path, tmp_path_factory: Any) -> Iterator[Server]:
    for start in servers(tmp_path_factory.mktemp("static")):
        server = start(str(site), "--workers", "1", "--threads", request.param)
        yield server.wait_ready(1)
        assert server.other == []


def ask(server: Server, target: str, *headers: str, method: str = "GET") -> Answer:
    """One request, and proof that the connection is in step behind it."""
    with talk(server) as client:
        answer = client.ask(request(target, *headers, method=method), method)
        assert client.ask(request("/deep/", "Connection: close")).body == b"deep"
        assert client.at_end()
        return answer


@pytest.mark.parametrize(
    ("target", "kind", "body"),
    [
        ("/", "text/html; charset=utf-8", INDEX),
        ("/index.html", "text/html; charset=utf-8", INDEX),
        ("/?query=ignored", "text/html; charset=utf-8", INDEX),
        ("/deep/", "text/html; charset=utf-8", b"deep"),
        ("/text.txt", "text/plain; charset=utf-8", TEXT),
        ("/inside", "application/octet-stream", TEXT),
        ("/deep/er/a%20b.json", "application/json", b"{}"),
        ("/caf%C3%A9.svg", "image/svg+xml", b"<svg/>"),
        ("/data.unknown", "application/octet-stream", b"?"),
        ("/empty.css", "text/css; charset=utf-8", b""),
    ],
)
def test_files_and_their_types(server: Server, target: str, kind: str, body: bytes) -> None:
    answer = ask(server, target)
    assert (answer.status, answer["Content-Type"], answer.body) == (200, kind, body)
    assert answer["Content-Length"] == str(len(body))
    head = ask(server, target, method="HEAD")
    assert head.status == 200
    assert dict(head.headers) | {"Date": ""} == dict(answer.headers) | {"Date": ""}


@pytest.mark.parametrize(
    ("target", "status"),
    [("/nothing", 404), ("/bare/", 404), ("/text.txt/", 404), ("/.hidden", 404)],
)
def test_what_is_not_there(server: Server, target: str, status: int) -> None:
    assert ask(server, target).status == status


def test_a_directory_without_its_slash_is_redirected(server: Server) -> None:
    answer = ask(server, "/deep?q=1")
    assert (answer.status, answer["Location"]) == (301, "/deep/?q=1")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_405(server: Server, method: str) -> None:
    with talk(server) as client:
        answer = client.ask(request("/text.txt", method=method, body=b"x" * 100))
        assert answer.status == 405
        assert answer["Allow"] == "GET, HEAD, OPTIONS"
        assert client.ask(request("/deep/")).body == b"deep"


def test_a_client_that_has_the_file_is_not_sent_it_again(server: Server) -> None:
    first = ask(server, "/text.txt")
    tag, modified = first["ETag"], first["Last-Modified"]
    for header in (f"If-None-Match: {tag}", f"If-Modified-Since: {modified}"):
        again = ask(server, "/text.txt", header)
        assert (again.status, again.body, again["ETag"]) == (304, b"", tag)
    for header in ('If-None-Match: "other"', "If-Modified-Since: Mon, 01 Jan 2001 00:00:00 GMT"):
        assert ask(server, "/text.txt", header).body == TEXT


def test_a_changed_file_is_sent_again(server: Server, site: Path) -> None:
    path = site / "changing.txt"
    path.write_bytes(b"before")
    tag = ask(server, "/changing.txt")["ETag"]
    path.write_bytes(b"and after")
    assert ask(server, "/changing.txt", f"If-None-Match: {tag}").body == b"and after"


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("0-0", slice(0, 1)),
        ("5-14", slice(5, 15)),
        ("990-", slice(990, None)),
        ("-3", slice(-3, None)),
    ],
)
def test_a_range(server: Server, value: str, part: slice) -> None:
    answer = ask(server, "/text.txt", f"Range: bytes={value}")
    start, stop, _ = part.indices(1000)
    assert (answer.status, answer.body) == (206, TEXT[part])
    assert answer["Content-Range"] == f"bytes {start}-{stop - 1}/1000"


def test_a_range_of_a_large_file_and_one_beyond_it(server: Server) -> None:
    answer = ask(server, "/large.bin", "Range: bytes=1000000-8999999")
    assert answer.body == LARGE[1_000_000:9_000_000]
    answer = ask(server, "/large.bin", "Range: bytes=12000000-")
    assert (answer.status, answer["Content-Range"]) == (416, "bytes */12000000")


def test_a_large_file_is_whole(server: Server) -> None:
    answer = ask(server, "/large.bin")
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(LARGE).digest()


ESCAPES = [
    *("/../secret", "/deep/../../secret", "/./../secret", "/..", "/deep/..", "//../secret"),
    *("/%2e%2e/secret", "/%2E%2E/secret", "/.%2e/secret", "/deep/%2e%2e/%2e%2e/secret"),
    *("/..%2fsecret", "/..%2Fsecret", "/%2e%2e%2fsecret", "/deep%2f..%2f..%2fsecret"),
    *("/..%5csecret", "/..\\secret", "/%252e%252e/secret", "/..;/secret", "/..%00/secret"),
    *("/text.txt%00", "/text.txt%00.html", "/%00", "/secret%00/../text.txt"),
    *("/out", "/absolute", "/.hidden", "/%2ehidden", "/deep/../.hidden", "/./text.txt"),
    *("http://test/../secret", "http://test/%2e%2e/secret", "/%c0%ae%c0%ae/secret"),
    *(
        "//etc/passwd",
        "/%2fetc/passwd",
        "//%2fetc%2fpasswd",
        "/~root/",
        "/" + "../" * 40 + "etc/passwd",
    ),
]


@pytest.mark.parametrize("target", ESCAPES)
def test_no_path_leads_out_or_to_what_is_hidden(server: Server, target: str) -> None:
    with talk(server) as client:
        answer = client.ask(request(target))
        assert answer.status in (400, 404)
        assert SECRET not in answer.body
        assert b"root:" not in answer.body


def test_a_target_with_a_nul_or_a_space_in_it_is_no_request(server: Server) -> None:
    for target in (b"/text.txt\0", b"/../ secret"):
        with talk(server) as client:
            answer = client.ask(request("/TARGET").replace(b"/TARGET", target))
            assert answer.status == 400
            assert client.at_end()


def test_slow_readers_of_files_keep_no_client_waiting(server: Server) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(talk(server, receive_buffer=65_536)) for _ in range(12)]
        for client in slow:
            client.send(request("/large.bin"))
            assert client.head().status == 200
        for _ in range(20):
            assert ask(server, "/text.txt").body == TEXT
        for client in slow:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
            assert client.exactly(len(LARGE)) == LARGE
            assert client.ask(request("/deep/")).body == b"deep"


def test_a_reader_that_disconnects_leaves_no_file_open(server: Server, site: Path) -> None:
    (worker,) = server.workers()
    for _ in range(5):
        with talk(server, receive_buffer=65_536) as client:
            client.send(request("/large.bin"))
            assert client.head().status == 200
    large = str(site / "large.bin")
    until(lambda: large not in [file.path for file in worker.open_files()], "all are closed")


def test_a_file_that_shrinks_under_its_reader_ends_the_answer_short(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "site" / "shrinking.bin"
    path.parent.mkdir()
    path.write_bytes(LARGE)
    server = start(str(path.parent), "--workers", "1").wait_ready(1)
    with talk(server, receive_buffer=65_536) as client:
        client.send(request("/shrinking.bin"))
        assert client.head()["Content-Length"] == str(len(LARGE))
        os.truncate(path, 0)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        got = client.rest()
        assert len(got) < len(LARGE)
        assert LARGE.startswith(got)
    with talk(server) as client:
        assert client.ask(request("/shrinking.bin")).body == b""


def test_a_listing_and_another_index_where_they_are_asked_for(start: Start, tmp_path: Path) -> None:
    root = tmp_path / "site"
    (root / "sub").mkdir(parents=True)
    (root / "a&b.txt").write_bytes(b"x")
    (root / "sub" / "main.html").write_bytes(b"main")
    config = tmp_path / "site.toml"
    config.write_text(
        '[static]\nroot = "site"\nlisting = true\nindex = "main.html"\n[workers]\ncount = 1\n'
    )
    server = start(str(config)).wait_ready(1)
    status, page = server.get("/")
    assert status == 200
    assert b'<a href="a%26b.txt">a&amp;b.txt</a>' in page
    assert b'<a href="sub/">' in page
    assert server.get("/sub/") == (200, b"main")
