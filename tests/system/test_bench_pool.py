"""The parts of the bench that look at a pool, with our own server in the place of each peer."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import apps, peers
from bench.closed_loop import Row, compare, kept_open
from bench.figures import Section
from bench.parts import (
    asgi,
    asgi_idle,
    asgi_neighbour,
    balance,
    growth,
    idle,
    memory,
    neighbour,
    respawn,
    traffic,
    websocket,
)
from bench.peers import prefork
from bench.servers import OPENSSL, Server, compile_programs
from tests.support.server import Start
from tests.support.waiting import PATIENCE

HELLO = prefork("bench.hello:app", "--workers", "2")
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(autouse=True, scope="module")
def load_generator() -> None:
    if shutil.which("cc"):
        compile_programs()


@needs_cc
def test_memory_is_that_of_the_whole_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "WORKERS", 2)
    monkeypatch.setattr(memory, "REQUESTS", 50)
    monkeypatch.setattr(memory, "servers", lambda: [Server("gunicorn", HELLO)])
    (section,) = memory.measure(True)
    size = section.middle("gunicorn", memory.PSS)
    assert size is not None
    assert 10 < size < 500, "megabytes of three Python processes"


@needs_cc
def test_memory_of_a_server_that_lacks_workers_is_no_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "PATIENCE", 0.1)
    monkeypatch.setattr(memory, "servers", lambda: [Server("gunicorn", HELLO)])
    (section,) = memory.measure(True)
    assert section.servers["gunicorn"].complaint.startswith("only ")


def respawned(monkeypatch: pytest.MonkeyPatch) -> list[Section]:
    command = prefork("bench.apps:lone()", "--workers", "1")
    monkeypatch.setattr(respawn, "KILLS", 3)
    monkeypatch.setattr(respawn, "servers", lambda app: [Server("gunicorn", command, apps.PROBE)])
    return respawn.measure(True)


def test_each_kill_is_answered_by_another_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    sections = respawned(monkeypatch)
    assert [section.key for section in sections] == ["respawn-lone", "respawn-django"]
    for section in sections:
        assert len(section.servers["gunicorn"].values[respawn.AWAY.title]) == 3


def test_a_worker_that_outlives_its_kill_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(respawn, "os", SimpleNamespace(kill=lambda pid, number: None))
    for section in respawned(monkeypatch):
        assert "answers after its death" in section.servers["gunicorn"].problem


def test_balance_counts_the_connections_of_every_worker(start: Start) -> None:
    server = start("bench.apps:worker", "--workers", "4").wait_ready(4)
    shares = balance.shares(server.port, 40)
    assert len(shares) == 4
    assert sum(shares) == 40
    assert shares == sorted(shares)


@needs_cc
def test_a_slow_neighbour_and_its_fast_clients_are_all_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apps, "SLOW", 0.1)
    command = prefork("bench.apps:neighbour", "--workers", "2")
    monkeypatch.setattr(neighbour, "servers", lambda: [Server("prefork", command)])
    (section,) = neighbour.measure(True)
    figures = section.servers["prefork"]
    assert figures.valid, figures.complaint
    assert set(figures.values) == {measure.title for measure in neighbour.MEASURES}


@needs_cc
def test_what_browsers_and_clients_of_an_api_send_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = prefork(traffic.APP, "--workers", "1")
    monkeypatch.setattr(traffic, "servers", lambda quick: [Server("prefork", command)])
    monkeypatch.setattr(traffic, "secured", lambda quick: Section("tls", "TLS", "Not now.", ()))
    *sections, _ = traffic.measure(True)
    assert [section.servers["prefork"].complaint for section in sections] == ["invalid: "] * 6


@needs_cc
@pytest.mark.skipif(not OPENSSL.exists(), reason="needs the headers of OpenSSL")
def test_a_hello_over_tls_is_asked_and_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Server] = []

    def ours(servers: list[Server], rows: list[Row], *rest: Any, **options: Any) -> None:
        compared.extend(servers)
        compare(servers[:1], rows, *rest, **options)

    monkeypatch.setattr(traffic, "compare", ours)
    section = traffic.secured(True)
    assert len(compared) == 4
    assert all(server.tls for server in compared)
    assert section.servers["prefork"].valid, section.servers["prefork"].complaint


@needs_cc
def test_growth_is_a_line_for_each_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONNECTIONS", "FIELDS", "BODIES", "WORKERS"):
        monkeypatch.setattr(growth, name, (1, 40))
    monkeypatch.setattr(growth, "WORKERS", (1, 2))
    command = prefork(growth.APP, "--workers", "1")
    monkeypatch.setattr(growth, "one_worker", lambda: [Server("prefork", command)])
    monkeypatch.setattr(peers, "granian", lambda app, threads, *more: prefork(app, *more))
    for section in growth.measure(True):
        for figures in section.servers.values():
            assert figures.valid, figures.complaint
            assert list(figures.values) == [measure.title for measure in section.measures]
        assert len(section.points) == 2


def test_idle_connections_are_kept_and_counted(start: Start) -> None:
    server = start("bench.hello:app", "--workers", "1").wait_ready(1)
    with kept_open(server.port, 20) as socks:
        assert idle.still_open(socks) == 20
        server.process.kill()
        server.process.wait()
        for sock in socks:
            sock.settimeout(PATIENCE)
            while sock.recv(1):
                pass
        assert idle.still_open(socks) == 0


@pytest.mark.parametrize("way", neighbour.WAYS)
def test_the_slow_ways_of_the_neighbour_answer(start: Start, way: str) -> None:
    server = start("bench.apps:neighbour", "--workers", "1").wait_ready(1)
    assert server.get(f"/{way}") == (200, b"hello world\n")


@pytest.mark.parametrize("app", respawn.APPS)
def test_the_applications_name_their_worker(start: Start, app: str) -> None:
    server = start(f"bench.apps:{app}()", "--workers", "1").wait_ready(1)
    (worker,) = (event["pid"] for event in server.find("worker ready"))
    assert respawn.ask(server.port) == worker
    assert server.get(apps.PROBE) == (200, b"hello world\n")


def test_the_objects_are_of_the_size_that_they_are_said_to_be(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start("bench.apps:objects()", "--workers", "1").wait_ready(1)
    assert server.get("/") == (200, b"hello world\n")
    status = server.status()
    pages = Path(f"/proc/{status['workers'][0]['pid']}/statm").read_text().split()[1]
    size = int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6
    assert apps.MEGABYTES < size < 2.5 * apps.MEGABYTES


@needs_cc
def test_what_idle_connections_and_websockets_take(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = ("--set", "http.max_connections=1100", "--set", "http.keepalive=300")
    no_pings = ("--set", "websocket.ping_interval=0")  # no client answers one
    command = prefork("bench.asgi_apps:raw", "--workers", "1", *keep, *no_pings)
    monkeypatch.setattr(asgi_idle, "servers", lambda: [Server("uvicorn", command)])
    for section in asgi_idle.measure(True):
        size = section.middle("uvicorn", idle.BYTES)
        assert size is not None, section.servers["uvicorn"].complaint
        assert section.servers["uvicorn"].valid


@needs_cc
def test_clients_beside_a_blocked_loop_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    command = prefork("bench.asgi_apps:blocking", "--workers", "2")
    monkeypatch.setattr(asgi_neighbour, "servers", lambda: [Server("uvicorn", command)])
    (section,) = asgi_neighbour.measure(True)
    assert section.middle("uvicorn", neighbour.P99) is not None
    assert section.servers["uvicorn"].valid


@needs_cc
def test_an_application_that_asks_another_server_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = prefork("bench.asgi_apps:asking", "--workers", "1")
    monkeypatch.setattr(asgi, "APPS", {"asking": "asking"})
    monkeypatch.setattr(asgi, "servers", lambda app: [Server("prefork", command)])
    (section,) = asgi.measure(True)
    assert section.key == "asgi-asking-32"
    assert section.servers["prefork"].valid, section.servers["prefork"].complaint


def test_messages_of_a_websocket_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    command = prefork("bench.asgi_apps:raw", "--workers", "1")
    monkeypatch.setattr(websocket, "servers", lambda: [Server("prefork", command)])
    for section in websocket.measure(True):
        assert section.servers["prefork"].valid, section.servers["prefork"].complaint
        assert section.middle("prefork", websocket.CPU) is not None
