"""Many machines behind HAProxy and nginx, with the files of deploy/: what rolling.md says is so."""

import contextlib
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machines import (
    MACHINES,
    PROXY,
    Network,
    needs_namespaces,
    network,
    proxy,
    within,
)
from tests.support.network import enter
from tests.support.nginx import nginx_command
from tests.support.path_load import PathLoad, tcp
from tests.support.programs import DEPLOY, find
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE, until

pytestmark = needs_namespaces

CLIENTS = 4

APP = """
import time
time.sleep({boot})

def app(environ, start_response):
    time.sleep(1 if environ["PATH_INFO"] == "/long" else {delay})
    start_response("200 OK", [("Content-Length", "{length}")])
    return [b"{body}"]
"""

VERSIONS = ("one", "two", "slow")


class Site:
    """A prefork on each machine; the body of its answers names machine and version."""

    def __init__(self, start: Start, net: Network, tmp: Path) -> None:
        self.net = net
        self.servers: dict[int, Server] = {}
        self._start = start
        self._tmp = tmp
        for number in MACHINES:
            self.start(number, "one")
        for number in MACHINES:
            self.servers[number].wait_ready(1)

    @staticmethod
    def body(number: int, version: str) -> bytes:
        return f"{version} of machine {number}".encode()

    def start(self, number: int, version: str, boot: float = 0.0, delay: float = 0.005) -> Server:
        place = self._tmp / f"{number}"
        place.mkdir(exist_ok=True)
        body = self.body(number, version).decode()
        text = APP.format(boot=boot, delay=delay, body=body, length=len(body))
        (place / f"{version}.py").write_text(text)
        self.servers[number] = self._start(
            f"{version}:app",
            *("--workers", "1", "--threads", "2", "--set", f"server.chdir={place}"),
            *("--set", "http.health_path=/health", "--set", "workers.drain_delay=0.5"),
            *("--set", "http.keepalive=1"),
            bind=(f"{self.net.address(number)}:8000",),
            wrapper=within(self.net.machine(number)),
        )
        return self.servers[number]


@contextlib.contextmanager
def haproxy(net: Network, tmp: Path) -> Iterator[None]:
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    # Checks come quickly, and patience is that of a busy machine; all else is as in the file.
    for old, new in (
        ("check inter 1s", "check inter 100ms"),
        ("fastinter 500ms", "fastinter 100ms"),
        ("timeout connect 1s", "timeout connect 2s"),
        ("timeout queue 5s", "timeout queue 30s"),
        ("timeout check 2s", "timeout check 1s"),
        ("timeout server 35s", "timeout server 8s"),
    ):
        assert old in text
        text = text.replace(old, new)
    config = tmp / "haproxy.cfg"
    config.write_text(text)
    with proxy(net.proxy, find("haproxy"), "-db", "-f", config):
        yield


@contextlib.contextmanager
def nginx(net: Network, tmp: Path) -> Iterator[None]:
    text = (DEPLOY / "nginx" / "tcp.conf").read_text()
    for old, new in (
        ("fail_timeout=5s", "fail_timeout=1s"),
        ("keepalive_timeout 10s", "keepalive_timeout 500ms"),
        ("proxy_read_timeout 35s", "proxy_read_timeout 8s"),
        ("proxy_connect_timeout 1s", "proxy_connect_timeout 2s"),
        ("proxy_next_upstream_timeout 10s", "proxy_next_upstream_timeout 30s"),
    ):
        assert old in text
        text = text.replace(old, new)
    with proxy(net.proxy, *nginx_command(tmp, text, level="crit")):
        yield


PROXIES = {"haproxy": haproxy, "nginx": nginx}


@pytest.mark.parametrize("name", PROXIES)
def test_a_rolling_deploy_and_faults(name: str, start: Start, tmp_path: Path) -> None:
    with network() as net, PROXIES[name](net, tmp_path):
        site = Site(start, net, tmp_path)
        until(lambda: net.at_client(answers), "the proxy answers")
        right = {site.body(number, version) for number in MACHINES for version in VERSIONS}
        load = PathLoad(
            tcp(80, PROXY),
            one_shot=2,
            kept=2,
            path="/",
            right=right,
            begin=lambda: enter(net.client),
        )
        # When a machine is told to stop, one of these is in flight there. HAProxy repeats no POST;
        # nginx may send one to a machine that has just stopped, which it does not ask for health.
        long = PathLoad(
            tcp(80, PROXY),
            one_shot=len(MACHINES),
            path="/long",
            method="POST" if name == "haproxy" else "GET",
            right=right,
            begin=lambda: enter(net.client),
        )
        try:
            for number in MACHINES:
                served(load, site.body(number, "one"))

            # A new version on each, one after the other: not one request fails.
            for number in MACHINES:
                site.servers[number].command("stop")
                assert site.servers[number].wait_exit() == 0
                site.start(number, "two").wait_ready(1)
                served(load, site.body(number, "two"))
            assert not load.failures, load.failures
            long.end()

            # One is killed, with all that it has in flight, and nothing else is lost.
            net.kill(net.machine(1))
            site.servers[1].wait_exit()
            load.wait_answers(200)
            # It comes back slowly: it listens before it can answer, and answers late.
            site.start(1, "slow", boot=1.0, delay=0.05)
            served(load, site.body(1, "slow"))
            assert load.failures.total() <= CLIENTS, load.failures

            # The cable of one is pulled: what is under way there never comes.
            net.pull_the_cable(2)
            load.wait_answers(300)
            net.plug_it_in(2)
            served(load, site.body(2, "two"))
        finally:
            load.end_with_losses(2 * CLIENTS)
        for server in site.servers.values():
            server.stop()


def served(load: PathLoad, body: bytes) -> None:
    """Waits until that machine has answered once more."""
    before = load.bodies[body]
    until(lambda: load.bodies[body] > before, f"{body!r}, of {dict(load.bodies)}")


def answers() -> bool:
    connection = http.client.HTTPConnection(PROXY, 80, timeout=PATIENCE)
    with contextlib.suppress(OSError, http.client.HTTPException, socket.timeout):
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    return False
