"""Stopping loses no connection: not one in flight, not one in the queue, not one under way."""

import itertools
import os
import resource
import signal
from pathlib import Path

import pytest

from tests.support.load import Gate
from tests.support.network import distant_host, enter, needs_namespaces
from tests.support.path_load import PathLoad, tcp, unix
from tests.support.raw_http import request, talk
from tests.support.server import Start
from tests.support.sockets import closed_port, read_all
from tests.support.waiting import until

APP = "tests.apps.basic:app"
has_rights = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"), reason="needs CAP_NET_ADMIN"
)


@has_rights
@pytest.mark.parametrize("workers", ["1", "3"])
def test_clients_that_connect_again_and_again_lose_nothing_at_a_stop(
    start: Start, workers: str
) -> None:
    server = start(APP, "--workers", workers).wait_ready(int(workers))
    load = PathLoad(tcp(server.port), one_shot=20, eager=True)
    load.wait_answers(200)
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    load.join()
    assert not load.failures, load.failures


@needs_namespaces
def test_a_client_a_tenth_of_a_second_away_loses_nothing_at_a_stop(start: Start) -> None:
    """Its handshakes take longer than everything else in a stop does."""
    with distant_host(0.05) as (namespace, address):
        server = start(APP, "--workers", "2", bind=("0.0.0.0:0",)).wait_ready(2)
        connect, begin = tcp(server.port, address), lambda: enter(namespace)
        load = PathLoad(connect, one_shot=20, begin=begin, eager=True)
        load.wait_answers(40)
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        load.join()
    assert not load.failures, load.failures


def test_keep_alive_clients_lose_nothing_at_a_stop(start: Start) -> None:
    server = start(APP, "--workers", "2").wait_ready(2)
    load = PathLoad(tcp(server.port), one_shot=0, kept=20, eager=True)
    load.wait_answers(200)
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    load.join()
    assert not load.failures, load.failures


def test_a_unix_socket_loses_nothing_at_a_stop(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    server = start(APP, "--workers", "2", bind=(f"unix:{path}",)).wait_ready(2)
    load = PathLoad(unix(path), one_shot=10, kept=10, eager=True)
    load.wait_answers(200)
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    load.join()
    assert not load.failures, load.failures
    assert not os.path.exists(path)


@pytest.mark.parametrize("threads", ["1", "4"])
def test_fifty_queued_requests_are_answered_at_a_stop(start: Start, threads: str) -> None:
    server = start(APP, "--workers", "1", "--threads", threads).wait_ready(1)
    sockets = [server.connect() for _ in range(50)]
    for sock in sockets:
        sock.sendall(b"GET /sleep?s=0.02 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    server.signal(signal.SIGTERM)
    answers = [read_all(sock) for sock in sockets]
    for sock in sockets:
        sock.close()
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert server.wait_exit() == 0


@pytest.mark.parametrize("queued", [0, 3])
def test_a_worker_without_a_free_descriptor_serves_what_is_queued_at_a_stop(
    start: Start, queued: int
) -> None:
    server = start(APP, "--workers", "1", "--set", "workers.graceful_timeout=10").wait_ready(1)
    server.expected_errors.add("accept failed")
    (worker,) = server.workers()
    taken = {int(fd) for fd in os.listdir(f"/proc/{worker.pid}/fd")}
    free = next(fd for fd in itertools.count() if fd not in taken)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (free, free))
    clients = [server.connect() for _ in range(queued)]
    for client in clients:
        client.sendall(request("/pid", "Connection: close"))
    server.signal(signal.SIGTERM)
    answers = [read_all(client) for client in clients]
    for client in clients:
        client.close()
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    assert server.wait_exit() == 0
    assert not server.find("worker killed")


def test_a_connection_without_a_byte_yet_is_answered_at_a_stop(start: Start) -> None:
    """It waits in the kernel (TCP_DEFER_ACCEPT), where no queue shows it."""
    server = start(APP, "--workers", "1").wait_ready(1)
    with server.connect() as sock:
        server.signal(signal.SIGTERM)
        server.wait("worker leaving")
        sock.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer
    assert server.wait_exit() == 0


@pytest.mark.parametrize(
    "more",
    [(), ("--set", "workers.preload=true"), ("--set", "workers.drain_delay=0.1")],
    ids=["plain", "preload", "drain delay"],
)
def test_term_to_the_whole_process_group_is_a_stop_like_any_other(
    start: Start, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """As `timeout`, service managers and shells send it: workers that it ends are not replaced,
    and what waits in the listen queue while all of them are busy is answered."""
    server = start(
        *("tests.apps.supervised:app", "--workers", "2", "--set", "log.level=debug", *more),
        start_new_session=True,
    ).wait_settled(1)
    forked = len(server.find("worker forked"))
    held = []
    for number in range(2):
        gate = Gate(tmp_path / f"gate-{number}")
        held.append((server.connect(), gate))
        held[-1][0].sendall(request(gate.target, "Connection: close"))
        gate.arrived()
    queued = [server.connect() for _ in range(5)]
    for sock in queued:
        sock.sendall(request("/pid", "Connection: close"))
    os.killpg(server.pid, signal.SIGTERM)
    server.wait("worker leaving", 2)
    for sock, gate in held:
        gate.open()
        with sock:
            assert read_all(sock).startswith(b"HTTP/1.1 200 ")
    for sock in queued:
        with sock:
            assert read_all(sock).startswith(b"HTTP/1.1 200 ")
    assert server.wait_exit() == 0
    assert len(server.find("worker forked")) == forked
    assert not server.find("zygote died")


def test_drain_delay_serves_on_while_the_health_path_says_503(start: Start) -> None:
    settings = ("--set", "http.health_path=/health", "--set", "workers.drain_delay=60")
    server = start(APP, "--workers", "2", *settings).wait_ready(2)
    assert server.get("/health") == (200, b"ok\n")
    with talk(server) as kept:
        assert not kept.ask(request("/")).closes
        server.signal(signal.SIGTERM)
        server.wait("draining")
        until(lambda: server.get("/health")[0] == 503, "503 on the health path")
        # Who has kept a connection leaves by itself.
        answer = kept.ask(request("/"))
        assert (answer.status, answer.closes) == (200, True)
        assert kept.at_end()
    assert server.get("/")[0] == 200
    server.signal(signal.SIGTERM)  # the second one makes it quick
    assert server.wait_exit() == 0


def test_a_stop_is_bounded_and_names_what_was_cut_off(start: Start) -> None:
    server = start(APP, "--workers", "1", "--set", "workers.graceful_timeout=1").wait_ready(1)
    server.expected_errors = {"worker died"}
    with server.connect() as sock:
        sock.sendall(b"GET /sleep?s=600 HTTP/1.1\r\nHost: t\r\n\r\n")
        until(lambda: server.status()["workers"][0]["state"] == "busy", "a busy worker")
        server.signal(signal.SIGTERM)
        server.wait("worker killed")
        assert server.wait_exit() == 0
    assert server.wait("worker died")["during"] == "GET /sleep?s=600"


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_what_a_stop_at_once_cuts_off_is_no_error(
    start: Start, number: signal.Signals, threads: str
) -> None:
    server = start(APP, "--workers", "1", "--threads", threads).wait_ready(1)
    with server.connect() as sock:
        sock.sendall(b"GET /sleep?s=600 HTTP/1.1\r\nHost: t\r\n\r\n")
        until(lambda: server.status()["workers"][0]["state"] == "busy", "a busy worker")
        server.signal(number)
        assert server.wait_exit() == 0
    exited = server.wait("worker exited")
    assert (exited["level"], exited["during"]) == ("warning", "GET /sleep?s=600")


def test_a_worker_that_has_to_be_killed_at_a_stop_at_once_is_no_error(
    start: Start, tmp_path: Path
) -> None:
    """It is in a function of C, and runs no signal handler."""
    (tmp_path / "stuck.py").write_text(
        "def app(environ, start_response):\n    return [bytes(sum(range(10**12)))]\n"
    )
    server = start("stuck:app", "--workers", "1", cwd=tmp_path).wait_ready(1)
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        until(lambda: server.status()["workers"][0]["state"] == "busy", "a busy worker")
        server.signal(signal.SIGINT)
        assert server.wait_exit() == 0
    died = server.wait("worker died", how="killed by SIGKILL")
    assert (died["level"], died["during"]) == ("warning", "GET /")


def test_a_crash_on_the_way_out_is_an_error(start: Start, tmp_path: Path) -> None:
    (tmp_path / "crashes.py").write_text(
        "import atexit, os, signal\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGSEGV))\n"
        "app = lambda environ, start_response: start_response('204 No Content', []) and []\n"
    )
    server = start("crashes:app", "--workers", "1", cwd=tmp_path).wait_ready(1)
    server.expected_errors = {"worker died"}
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    died = server.wait("worker died", how="killed by SIGSEGV")
    assert died["level"] == "error"


def test_a_second_term_makes_it_quick(start: Start) -> None:
    server = start(APP, "--workers", "1").wait_ready(1)
    with server.connect() as sock:
        sock.sendall(b"GET /sleep?s=600 HTTP/1.1\r\nHost: t\r\n\r\n")
        server.signal(signal.SIGTERM)
        server.wait("signal received", signal="SIGTERM")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_without_the_right_to_filter_it_says_so(start: Start) -> None:
    """And drains all that is in the queue."""
    if os.geteuid() != 0:
        pytest.skip("drops a right that it must have first")
    server = start(
        APP, "--workers", "1", wrapper=("setpriv", "--bounding-set=-net_admin", "--inh-caps=-all")
    ).wait_ready(1)
    sockets = [server.connect() for _ in range(20)]
    for sock in sockets:
        sock.sendall(b"GET /sleep?s=0.02 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    server.signal(signal.SIGTERM)
    for sock in sockets:
        with sock:
            assert read_all(sock).startswith(b"HTTP/1.1 200 ")
    assert server.wait_exit() == 0


def test_a_listener_dropped_by_a_reload_loses_nothing(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "site.toml"
    first = closed_port()

    def write(bind: list[int]) -> None:
        addresses = ", ".join(f'"127.0.0.1:{port}"' for port in bind)
        config.write_text(
            f'[server]\napp = "{APP}"\nbind = [{addresses}]\nchdir = "{os.getcwd()}"\n'
            "[workers]\ncount = 2\n"
        )

    write([0, first])
    server = start(str(config), bind=()).wait_ready(2)
    load = PathLoad(tcp(first), one_shot=10, eager=True)
    load.wait_answers(50)
    write([0])
    server.ask("reload")
    load.join()  # ends by itself: nobody listens there any more
    assert not load.failures, load.failures
    assert server.get("/")[0] == 200
