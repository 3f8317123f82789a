"""What an application sees of a client behind the proxies of deploy/."""

import http.client
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from prefork.config.values import FORWARDING_HEADERS, USUAL_FORWARDING_HEADERS
from prefork.http.queue_time import waited
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
    "X-Forwarded-Host": "forged.example",
    "X-Forwarded-Port": "forged-port",
    "X-Forwarded-Prefix": "/forged-prefix",
    "Forwarded": "for=6.6.6.6;proto=https;host=forged.example",
    "X-Real-IP": "6.6.6.6",
    "X-Request-ID": "forged-id",
    "X-Request-Start": "t=1600000000.forged",
}


def seen(net: Network, count: int = 2) -> list[dict[str, Any]]:
    """The environs of requests on one connection, with headers that a proxy would send: each of
    them twice, in two spellings."""

    def ask() -> list[dict[str, Any]]:
        connection = http.client.HTTPConnection(PROXY, 80, timeout=PATIENCE)
        found = []
        for _ in range(count):
            connection.putrequest("GET", "/environ", skip_host=True)
            connection.putheader("Host", "site.example")
            for name, value in FORGED.items():
                connection.putheader(name, value)
                connection.putheader(name.lower(), value)
                connection.putheader(name.replace("-", "_"), value)
            connection.endheaders()
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
    text = json.dumps(environ)
    assert "6.6.6.6" not in text
    assert "forged" not in text
    assert environ["HTTP_X_REAL_IP"] == CLIENT
    assert environ["HTTP_X_REQUEST_ID"]
    assert waited(environ["HTTP_X_REQUEST_START"], time.time()) is not None


def nginx_text(name: str, path: Path) -> str:
    """A file of deploy/, as a part of the http block, with the server at a Unix socket."""
    text = (DEPLOY / name).read_text()
    if name == "container/nginx.conf":
        text = text[text.index("http {") + len("http {") : text.rindex("}")]
        text = text.replace("access_log off;", "").replace("listen 8080;", "listen 80;")
    ours = r"server (unix:/run/prefork/site\.http|10\.0\.0\.\d+:8000|app:8000)"
    text, count = re.subn(ours, f"server unix:{path}", text)
    assert count
    return text


@pytest.mark.parametrize("trusted", [[], FORWARDING_HEADERS], ids=["default", "all"])
@pytest.mark.parametrize("name", ["nginx/prefork.conf", "nginx/tcp.conf", "container/nginx.conf"])
def test_nginx(start: Start, tmp_path: Path, name: str, trusted: list[str]) -> None:
    """What a client has forged does not arrive, whether prefork would believe it or not."""
    path = tmp_path / "site.http"
    server = start(
        *(BASIC, "--workers", "1", "--set", 'http.trusted_proxies=["unix"]'),
        *(("--set", f"http.trusted_headers={json.dumps(trusted)}") if trusted else ()),
        bind=(f"unix:{path}",),
    ).wait_ready(1)
    command = nginx_command(tmp_path, nginx_text(name, path), level="crit")
    with network() as net, proxy(net.proxy, *command):
        (worker,) = server.workers()
        before = sockets(worker.pid)
        for environ in seen(net):
            check(environ)
        # Upstream keep-alive: two requests, and one connection for both, which is still there.
        assert len(sockets(worker.pid) - before) == 1


@pytest.mark.parametrize(
    ("protocol", "trusted"),
    [(False, USUAL_FORWARDING_HEADERS), (False, FORWARDING_HEADERS), (True, FORWARDING_HEADERS)],
)
def test_haproxy_with_headers_and_with_the_proxy_protocol(
    start: Start, tmp_path: Path, protocol: bool, trusted: tuple[str, ...]
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
            *("--set", f"http.trusted_headers={json.dumps(trusted)}"),
            *("--set", f"http.proxy_protocol={str(protocol).lower()}"),
            *("--set", "http.keepalive=1"),
            bind=(f"{net.address(1)}:8000",),
            wrapper=within(net.machine(1)),
        ).wait_ready(1)
        for environ in seen(net):
            check(environ)
        server.stop()
