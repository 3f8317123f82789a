"""WebSockets through the proxies of deploy/: the handshake, messages, and the close frame."""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.test_behind_proxies import nginx_text
from tests.support.machines import PROXY, Network, needs_namespaces, network, proxy, within
from tests.support.nginx import nginx_command
from tests.support.programs import DEPLOY, find
from tests.support.raw_http import Raw
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE, until
from tests.support.websocket_client import HANDSHAKE, server_frame
from tests.support.websocket_frames import client_frame

pytestmark = needs_namespaces

APP = "tests.apps.asgi_websockets:app"
ASGI = ("--set", "server.protocol=asgi", "--workers", "1")


def opened(path: bytes, forged: bytes = b"") -> Raw | None:
    """A WebSocket at the proxy; None if that does not answer yet."""
    try:
        sock = socket.create_connection((PROXY, 80), PATIENCE)
    except OSError:
        return None
    raw = Raw(sock)
    raw.send((HANDSHAKE % path)[:-2] + forged + b"\r\n")
    try:
        answer = raw.answer()
    except (AssertionError, OSError):
        return None
    return raw if answer.status == 101 else None


def scope(net: Network) -> dict[str, Any]:
    """The scope that the application has seen, of a client that pretends to be another."""

    def ask() -> dict[str, Any] | None:
        raw = opened(b"/describe", b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n")
        if raw is None:
            return None
        with raw.sock:
            found: dict[str, Any] = json.loads(server_frame(raw)[1])
            return found

    return until(lambda: net.at_client(ask), "the proxy answers")


def echoes_until(net: Network, end: Callable[[], None]) -> tuple[int, bytes]:
    """Some messages and pings through the proxy, then the close frame that `end` causes."""

    def talk() -> tuple[int, bytes]:
        raw = opened(b"/echo")
        assert raw is not None
        with raw.sock:
            for payload in (b"a", b"b" * 70_000):
                raw.send(client_frame(2, payload))
                assert server_frame(raw) == (0x82, payload)
            raw.send(client_frame(9, b"p"))
            assert server_frame(raw) == (0x8A, b"p")
            end()
            return server_frame(raw)

    return net.at_client(talk)


def check(net: Network, server: Server) -> None:
    seen = scope(net)
    assert seen["client"][0] == "10.1.0.2"
    assert seen["scheme"] == "ws"
    assert "6.6.6.6" not in json.dumps(seen)
    closed = echoes_until(net, lambda: server.process.send_signal(signal.SIGHUP))
    assert closed == (0x88, (1012).to_bytes(2, "big"))


@pytest.mark.parametrize("name", ["nginx/prefork.conf", "nginx/tcp.conf", "container/nginx.conf"])
def test_nginx(start: Start, tmp_path: Path, name: str) -> None:
    path = tmp_path / "site.http"
    server = start(
        *(APP, *ASGI, "--set", 'http.trusted_proxies=["unix"]'), bind=(f"unix:{path}",)
    ).wait_ready(1)
    command = nginx_command(tmp_path, nginx_text(name, path), level="crit")
    with network() as net, proxy(net.proxy, *command):
        check(net, server)


def test_haproxy(start: Start, tmp_path: Path) -> None:
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    config = tmp_path / "haproxy.cfg"
    config.write_text(text.replace("check inter 1s", "check inter 100ms"))
    with network() as net, proxy(net.proxy, find("haproxy"), "-db", "-f", config):
        server = start(
            *(APP, *ASGI, "--set", "http.health_path=/health", "--set", "http.keepalive=1"),
            *("--set", 'http.trusted_proxies=["10.0.0.1"]'),
            bind=(f"{net.address(1)}:8000",),
            wrapper=within(net.machine(1)),
        ).wait_ready(1)
        check(net, server)
        server.stop()
