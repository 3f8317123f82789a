"""What a client can have logged: a few lines, however many connections it makes for that."""

import contextlib
import json
import socket
import struct
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.server import Event, Server, Start
from tests.support.sockets import read_all
from tests.support.waiting import until

COUNT = 300
RESET = struct.pack("@ii", 1, 0)

ECHO = ("--tcp", "tests.apps.tcp_apps:echo")
BASIC = "tests.apps.basic:app"
PROXY = ("--set", "http.proxy_protocol=true")
TRUSTING = (*PROXY, "--set", 'http.trusted_proxies=["127.0.0.1"]')
STRICT = (*PROXY, "--set", 'http.trusted_proxies=["192.0.2.1"]')
DEBUG = ("--set", "log.level=debug", "--set", "workers.handover=false")

RAISES = """\
def handle(sock, address):
    while sock.recv(100):
        pass
"""


def send(server: Server, data: bytes, *, reset: bool = False) -> None:
    with server.connect() as sock:
        sock.sendall(data)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        else:
            with contextlib.suppress(OSError):  # reset, since there was more to read
                sock.shutdown(socket.SHUT_WR)
                read_all(sock)


@pytest.mark.parametrize(
    ("name", "args", "data"),
    [
        ("connection refused", (BASIC, *TRUSTING), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("connection refused", (BASIC, *TRUSTING), b"PROXY TCP4 nonsense\r\n"),
        ("connection refused", (BASIC, *STRICT), b"PROXY UNKNOWN\r\n"),
        ("connection refused", (*ECHO, *TRUSTING), b"nonsense\r\n"),
        (
            "connection refused",
            (*ECHO, *STRICT),
            b"PROXY UNKNOWN\r\n",
        ),
        ("requests refused", (BASIC,), b"nonsense\r\n\r\n"),
        ("requests refused", (BASIC,), b"GET / HTTP/1.1\r\n\r\n"),
    ],
)
def test_lines_of_one_kind_are_few(
    start: Start, name: str, args: tuple[str, ...], data: bytes
) -> None:
    server = start("--workers", "1", *args, *DEBUG).wait_ready(1)
    for _ in range(COUNT):
        send(server, data)
    server.wait(name)
    server.stop()
    # More only if 300 connections took more than five seconds.
    assert 1 <= len(server.find(name)) < 30
    assert len(server.events) < 60


def test_what_is_not_logged_is_counted(start: Start) -> None:
    server = start("--workers", "1", BASIC, *STRICT).wait_ready(1)
    for _ in range(50):
        send(server, b"PROXY UNKNOWN\r\n")

    def counted() -> Event | None:
        """Ten are logged at once, and one of the others some seconds later."""
        send(server, b"PROXY UNKNOWN\r\n")
        logged = server.find("connection refused")
        return next((event for event in logged if event.get("skipped")), None)

    assert until(counted, "a line that counts those before it")["skipped"] >= 40


def test_handshakes_that_fail(start: Start, tmp_path: Path) -> None:
    certificate = Authority(tmp_path / "authority").issue("site.pem", "localhost")
    server = start(
        *("--workers", "1", BASIC, *DEBUG, "--set", f"tls.certificate={certificate}"),
    ).wait_ready(1)
    for _ in range(COUNT):
        send(server, b"\x16\x03\x01\x00\x05nonsense")
    server.wait("handshake failed")
    server.stop()
    assert len(server.find("handshake failed")) < 30


def test_handlers_whose_clients_reset(start: Start, tmp_path: Path) -> None:
    (tmp_path / "resets.py").write_text(RAISES)
    server = start("--tcp", "resets:handle", "--workers", "1", cwd=tmp_path).wait_ready(1)
    server.expected_errors = {"handler failed"}
    for _ in range(COUNT):
        send(server, b"x", reset=True)
    server.wait("handler failed")
    server.stop()
    assert len(server.find("handler failed")) < 30
    assert json.dumps(server.find("handler failed")[0]).count("ConnectionResetError") >= 1
