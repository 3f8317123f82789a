"""Metrics as a collector reads them, under load and while workers are killed."""

import contextlib
import http.client
import shutil
import socket
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.support.commands import ROOT
from tests.support.load import Gate
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE, until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def get(port: int, target: str = "/metrics", method: str = "GET", **headers: str) -> str:
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
    try:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return f"{answer.status} {answer.getheader('Content-Type')}\n{answer.read().decode()}"
    finally:
        connection.close()


def scrape(port: int) -> tuple[Samples, Samples]:
    """All samples, and those of them that may only grow."""
    head, _, text = get(port).partition("\n")
    assert head.startswith("200 text/plain")
    every: Samples = {}
    growing: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            every[key] = sample.value
            counts = family.type == "counter" or not sample.name.endswith("_created")
            if family.type in ("counter", "histogram", "summary") and counts:
                growing[key] = sample.value
    return every, growing


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


HOST = "127.0.0.2"
"""Another than the server's, so that both can let the kernel choose their port."""


def metrics_port(server: Server) -> int:
    server.wait("metrics served")
    return int(server.find("metrics served")[-1]["address"].rpartition(":")[2])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "tests/apps/supervised.py", tmp_path / "supervised_app.py")
    config = tmp_path / "site.toml"
    config.write_text(
        '[server]\napp = "supervised_app:app"\n[workers]\ncount = 2\nthreads = 2\n'
        f'[metrics]\nbind = "{HOST}:0"\n'
    )
    return config


@contextlib.contextmanager
def under_load(server: Server) -> Iterator[list[int]]:
    """Two clients that ask one after the other; statuses of what was answered."""
    answered: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):  # its worker was killed
                answered.append(server.get("/pid")[0])

    with ThreadPoolExecutor(2) as clients:
        asking = [clients.submit(ask) for _ in range(2)]
        yield answered
        over.set()
    for each in asking:
        each.result()


def test_they_go_on_over_kills_reloads_and_an_upgrade(
    start: Start, site: Path, tmp_path: Path
) -> None:
    server = start(str(site)).wait_ready(2)
    server.expected_errors.add("worker died")
    port = metrics_port(server)
    before: Samples = {}
    sent = 0

    def look() -> Samples:
        nonlocal before
        every, growing = scrape(port)
        for key, count in before.items():
            # A process that is gone has no CPU time any more; all else goes on.
            if key[0] != "prefork_worker_cpu_seconds_total":
                assert growing[key] >= count, key
        before = growing
        return every

    def load(number: int) -> None:
        nonlocal sent
        for _ in range(number):
            assert server.get("/pid")[0] == 200
        sent += number

    load(20)

    def all_counted() -> Samples | None:
        every = look()
        counts = (
            value(every, "prefork_requests_total", status="2xx"),
            value(every, "prefork_request_duration_seconds_count"),
            value(every, "prefork_workers", state="idle"),
        )
        return every if counts == (20, 20, 2) else None

    # A request is counted when its answer is on its way.
    every = until(all_counted, "20 requests, and two workers that are idle")
    (listener,) = server.addresses[:1]
    assert value(every, "prefork_listen_queue_depth", listener=listener) == 0
    pids = {dict(labels)["pid"] for name, labels in every if name == "prefork_worker_pss_bytes"}
    assert pids == {str(worker.pid) for worker in server.workers()}
    with under_load(server) as answered:
        for number in range(3):
            server.workers()[0].kill()
            look()
            server.wait("worker ready", 3 + number)
            look()
    sent += len(answered)
    server.ask("reload")
    load(5)
    look()
    server.ask("upgrade")
    load(5)
    every = look()
    # A worker that was killed may have counted a request whose answer did not get through.
    lost = value(every, "prefork_requests_total", status="2xx") - sent
    # Either way: a kill can also reset a connection whose answer was counted and not yet read.
    assert abs(lost) <= 3 * 2
    assert value(every, "prefork_worker_restarts_total", reason="crashed") == 3
    assert value(every, "prefork_reloads_total", result="success") >= 1
    assert value(every, "prefork_upgrades_total", result="success") == 1
    until(lambda: look()["prefork_workers", (("state", "retiring"),)] == 0, "no worker retires")

    gate = Gate(tmp_path / "gate")
    with server.connect() as client:
        client.sendall(f"GET {gate.target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        gate.arrived()
        every = look()
        assert value(every, "prefork_requests_in_flight") == 1
        assert value(every, "prefork_workers", state="busy") == 1
        gate.open()
        assert client.recv(15) == b"HTTP/1.1 200 OK"


def test_what_else_a_client_may_ask(start: Start, site: Path) -> None:
    server = start(str(site)).wait_ready(2)
    port = metrics_port(server)
    assert get(port, "/").startswith("404 ")
    assert get(port, method="POST").startswith("405 ")
    assert get(port, method="HEAD").partition("\n")[2] == ""
    text = get(port, Accept="application/openmetrics-text; version=1.0.0")
    head, _, body = text.partition("\n")
    assert "openmetrics-text" in head
    families: Iterable[Metric] = openmetrics(body)  # type: ignore[no-untyped-call]
    assert {family.name for family in families} >= {"prefork_requests", "prefork_workers"}
    # Clients that send nothing, or half of it, are in nobody's way.
    with socket.create_connection((HOST, port)) as half:
        half.sendall(b"GET /metr")
        assert get(port).startswith("200 ")
        half.sendall(b"x" * 9000)
        with contextlib.suppress(ConnectionResetError):  # some of it was not read
            assert half.recv(100) == b""
    assert server.get("/pid")[0] == 200


def test_another_address_by_reload(start: Start, site: Path) -> None:
    server = start(str(site)).wait_ready(2)
    port = metrics_port(server)
    text = site.read_text()
    site.write_text(text.partition("[metrics]")[0])
    server.ask("reload")
    with pytest.raises(ConnectionRefusedError):
        get(port)
    site.write_text(text)
    server.ask("reload")
    server.wait("metrics served", 2)
    port = metrics_port(server)
    assert get(port).startswith("200 ")
    with socket.create_server((HOST, 0)) as other:
        server.expected_errors.add("reload failed")
        taken = other.getsockname()[1]
        site.write_text(text.replace(f"{HOST}:0", f"{HOST}:{taken}"))
        assert str(taken) in server.refusal("reload")
    assert get(port).startswith("200 ")


def test_its_address_is_checked(tmp_path: Path) -> None:
    from prefork.config import ConfigError, Source, load

    config = tmp_path / "site.toml"
    config.write_text(
        '[server]\napp = "a:b"\nbind = ":80"\n[metrics]\nbind = ":80"\n', encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="is also in server"):
        load(Source(str(config)), {})
    config.write_text('[server]\napp = "a:b"\n[metrics]\nbind = "systemd"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="systemd:NAME"):
        load(Source(str(config)), {})
