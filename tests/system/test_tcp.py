"""Handlers of one's own protocol: `serve --tcp module:function`."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support.processes import system_calls
from tests.support.server import Server, Start
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE, until


def tcp(start: Start, handler: str, *args: str, workers: int = 1, **options: object) -> Server:
    target = f"tests.apps.tcp_apps:{handler}"
    server = start("--tcp", target, "--workers", str(workers), *args, **options)
    return server.wait_ready(workers)


def line(sock: socket.socket) -> bytes:
    got = b""
    while not got.endswith(b"\n"):
        data = sock.recv(1)
        assert data, f"the end after {got!r}"
        got += data
    return got


def test_echo_to_the_end_of_a_half_closed_connection(start: Start) -> None:
    server = tcp(start, "echo")
    data = os.urandom(3_000_000)
    with server.connect() as sock:
        for first in range(0, len(data), 50_000):
            piece = data[first : first + 50_000]
            sock.sendall(piece)
            got = b""
            while len(got) < len(piece):
                got += sock.recv(65536)
            assert got == piece
        sock.sendall(b"the last")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"the last"


def test_a_handler_may_speak_first(start: Start) -> None:
    """No TCP_DEFER_ACCEPT here: the client may have nothing to say."""
    server = tcp(start, "whoami")
    with server.connect() as sock:
        pid, address = line(sock).decode().split(" ", 1)
        assert int(pid) == server.find("worker ready")[0]["pid"]
        assert address.strip() == repr(sock.getsockname())
        assert sock.recv(1) == b""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_an_exception_ends_that_connection_only_and_is_logged(start: Start, threads: str) -> None:
    server = tcp(start, "fails", "--threads", threads)
    server.expected_errors.add("handler failed")
    for number in range(1, 4):
        with server.connect() as sock:
            assert read_all(sock) == b"about to fail\n"
            peer = "{}:{}".format(*sock.getsockname())
        event = server.wait("handler failed", number)
        assert event["peer"] == peer
        assert event["traceback"].endswith("RuntimeError: raised by the TCP handler")
    assert len(server.find("worker ready")) == 1
    assert not server.find("worker exited")


def test_sys_exit_in_a_handler_ends_its_connection_only(start: Start) -> None:
    server = tcp(start, "exits")
    server.expected_errors.add("handler failed")
    for number in (1, 2):
        with server.connect() as sock:
            assert read_all(sock) == b""
        assert server.wait("handler failed", number)["traceback"].endswith("SystemExit: 5")


def test_a_handler_that_closes_its_socket_itself(start: Start) -> None:
    server = tcp(start, "closes")
    for _ in range(3):
        with server.connect() as sock:
            assert read_all(sock) == b"closed by the handler\n"


def test_a_handler_that_closes_the_number_of_its_socket_costs_others_nothing(start: Start) -> None:
    server = tcp(start, "closes_the_number")
    server.expected_errors.add("handler failed")
    for number in range(1, 4):
        with server.connect() as sock:
            assert read_all(sock) == b"closed by number\n"
        assert "os.dup" in server.wait("handler failed", number)["reason"]
    assert len(server.find("worker ready")) == 1


@pytest.mark.parametrize("threads", ["1", "2"])
def test_unread_bytes_do_not_turn_the_end_into_a_reset(start: Start, threads: str) -> None:
    """A close with unread data would be one (RFC 2525 section 2.17)."""
    server = tcp(start, "impolite", "--threads", threads)
    with server.connect() as sock:
        sock.sendall(b"x" * 20_000)
        assert line(sock) == b"not interested\n"
        sock.sendall(b"x" * 20_000)  # while the server has said its end
        assert sock.recv(1) == b""
    pid = server.find("worker ready")[0]["pid"]
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < 20, "the connection is closed")


@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_handler_finds_the_end_of_its_input_before_its_worker_is_killed(
    start: Start, tmp_path: Path, threads: str
) -> None:
    proof = tmp_path / "proof"
    limit = ("--set", "workers.graceful_timeout=5")
    env = {"PREFORK_TEST_EOF": str(proof)}
    server = tcp(start, "until_eof", "--threads", threads, *limit, env=env)
    (worker,) = (event["pid"] for event in server.find("worker ready"))
    with server.connect() as sock:
        assert line(sock) == b"ready\n"
        # A signal in the moment before recv(2) would be seen when recv returns, and not before;
        # the master repeats its orders.
        until(lambda: -1 not in system_calls(worker), "all of its threads wait")
        os.kill(worker, signal.SIGTERM)
        assert read_all(sock) == b"bye\n"
    assert server.wait("worker exited", pid=worker)["how"] == "exit status 0"
    assert int(proof.read_text()) == 0
    server.wait("worker ready", 2)


def test_four_threads_serve_four_at_once(start: Start) -> None:
    server = tcp(start, "together", "--threads", "4")
    socks = [server.connect() for _ in range(4)]
    assert sorted(line(sock) for sock in socks) == [b"1\n", b"2\n", b"3\n", b"4\n"]
    fifth = server.connect()
    socks[0].sendall(b"go\n")
    assert line(socks[0]) == b"4\n"
    assert line(fifth) == b"4\n", "it came in when one had left"
    for sock in (*socks[1:], fifth):
        sock.sendall(b"go\n")
        assert line(sock).strip().isdigit()
    for sock in (*socks, fifth):
        assert sock.recv(1) == b""
        sock.close()


def test_one_thread_serves_one_at_a_time(start: Start) -> None:
    server = tcp(start, "together")
    socks = [server.connect() for _ in range(4)]
    for sock in socks:
        sock.sendall(b"go\n")  # waits in the socket until its turn
    for sock in socks:
        assert read_all(sock) == b"1\n1\n"
        sock.close()


def test_a_busy_worker_leaves_connections_to_its_siblings(start: Start) -> None:
    server = tcp(start, "together", workers=2)
    with server.connect() as first, server.connect() as second:
        assert line(first) == b"1\n"
        assert line(second) == b"1\n"
        for sock in (first, second):
            sock.sendall(b"go\n")
            assert read_all(sock) == b"1\n"


def test_a_unix_socket(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    server = tcp(start, "echo", bind=(f"unix:{path}",))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(b"over a path")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"over a path"
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize("threads", ["1", "2"])
def test_each_of_several_listeners_is_served(start: Start, tmp_path: Path, threads: str) -> None:
    path = tmp_path / "who.sock"
    bind = ("127.0.0.1:0", "127.0.0.2:0", f"unix:{path}")
    server = tcp(start, "whoami", "--threads", threads, workers=2, bind=bind)
    workers = {event["pid"] for event in server.find("worker ready")}
    for _ in range(5):
        for address in server.addresses[:2]:
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port)), PATIENCE) as sock:
                assert int(line(sock).split()[0]) in workers
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(path))
            assert int(line(sock).split()[0]) in workers


@pytest.mark.parametrize("listeners", [1, 2])
def test_what_is_queued_at_a_stop_is_served(start: Start, listeners: int) -> None:
    bind = ("127.0.0.1:0", "127.0.0.2:0")[:listeners]
    server = tcp(start, "together", "--set", "workers.graceful_timeout=0", bind=bind)
    busy = server.connect()
    assert line(busy) == b"1\n"
    queued = []
    for address in server.addresses:
        host, _, port = address.rpartition(":")
        for _ in range(10):
            queued.append(socket.create_connection((host, int(port)), PATIENCE))
    server.signal(signal.SIGTERM)
    server.wait("worker leaving")
    # Its handler goes on, and the queue is served by the same worker.
    for sock in (busy, *queued):
        sock.sendall(b"go\n")
    assert read_all(busy) == b"1\n"
    for sock in queued:
        assert read_all(sock) == b"1\n1\n"
        sock.close()
    busy.close()
    assert server.wait_exit() == 0


def ask(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    assert line(sock) == data


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("limit", ["30", "0"])
def test_a_conversation_goes_on_over_a_reload(start: Start, threads: str, limit: str) -> None:
    setting = f"workers.graceful_timeout={limit}"
    server = tcp(start, "echo", "--threads", threads, "--set", setting)
    (old,) = server.ready_pids()
    with server.connect() as sock:
        ask(sock, b"before\n")
        server.ask("reload")
        server.wait("worker leaving", pid=old)
        for number in range(5):
            ask(sock, b"after %d\n" % number)
        with server.connect() as other:  # of the new generation
            ask(other, b"new\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    assert server.wait("worker exited", pid=old)["how"] == "exit status 0"
    assert not server.find("worker killed")


def test_a_conversation_goes_on_while_the_server_stops(start: Start) -> None:
    server = tcp(start, "echo")
    with server.connect() as sock:
        ask(sock, b"before\n")
        server.signal(signal.SIGTERM)
        server.wait("worker leaving")
        ask(sock, b"after\n")
    assert server.wait_exit() == 0


@pytest.mark.parametrize("preload", ["false", "true"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_handler_learns_that_its_worker_leaves(start: Start, threads: str, preload: str) -> None:
    server = tcp(start, "told", "--threads", threads, "--set", f"workers.preload={preload}")
    with server.connect() as sock:
        assert line(sock) == b"hello\n"
        ask(sock, b"before\n")
        server.ask("reload")
        assert read_all(sock) == b"please connect again\n"
    with server.connect() as sock:
        assert line(sock) == b"hello\n"
        ask(sock, b"the new worker stays\n")


def test_one_worker_that_leaves_does_not_set_the_notice_of_another(start: Start) -> None:
    server = tcp(start, "told", "--set", "workers.preload=true", workers=2)
    first, second = server.connect(), server.connect()
    assert line(first) == line(second) == b"hello\n"
    ask(first, b"first\n")
    ask(second, b"second\n")
    server.ask("scale", count=1)
    leaving = server.wait("worker leaving")["pid"]
    server.wait("worker exited", pid=leaving)
    rest = []
    for sock in (first, second):
        sock.sendall(b"still\n")
        rest.append(line(sock))
    assert sorted(rest) == [b"please connect again\n", b"still\n"]
    first.close()
    second.close()


def test_what_cannot_be_a_handler_is_refused_when_it_is_loaded(start: Start) -> None:
    """`tests/unit/test_application_loader.py` has all that cannot."""
    server = start("--tcp", "tests.apps.tcp_apps:coroutine")
    server.expected_errors.add("first boot failed")
    assert server.wait_exit() == 3
    assert "this is an `async def`" in server.wait("first boot failed")["traceback"]
    assert "Traceback" not in server.log()


def test_a_coroutine_that_a_handler_returns_is_an_error_of_the_handler(start: Start) -> None:
    server = tcp(start, "hides_a_coroutine")
    server.expected_errors.add("handler failed")
    with server.connect() as sock:
        assert read_all(sock) == b""
    assert "which nobody awaits" in server.wait("handler failed")["traceback"]


def test_a_class_may_do_its_work_when_it_is_created(start: Start) -> None:
    with tcp(start, "Conversation").connect() as sock:
        assert read_all(sock) == b"from a class\n"
