"""`wsgi.file_wrapper` sends what `read()` gives, and no response breaks off without a sign."""

import contextlib
import errno
import gzip
import os
import platform
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.apps.files import KINDS
from tests.support.raw_http import Raw, request, talk
from tests.support.server import Server, Start, servers

FILES = "tests.apps.files:app"
SIZES = [0, 100, 40_000, 3_000_000]
"""Empty; sent with the head; sent by the kernel; more than the kernel takes at once."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any) -> Iterator[Server]:
    for start in servers(tmp_path_factory.mktemp("files")):
        yield start(FILES, "--workers", "1").wait_ready(1)


def path_for(kind: str, size: int, tmp: Path) -> Path:
    data = (b"secret" + random.Random(size).randbytes(94)) * (size // 100)
    path = tmp / f"{kind.replace(' ', '-')}-{size}"
    path.write_bytes(gzip.compress(data) if "gzip" in kind else data)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_the_wrapper_sends_what_read_gives(server: Server, tmp_path: Path, size: int) -> None:
    with talk(server) as client:
        for kind in KINDS:
            asked = f"?kind={quote(kind)}&path={path_for(kind, size, tmp_path)}"
            wanted = client.ask(request(f"/read{asked}"))
            answer = client.ask(request(f"/wrap{asked}"))
            assert (answer.status, kind) == (200, kind)
            assert answer.body == wanted.body, kind
            assert client.ask(request(f"/wrap{asked}", method="HEAD"), "HEAD").body == b""


@pytest.mark.parametrize("path", ["/proc/cpuinfo", "/sys/devices/system/cpu/online", "/dev/null"])
@pytest.mark.parametrize("kind", ["raw", "buffered"])
def test_a_file_that_is_made_while_it_is_read(server: Server, path: str, kind: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"there is no {path}")
    with talk(server) as client:
        answer = client.ask(request(f"/wrap?kind={kind}&path={path}"))
        assert answer.body == client.ask(request(f"/read?kind={kind}&path={path}")).body
        assert bool(answer.body) == (path != "/dev/null")


def test_a_plain_file_has_its_length(server: Server, tmp_path: Path) -> None:
    """So the kernel sends it: what is read has none."""
    path = path_for("raw", 40_000, tmp_path)
    with talk(server) as client:
        for kind in ("raw", "buffered"):
            answer = client.ask(request(f"/wrap?kind={kind}&path={path}"))
            assert answer["Content-Length"] == "40000"
        answer = client.ask(request(f"/wrap?kind=wrapper&path={path}"))
        assert answer["Content-Length"] is None


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="numbers of calls")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_a_file_is_sent_if_the_kernel_refuses_sendfile(
    start: Start, tmp_path: Path, number: int
) -> None:
    server = start(
        "tests.apps.no_sendfile:app", "--workers", "1", env={"REFUSED": str(number)}
    ).wait_ready(1)
    with talk(server) as client:
        for size in SIZES:
            path = path_for("raw", size, tmp_path)
            for _ in range(2):
                answer = client.ask(request(f"/wrap?path={path}"))
                assert answer.body == path.read_bytes()
    path = path_for("raw", 30_000_000, tmp_path)
    with talk(server, receive_buffer=4096) as slow:  # most of it is sent when it takes more
        assert slow.ask(request(f"/wrap?path={path}")).body == path.read_bytes()


def test_a_file_that_shrinks_while_it_is_sent_is_logged(server: Server, tmp_path: Path) -> None:
    path = path_for("raw", 30_000_000, tmp_path)
    with talk(server, receive_buffer=4096) as client:
        client.send(request(f"/wrap?path={path}"))
        assert client.line() == "HTTP/1.1 200 OK"
        os.truncate(path, 1000)
        with contextlib.suppress(ConnectionError):
            assert len(client.rest()) < 30_000_000
    event = server.wait("response broken off", level="warning")
    assert event["reason"] == "a file has shrunk while it was sent"


def is_reset(client: Raw) -> bool:
    """Whether the connection ends with a reset; all that came is read first."""
    try:
        client.rest()
    except ConnectionResetError:
        return True
    return False


def test_over_http_1_0_a_response_that_breaks_off_is_no_whole_one(start: Start) -> None:
    """Its end is the end of the connection, so that has to be a reset."""
    limits = ("--set", "workers.request_timeout=1", "--set", "workers.graceful_timeout=2")
    server = start(FILES, "--workers", "1", *limits).wait_ready(1)
    server.expected_errors |= {"application failed", "worker died", "request timed out"}
    for how in ("end", "raise", "kill", "hang"):
        with talk(server) as client:
            client.send(request(f"/half?how={how}", version="HTTP/1.0"))
            assert client.line() == "HTTP/1.1 200 OK"
            assert (how, is_reset(client)) == (how, how != "end")


def test_over_http_1_0_a_whole_response_ends_with_a_close(server: Server) -> None:
    """Also a long one, of which the kernel has bytes for the client when the connection ends."""
    with talk(server, receive_buffer=4096) as client:
        answer = client.ask(request("/big?n=20000000", version="HTTP/1.0"))
        assert len(answer.body) == 20_000_000 // 65536 * 65536
        assert client.at_end()
