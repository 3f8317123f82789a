"""What a worker finds imported does not depend on what the master has done before."""

import http.client
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.certificates import Authority
from tests.support.changing_app import rewrite
from tests.support.server import Server, Start
from tests.support.waiting import until


def renewed(server: Server) -> None:
    """Has another worker born."""
    (pid,) = server.worker_pids()
    os.kill(pid, signal.SIGKILL)
    server.wait("worker died", pid=pid)
    until(lambda: [each for each in server.ready_pids() if each != pid], "another worker")


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
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
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
            done = server.command("reload", check=False)
            assert f"by {psutil.Process().name()} (pid {os.getpid()})" in done.stderr
        rewrite(file, text)


STEPS: dict[str, Callable[[Server], object]] = {
    "scrape": scrape("text/plain"),
    "scrape of OpenMetrics": scrape("application/openmetrics-text"),
    "status": lambda server: server.command("status"),
    "status --json": lambda server: server.command("status", "--json"),
    "status --stack": lambda server: server.command("status", "--stack", "0"),
    "scale": lambda server: server.command("scale", "1"),
    "a bad command": lambda server: server.command("scale", "0", check=False),
    "reopen": lambda server: server.command("reopen"),
    "a frozen worker": frozen,
    "reload": lambda server: server.command("reload"),
    "a refused reload": refused_reload,
    "upgrade": lambda server: server.command("upgrade"),
}


@pytest.mark.parametrize("step", STEPS)
def test_what_the_master_did_before_shows_in_no_worker(
    start: Start, tmp_path: Path, step: str
) -> None:
    file = tmp_path / "site.toml"
    file.write_text(
        f'[server]\napp = "tests.apps.imports:app"\nchdir = "{Path.cwd()}"\n'
        '[workers]\ncount = 1\nmax_memory = "100GiB"\n[metrics]\nbind = "127.0.0.2:0"\n',
        encoding="utf-8",
    )
    bind = ("127.0.0.1:0",) if step != "a refused reload" else ()
    server = start(str(file), bind=bind, env={"PORT": "0"}).wait_ready(1)
    server.expected_errors |= {"worker died", "reload failed"}
    before, multiprocess = seen(server)
    assert multiprocess
    STEPS[step](server)
    renewed(server)
    after, multiprocess = seen(server)
    assert after - before == before - after == set()
    assert multiprocess


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
        server.expected_errors.add("worker died")

        def present() -> set[str]:
            connection = http.client.HTTPSConnection(
                "localhost", server.port, context=authority.client(), timeout=30
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
