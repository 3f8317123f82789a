"""A response that makes progress is not cut: waiting for the client is not the application's time,
and at a reload what only waits for its client goes on."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.apps.long_responses import PIECE
from tests.support.certificates import Authority
from tests.support.load import Gate
from tests.support.server import Server, Start
from tests.support.slow_client import SlowClient, whole
from tests.support.waiting import until

APP = "tests.apps.long_responses:app"
ASGI = "tests.apps.long_responses:asgi"
PIECES = 480
"""Some 30 MB, which is more than the kernel keeps for a client."""

WHOLE = whole(PIECE * PIECES)


def settings(**values: object) -> list[str]:
    """`workers__count=1` as --set workers.count=1."""
    return [
        part
        for name, value in values.items()
        for part in ("--set", f"{name.replace('__', '.')}={value}")
    ]


LITTLE_ROOM = settings(http__response_memory="64KiB", http__response_spill="64KiB")


def workers(server: Server, generation: int) -> list[dict[str, Any]]:
    return [worker for worker in server.status()["workers"] if worker["generation"] == generation]


def waiting_for_clients(server: Server, seconds: float) -> int:
    """How many calls have run for so long, and wait for their client now."""
    return sum(
        call["waiting"] and call["elapsed"] > seconds
        for worker in server.status()["workers"]
        for call in worker["calls"]
    )


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_a_response_is_not_cut_because_its_client_is_slow(start: Start, protocol: str) -> None:
    """Each has a worker for itself."""
    limits = settings(workers__request_timeout=1, workers__slow_request=0.5)
    app, paths = APP, ["/generated", "/written", "/wrapped", "/whole"]
    if protocol == "asgi":
        app, paths = ASGI, ["/asgi"]
        limits += settings(server__protocol="asgi")
    count = len(paths)
    server = start(app, "--workers", str(count), *limits, *LITTLE_ROOM).wait_ready(count)
    with ExitStack() as stack:
        clients = {
            path: stack.enter_context(SlowClient(server, f"{path}?n={PIECES}")) for path in paths
        }
        for client in clients.values():
            client.take(1 << 20)
        until(lambda: waiting_for_clients(server, 2.5) == count, "the calls wait for their clients")
        assert server.command("status").stdout.count("waits for its client") == count
        for path, client in clients.items():
            assert (path, client.take_rest()) == (path, WHOLE)
    assert server.find("request timed out") == server.find("slow request") == []


def test_a_stream_is_bounded_by_the_time_between_two_pieces(start: Start) -> None:
    limits = settings(workers__request_timeout=2)
    server = start(APP, "--workers", "1", *limits).wait_ready(1)
    status, body = server.get("/events?n=7&s=0.4")
    assert (status, body.count(b"data:")) == (200, 7)
    assert server.find("request timed out") == []


@pytest.mark.parametrize("pieces", [0, 1, 40])
def test_an_application_that_is_stuck_is_given_up(
    start: Start, tmp_path: Path, pieces: int
) -> None:
    """Before its response, within it, and after it had to wait for its client."""
    gate = Gate(tmp_path / "gate")
    limits = settings(workers__request_timeout=1, workers__graceful_timeout=1)
    server = start(APP, "--workers", "1", *limits, *LITTLE_ROOM).wait_ready(1)
    server.expected_errors |= {"request timed out", "application failed", "worker died"}
    with SlowClient(server, f"/stuck?n={pieces}&fifo={gate.path}") as client:
        if pieces:
            client.take(1024)
            with pytest.raises(OSError, match="reset"):
                client.take_rest()
        else:
            client.take_rest()
            assert client.head.startswith(b"HTTP/1.1 504")
    event = server.wait("request timed out")
    assert event["elapsed"] >= 1
    assert ("total" in event) == bool(pieces)
    assert "in stuck" in event["traceback"]


def test_a_client_that_takes_nothing_is_given_up(start: Start) -> None:
    limits = settings(http__write_timeout=1, workers__request_timeout=60)
    server = start(APP, "--workers", "1", *limits, *LITTLE_ROOM).wait_ready(1)
    with SlowClient(server, f"/generated?n={PIECES}") as client:
        client.take(1024)
        server.wait("response broken off")
        assert server.get("/received") == (200, b"0")
        with pytest.raises(OSError, match="reset"):
            client.take_rest()


def test_a_client_that_takes_too_little_is_given_up(start: Start) -> None:
    limits = settings(
        http__write_timeout=1, http__min_write_rate=1 << 30, workers__request_timeout=60
    )
    server = start(APP, "--workers", "1", *limits, *LITTLE_ROOM).wait_ready(1)
    with SlowClient(server, f"/generated?n={PIECES}") as client:
        # It is never silent, and is given up all the same.
        until(
            lambda: not client.take(256) or server.find("response broken off"),
            "the client is given up",
        )
    assert server.get("/received") == (200, b"0")


def test_a_slow_upload_that_is_streamed_is_not_the_applications_time(start: Start) -> None:
    limits = settings(workers__request_timeout=1, http__stream_body="true")
    server = start(APP, "--workers", "1", *limits).wait_ready(1)
    with SlowClient(server, "/received", method="POST", head="Content-Length: 2000\r\n") as client:
        client.sock.sendall(bytes(1000))
        until(lambda: waiting_for_clients(server, 2.5), "the call waits for its client")
        client.sock.sendall(bytes(1000))
        assert client.take_rest() == whole(b"2000")
    assert server.find("request timed out") == []


def test_a_streamed_upload_that_is_too_slow_is_given_up(start: Start) -> None:
    limits = settings(http__stream_body="true", http__body_timeout=1, http__min_body_rate=1 << 20)
    server = start(APP, "--workers", "1", *limits).wait_ready(1)
    with SlowClient(
        server, "/received", method="POST", head="Content-Length: 10000000\r\n"
    ) as client:
        # It sends something all the time, and far too little.
        client.sock.settimeout(0.05)

        def answered() -> bool:
            client.sock.sendall(b"x")
            try:
                client.read_head()
            except TimeoutError:
                return False
            return True

        until(answered, "an answer")
        assert client.head.startswith(b"HTTP/1.1 408")


# Reload, upgrade, stop.


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with a large file."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "large.bin").write_bytes(PIECE * PIECES)
    return place


def stays(server: Server, pid: int) -> None:
    """Waits until the worker has got more time than `graceful_timeout` gives."""
    server.wait("worker stays for its clients", pid=pid)
    until(
        lambda: any(
            worker["pid"] == pid and worker["since"] > 2.5 for worker in workers(server, 1)
        ),
        "the old worker serves its client for longer than graceful_timeout",
    )


@pytest.mark.parametrize("command", ["reload", "upgrade"])
@pytest.mark.parametrize("kind", ["file", "kept", "generated", "asgi"])
def test_a_download_goes_on_over_a_reload(
    start: Start, site: Path, command: str, kind: str
) -> None:
    # The client takes nothing until it is over.
    limits = settings(workers__graceful_timeout=1, http__write_timeout=600)
    if kind == "file":
        path, target = "/large.bin", str(site)
    else:
        path = f"/{'whole' if kind == 'kept' else kind}?n={PIECES}"
        target = APP
        if kind == "asgi":
            target = ASGI
            limits += settings(server__protocol="asgi")
        if kind != "kept":
            limits += LITTLE_ROOM
    server = start(target, "--workers", "1", *limits).wait_ready(1)
    (old,) = server.worker_pids()
    with SlowClient(server, path) as client:
        client.take(1 << 20)
        server.ask(command)
        stays(server, old)
        assert client.take_rest() == WHOLE
    server.wait("worker exited", pid=old)
    assert server.find("worker killed") == []


def test_a_call_that_works_between_two_waits_goes_on_over_a_reload(start: Start) -> None:
    """The worker looks once in a second, and finds it at work."""
    limits = settings(workers__graceful_timeout=3, server__protocol="asgi")
    server = start(ASGI, "--workers", "1", *limits, *LITTLE_ROOM).wait_ready(1)
    (old,) = server.worker_pids()
    with SlowClient(server, f"/works?n={PIECES}") as client:
        client.take(1 << 20)
        server.ask("reload")
        stays(server, old)
        assert client.take_rest() == WHOLE
    server.wait("worker exited", pid=old)


def test_a_download_over_tls_goes_on_over_a_reload(
    start: Start, site: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("server.pem", "localhost")
    limits = settings(workers__graceful_timeout=1, tls__certificate=certificate)
    server = start(str(site), "--workers", "1", *limits).wait_ready(1)
    (old,) = server.worker_pids()
    with SlowClient(server, "/large.bin", tls=authority.client()) as client:
        client.take(1 << 20)
        server.ask("reload")
        stays(server, old)
        assert client.take_rest() == WHOLE
    server.wait("worker exited", pid=old)


def test_an_upload_goes_on_over_a_reload_and_has_its_call(start: Start) -> None:
    limits = settings(workers__graceful_timeout=1)
    server = start(APP, "--workers", "1", *limits).wait_ready(1)
    (old,) = server.worker_pids()
    head = "Content-Length: 400000\r\n"
    with SlowClient(server, "/received", method="POST", head=head) as client:
        client.sock.sendall(bytes(200_000))  # more than can move to another worker
        until(
            lambda: workers(server, 1)[0]["state"] == "reading", "the worker has begun to read it"
        )
        server.ask("reload")
        stays(server, old)
        client.sock.sendall(bytes(200_000))
        assert client.take_rest() == whole(b"400000")
    server.wait("worker exited", pid=old)


def test_a_client_keeps_an_old_worker_for_drain_timeout_at_most(start: Start, site: Path) -> None:
    limits = settings(workers__graceful_timeout=1, workers__drain_timeout=3)
    server = start(str(site), "--workers", "1", *limits).wait_ready(1)
    (old,) = server.worker_pids()
    with SlowClient(server, "/large.bin") as client:
        client.take(1024)
        server.ask("reload")
        server.wait("worker stays for its clients", pid=old, clients=1)
        killed = server.wait("worker killed", pid=old)
        reason = "still there 3 s after the order to leave (workers.drain_timeout)"
        assert killed["reason"] == reason


def test_an_application_that_is_stuck_keeps_no_old_worker(start: Start, tmp_path: Path) -> None:
    """Also if its client has a part of the response to take."""
    gate = Gate(tmp_path / "gate")
    limits = settings(workers__graceful_timeout=1)
    server = start(APP, "--workers", "1", *limits).wait_ready(1)
    (old,) = server.worker_pids()
    with SlowClient(server, f"/stuck?n=200&fifo={gate.path}") as client:
        client.take(1024)
        gate.arrived()
        server.ask("reload")
        server.expected_errors.add("worker died")
        server.wait("worker killed", pid=old)
    assert server.find("worker stays for its clients") == []
    gate.open()


@contextmanager
def download_beside_stuck(
    start: Start, site: Path, gate: Gate, request_timeout: int
) -> Iterator[tuple[Server, int, SlowClient, SlowClient]]:
    """One worker of several threads: a client has begun its download, another's call is stuck."""
    limits = settings(workers__graceful_timeout=1, workers__request_timeout=request_timeout)
    server = start(
        *(APP, "--workers", "1", "--threads", "4", *limits),
        *("--set", f'static.mounts={{"/static/" = "{site}"}}'),
    ).wait_ready(1)
    server.expected_errors |= {"request timed out", "worker died"}
    (old,) = server.worker_pids()
    with (
        SlowClient(server, "/static/large.bin") as client,
        SlowClient(server, f"/stuck?fifo={gate.path}") as stuck,
    ):
        client.take(1 << 20)
        gate.arrived()
        yield server, old, client, stuck


def test_an_application_that_is_stuck_in_a_thread_cuts_no_download_of_another(
    start: Start, site: Path, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    # 4 s are more than a reload takes on a busy machine.
    with download_beside_stuck(start, site, gate, 4) as (server, old, client, stuck):
        server.ask("reload")
        server.wait("worker stays for its clients", pid=old)
        stuck.take_rest()
        assert stuck.head.startswith(b"HTTP/1.1 504")
        assert client.take_rest() == WHOLE
        server.wait("worker killed", pid=old)
    assert len(server.find("request timed out")) == 1
    gate.open()


def test_a_late_call_is_logged_once_if_its_worker_stays_for_clients(
    start: Start, site: Path, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    with download_beside_stuck(start, site, gate, 1) as (server, old, client, stuck):
        stuck.take_rest()
        assert stuck.head.startswith(b"HTTP/1.1 504")
        server.wait("worker stays for its clients", pid=old)
        assert client.take_rest() == WHOLE
        server.wait("worker killed", pid=old)
    assert len(server.find("request timed out")) == 1
    gate.open()


@pytest.mark.parametrize("reloaded", [False, True])
def test_a_stop_has_its_bound_whatever_clients_do(start: Start, site: Path, reloaded: bool) -> None:
    limits = settings(workers__graceful_timeout=1)
    server = start(str(site), "--workers", "1", *limits).wait_ready(1)
    with SlowClient(server, "/large.bin") as client:
        client.take(1024)
        if reloaded:
            server.ask("reload")
            server.wait("worker stays for its clients")
        stopping = server.start_command("stop")
        stopping.communicate()
        assert stopping.returncode == 0
        assert server.wait_exit() == 0
    assert server.find("worker killed")


def test_stop_says_that_a_client_has_a_response_to_take(start: Start, site: Path) -> None:
    server = start(str(site), "--workers", "1").wait_ready(1)
    with SlowClient(server, "/large.bin") as client:
        client.take(1024)
        stopping = server.start_command("stop")
        assert stopping.stderr is not None
        lines = iter(stopping.stderr.readline, "")
        assert any("1 client with a response to take" in line for line in lines)
        os.kill(server.pid, signal.SIGINT)
        stopping.communicate()
