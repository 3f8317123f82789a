"""What a worker finds imported does not depend on what the master has done before."""

import http.client
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.support.certificates import Authority
from tests.support.changing_app import rewrite
from tests.support.server import Server, Start
from tests.support.site import pids
from tests.support.waiting import PATIENCE, until


def renewed(server: Server) -> None:
    """Has another worker born, at once: a crash would have to wait for its backoff."""
    (old,) = pids(server).values()
    os.kill(old, signal.SIGTERM)
    server.wait("worker exited", pid=old)
    until(lambda: list(pids(server).values()) not in ([], [old]), "another worker")


def seen(server: Server) -> tuple[set[str], bool]:
    """The modules that a worker found when it imported the application, and whether the metrics of
    that are those of several processes."""
    status, body = server.get("/")
    assert status == 200
    present, multiprocess = json.loads(body)
    return set(present), multiprocess


def scrape(accept: str) -> Callable[[Server], object]:
    def run(server: Server) -> None:
        host, _, port = server.wait("metrics served")["address"].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        connection.request("GET", "/metrics", headers={"Accept": accept})
        assert connection.getresponse().status == 200
        connection.close()

    return run


def frozen(server: Server) -> None:
    """A worker that stands still: its stacks are asked for, and it is looked at in /proc."""
    (worker,) = server.workers()
    worker.suspend()
    server.wait("worker frozen")
    worker.resume()


def refused_reload(server: Server) -> None:
    """The port is taken: the process that holds it is looked up, also the second time."""
    file = Path(server.status()["file"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = file.read_text(encoding="utf-8")
        port = taken.getsockname()[1]
        rewrite(file, text.replace("[server]\n", f'[server]\nbind = ["127.0.0.1:{port}"]\n'))
        for _ in range(2):
            holder = f"by {psutil.Process().name()} (pid {os.getpid()})"
            assert holder in server.refusal("reload")
        rewrite(file, text)


STEPS: dict[str, Callable[[Server], object]] = {
    "status": lambda server: server.status(),
    "scrape": scrape("text/plain"),
    "scrape of OpenMetrics": scrape("application/openmetrics-text"),
    "status --stack": lambda server: server.ask("stack", slot=min(pids(server))),
    "scale": lambda server: server.ask("scale", count=1),
    "a bad command": lambda server: server.refusal("scale", count=0),
    "reopen": lambda server: server.ask("reopen"),
    "a frozen worker": frozen,
    "reload": lambda server: server.ask("reload"),
    "a refused reload": refused_reload,
    "upgrade": lambda server: server.ask("upgrade"),
}


def test_what_the_master_did_before_shows_in_no_worker(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(
        f'[server]\napp = "tests.apps.imports:app"\nchdir = "{Path.cwd()}"\n'
        '[workers]\ncount = 1\nmax_memory = "100GiB"\n[metrics]\nbind = "127.0.0.2:0"\n',
        encoding="utf-8",
    )
    server = start(str(file), bind=(), env={"PORT": "0"}).wait_ready(1)
    server.expected_errors.add("reload failed")
    before, multiprocess = seen(server)
    assert multiprocess
    # What one step imported would show in the worker after it, and so after each later one.
    for step, run in STEPS.items():
        run(server)
        renewed(server)
        after, multiprocess = seen(server)
        assert (step, after ^ before, multiprocess) == (step, set(), True)


def test_nor_with_tls_and_syslog(start: Start, tmp_path: Path) -> None:
    """What these need is imported at the start, and is in each worker."""
    authority = Authority(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "log"))
        file = tmp_path / "site.toml"
        file.write_text(
            f'[server]\napp = "tests.apps.imports:app"\nchdir = "{Path.cwd()}"\n'
            f'[tls]\ncertificate = "{authority.issue("server.pem", "localhost")}"\n'
            '[workers]\ncount = 1\n[metrics]\nbind = "127.0.0.2:0"\n'
            f'[log]\naccess = "syslog:{tmp_path / "log"}"\n',
            encoding="utf-8",
        )
        server = start(str(file)).wait_ready(1)

        def present() -> set[str]:
            connection = http.client.HTTPSConnection(
                "localhost", server.port, context=authority.client(), timeout=PATIENCE
            )
            connection.request("GET", "/", headers={"Connection": "close"})
            found: list[str] = json.loads(connection.getresponse().read())[0]
            connection.close()
            return set(found)

        before = present()
        scrape("text/plain")(server)
        server.ask("reload")
        renewed(server)
        assert present() ^ before == set()
