"""What an application sees of a client behind the proxies of deploy/."""

import http.client
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.machines import PROXY, Network, needs_namespaces, network, proxy, within
from tests.support.nginx import nginx_command
from tests.support.processes import sockets
from tests.support.programs import DEPLOY, find
from tests.support.server import Start
from tests.support.waiting import PATIENCE, until

pytestmark = needs_namespaces

BASIC = "tests.apps.basic:app"
CLIENT = "10.1.0.2"
FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "Forwarded": "for=6.6.6.6;proto=https",
}


def seen(net: Network, count: int = 2) -> list[dict[str, Any]]:
    """The environs of requests on one connection, with headers that a proxy would send."""

    def ask() -> list[dict[str, Any]]:
        connection = http.client.HTTPConnection(PROXY, 80, timeout=PATIENCE)
        found = []
        for _ in range(count):
            connection.request("GET", "/environ", headers={"Host": "site.example", **FORGED})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                found.append(json.loads(body))
        connection.close()
        return found

    def settled() -> list[dict[str, Any]]:
        try:
            found = net.at_client(ask)
        except OSError:  # the proxy does not listen yet
            return []
        return found if len(found) == count else []

    answers: list[dict[str, Any]] = until(settled, "the proxy answers")
    return answers


def check(environ: dict[str, Any]) -> None:
    assert environ["REMOTE_ADDR"] == CLIENT
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["HTTP_HOST"] == "site.example"
    assert "6.6.6.6" not in json.dumps(environ)


def test_nginx_by_a_unix_socket(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "site.http"
    text = (DEPLOY / "nginx" / "prefork.conf").read_text()
    text = text.replace("unix:/run/prefork/site.http", f"unix:{path}")
    trusted = '["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"]'
    server = start(
        BASIC,
        *("--workers", "1", "--set", 'http.trusted_proxies=["unix"]'),
        *("--set", f"http.trusted_headers={trusted}"),
        bind=(f"unix:{path}",),
    ).wait_ready(1)
    command = nginx_command(tmp_path, text, level="crit")
    with network() as net, proxy(net.proxy, *command):
        (worker,) = server.workers()
        before = sockets(worker.pid)
        for environ in seen(net):
            check(environ)
        # Upstream keep-alive: two requests, and one connection for both, which is still there.
        assert len(sockets(worker.pid) - before) == 1


@pytest.mark.parametrize("protocol", [False, True])
def test_haproxy_with_headers_and_with_the_proxy_protocol(
    start: Start, tmp_path: Path, protocol: bool
) -> None:
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    text = text.replace("check inter 1s", "check inter 100ms")
    if protocol:  # as the file's comment has it
        assert "    option forwardfor\n" in text
        text = text.replace("    option forwardfor\n", "")
        text = text.replace(
            "default-server check ", "default-server send-proxy-v2 check-send-proxy check "
        )
    config = tmp_path / "haproxy.cfg"
    config.write_text(text)
    with network() as net, proxy(net.proxy, find("haproxy"), "-db", "-f", config):
        server = start(
            BASIC,
            *("--workers", "1", "--set", "http.health_path=/health"),
            *("--set", 'http.trusted_proxies=["10.0.0.1"]'),
            *("--set", 'http.trusted_headers=["X-Forwarded-For", "X-Forwarded-Proto"]'),
            *("--set", f"http.proxy_protocol={str(protocol).lower()}"),
            *("--set", "http.keepalive=1"),
            bind=(f"{net.address(1)}:8000",),
            wrapper=within(net.machine(1)),
        ).wait_ready(1)
        for environ in seen(net):
            check(environ)
        server.stop()
