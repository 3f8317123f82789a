"""ASGI: clients that leave or do not read, calls that take too long, the end of a worker."""

import os
import re
import select
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.processes import LISTEN, links, listener_inode, tcp_states
from tests.support.raw_http import Raw, talk
from tests.support.server import Server, Start, servers
from tests.support.sockets import read_all
from tests.support.waiting import until
from tests.support.websocket_client import raw_websocket, server_frame
from tests.support.websocket_frames import client_frame

APP = "tests.apps.async_basic:app"


def serve(start: Start, *settings: str, workers: int = 1, app: str = APP) -> Server:
    each = [part for setting in settings for part in ("--set", setting)]
    fixed = ("--set", "server.protocol=asgi", "--set", f"workers.count={workers}")
    return start(app, *fixed, *each).wait_ready(workers)


def get(path: str, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()


METRICS = "metrics.bind=127.0.0.2:0"


def metric(server: Server, name: str) -> float:
    address = server.wait("metrics served")["address"]
    with urlopen(f"http://{address}/metrics") as page:
        (line,) = (
            each for each in page.read().decode().splitlines() if each.startswith(f"{name} ")
        )
    return float(line.split()[1])


def in_kernel(port: int, client: socket.socket) -> int:
    """Bytes on their way to a client that has read none: unsent, not acknowledged, and unread."""
    ends = {port, client.getsockname()[1]}
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        found = [int(each.rpartition(":")[2], 16) for each in (local, remote)]
        if set(found) == ends:
            sending, _, receiving = queues.partition(":")
            total += int(sending if found[0] == port else receiving, 16)
    return total


def there(path: Path, suffix: str) -> None:
    until(lambda: os.path.exists(f"{path}{suffix}"), suffix)


def is_blocking(server: Server) -> bool:
    """Whether the listener is, in all processes that share it."""
    listener = f"socket:[{listener_inode(server.port)}]"
    fd = next(fd for fd, link in links(server.pid).items() if link == listener)
    fields = Path(f"/proc/{server.pid}/fdinfo/{fd}").read_text().split()
    return not int(fields[fields.index("flags:") + 1], 8) & os.O_NONBLOCK


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the default settings, for all tests that leave it as it was.

    At its end it must have logged no failure: to give a client that has left no response is none.
    """
    for start in servers(tmp_path_factory.mktemp("limits")):
        yield serve(start)


# Clients.


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_is_noticed_by_receive(
    server: Server, tmp_path: Path, how: str
) -> None:
    file = tmp_path / "file"
    sock = server.connect()
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.sendall(get(f"/await-leaving?path={file}"))
    there(file, ".begun")
    sock.close()
    there(file, ".left")


def test_a_client_that_leaves_behind_its_next_request_is_noticed(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    with server.connect() as sock:
        sock.sendall(get(f"/await-leaving?path={file}") + get("/pid"))
        there(file, ".begun")
    there(file, ".left")


def test_send_fails_if_the_client_has_left(server: Server, tmp_path: Path) -> None:
    """And that is no failure of the application."""
    file = tmp_path / "file"
    with server.connect() as sock:
        sock.sendall(get(f"/endless?path={file}"))
        assert sock.recv(100)
    there(file, ".left")


def test_a_client_that_does_not_read_stops_the_application(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with talk(server, receive_buffer=4096) as raw:
        raw.send(get(f"/endless?path={file}"))
        there(file, ".sent")
        sizes = [0, 1]

        def settled() -> bool:
            sizes.append(int(Path(f"{file}.sent").read_text() or 0))
            return len(sizes) > 60 and len(set(sizes[-50:])) == 1

        until(settled)
        assert sizes[-1] < 3_000_000
        # What is neither with the kernel nor with the client is with us.
        assert 0 <= sizes[-1] - in_kernel(server.port, raw.sock) <= 64 * 1024
        assert server.get("/pid")[0] == 200


def test_a_client_that_half_closes_gets_its_response(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(get("/sleep?s=0.05"))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_ends_early_is_no_failure_of_the_application(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nsome")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_stays_away_is_answered_408(start: Start) -> None:
    server = serve(start, "http.body_timeout=0.3")
    server.expected_errors.add("application failed")
    with talk(server) as raw:
        raw.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nsome")
        assert raw.answer().status == 408


def test_a_body_over_the_limit_is_answered_413(start: Start) -> None:
    server = serve(start, "http.max_body=1KiB")
    with talk(server) as raw:
        raw.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.send(b"%x\r\n%b\r\n" % (2000, b"x" * 2000))
        assert raw.answer().status == 413


# Calls that take too long.


def test_a_late_call_is_cancelled_and_the_worker_goes_on(start: Start, tmp_path: Path) -> None:
    server, file = serve(start, "workers.request_timeout=0.4", METRICS), tmp_path / "file"
    server.expected_errors.add("request timed out")
    pid = server.get("/pid")[1]
    with talk(server) as raw:
        raw.send(get(f"/stuck?path={file}"))
        answer = raw.answer()
        assert (answer.status, answer.closes) == (504, True)
    there(file, ".cancelled")
    event = server.wait("request timed out")
    assert event["request"] == f"GET /stuck?path={file}"
    assert "asyncio.sleep" in event["traceback"]
    assert metric(server, "prefork_request_timeouts_total") == 1
    assert server.get("/pid") == (200, pid)


def test_a_worker_whose_call_ignores_its_cancellation_is_replaced(
    start: Start, tmp_path: Path
) -> None:
    settings = ("workers.request_timeout=0.4", "workers.graceful_timeout=1", METRICS)
    server = serve(start, *settings)
    file = tmp_path / "file"
    server.expected_errors |= {"request timed out", "worker died"}
    pid = server.worker_pids()[0]
    with talk(server) as raw:
        raw.send(get(f"/stuck?ignore=1&path={file}"))
        assert raw.answer().status == 504
    server.wait("worker ready", 2)
    event = server.wait("cancelled call goes on", pid=pid)
    assert event["request"] == f"GET /stuck?ignore=1&path={file}"
    assert "in stuck" in event["traceback"]
    server.wait("worker killed", pid=pid)
    assert len(server.find("request timed out")) == 1
    assert metric(server, "prefork_request_timeouts_total") == 1


def test_a_blocked_loop_is_replaced(start: Start, tmp_path: Path) -> None:
    settings = ("workers.request_timeout=0.4", "workers.graceful_timeout=1", METRICS)
    server = serve(start, *settings)
    server.expected_errors |= {"request timed out", "worker died"}
    with talk(server) as raw:
        raw.send(get(f"/block?path={tmp_path}/file"))
        assert raw.answer().status == 504
    server.wait("worker ready", 2)
    assert server.get("/pid")[0] == 200
    assert metric(server, "prefork_request_timeouts_total") == 1


def test_a_blocked_loop_is_logged_with_its_stack_and_shown(start: Start, tmp_path: Path) -> None:
    server, file = serve(start, METRICS), tmp_path / "file"
    assert server.wait("worker ready")["loop"] in ("asyncio", "uvloop")
    with talk(server) as raw:
        raw.send(get(f"/block?path={file}"))
        event = server.wait("loop blocked")
        assert event["requests"] == f"GET /block?path={file}"
        assert "in block" in event["traceback"]
        assert server.status()["workers"][0]["blocked"] >= 2
        assert "slot 0: its event loop has been blocked for " in server.command("status").stdout
        assert metric(server, "prefork_loops_blocked") == 1
        file.unlink()
        assert raw.answer().status == 200
    server.wait("loop turns again")
    assert server.status()["workers"][0]["blocked"] == 0
    assert metric(server, "prefork_loops_blocked") == 0
    assert metric(server, "prefork_loop_blocks_total") == 1


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_came_while_the_loop_was_blocked_is_not_late(
    start: Start, tmp_path: Path, loop: str
) -> None:
    """The time limits of clients are over by then, and what they have sent is not read yet."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    limits = ("http.keepalive=1.5", "http.header_timeout=1.5", "http.body_timeout=1.5")
    server = serve(start, f"workers.loop={loop}", *limits)
    halves = (
        (get("/pid"), b"", get("/pid")),
        (b"", b"GET /pid HT", b"TP/1.1\r\nHost: x\r\n\r\n"),
        (b"", b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nso", b"me"),
    )
    blocked = 0

    def all_wait(stack: ExitStack) -> list[Raw] | None:
        """The clients, and the one whose request blocks the loop; None if that came too late."""
        nonlocal blocked
        blocked += 1
        file = tmp_path / f"{blocked}"
        clients = [stack.enter_context(talk(server)) for _ in halves]
        for client, (before, first, _) in zip(clients, halves, strict=True):
            if before:
                client.ask(before)
            client.send(first)
        blocker = stack.enter_context(talk(server))
        blocker.send(get(f"/block?path={file}"))
        there(file, "")
        # Nothing is closed from now on.
        if not select.select([client.sock for client in clients], [], [], 0)[0]:
            return [*clients, blocker]
        file.unlink()
        return None

    with ExitStack() as stack:
        *clients, blocker = until(lambda: all_wait(stack))
        for client, (_, _, rest) in zip(clients, halves, strict=True):
            client.send(rest)
        server.wait("loop blocked")  # for longer than the limits
        Path(tmp_path / f"{blocked}").unlink()
        assert [client.answer().status for client in (*clients, blocker)] == [200] * 4


def taken_by_the_sibling(server: Server, path: str, file: Path) -> None:
    """While one of two workers has a request for `path`, the other serves all kept connections."""
    connections = [server.http() for _ in range(8)]
    for connection in connections:
        connection.request("GET", "/pid")
        connection.getresponse().read()
    with talk(server) as raw:
        raw.send(get(f"{path}?path={file}"))
        until(file.exists)
        pids = set()
        for connection in connections:
            connection.request("GET", "/pid")
            pids.add(connection.getresponse().read())
            connection.close()
        assert len(pids) == 1
        file.unlink()
        assert raw.answer().body not in pids


def test_what_waits_for_a_blocked_loop_is_handed_over(start: Start, tmp_path: Path) -> None:
    taken_by_the_sibling(serve(start, workers=2), "/block", tmp_path / "file")


@pytest.mark.parametrize("app", [APP, "tests.apps.threaded_endpoint:app"])
def test_the_thread_of_a_late_call_is_logged(start: Start, tmp_path: Path, app: str) -> None:
    # By then its thread has begun, on a busy machine, too.
    server, file = serve(start, "workers.request_timeout=1", app=app), tmp_path / "file"
    server.expected_errors.add("request timed out")
    server.get("/idle")
    with talk(server) as raw:
        raw.send(get(f"/thread?path={file}"))
        assert raw.answer().status == 504
        file.unlink()
    stacks = server.wait("request timed out", request=f"GET /thread?path={file}")["traceback"]
    # It may be seen between two of its sleeps.
    assert re.search(r'/tests/apps/\w+\.py", line \d+, in wait\b', stacks)
    assert stacks.count("Thread ") == 1  # and none that waits for work


@pytest.mark.parametrize("app", [APP, "tests.apps.threaded_endpoint:app"])
def test_the_threads_of_other_calls_are_not_logged(start: Start, tmp_path: Path, app: str) -> None:
    server, file = serve(start, "workers.request_timeout=3", app=app), tmp_path / "file"
    server.expected_errors.add("request timed out")
    with talk(server) as first, talk(server) as second, talk(server) as third:
        for number, raw in enumerate((first, second)):
            raw.send(get(f"/thread?path={file}{number}"))
        third.send(get(f"/stuck?path={file}"))
        for raw in (first, second, third):
            assert raw.answer().status == 504
    for number in range(2):
        Path(f"{file}{number}").unlink()
        event = server.wait("request timed out", request=f"GET /thread?path={file}{number}")
        assert event["traceback"].count("Thread ") == 1
    event = server.wait("request timed out", request=f"GET /stuck?path={file}")
    assert "in stuck" in event["traceback"]
    assert "Thread " not in event["traceback"]


def test_the_stacks_show_where_tasks_wait(start: Start, tmp_path: Path) -> None:
    server = serve(start, "workers.graceful_timeout=1")
    server.expected_errors.add("worker died")  # the stuck calls, at its stop
    with ExitStack() as stack:
        for number in range(3):
            raw = stack.enter_context(talk(server))
            raw.send(get(f"/stuck?path={tmp_path}/{number}"))
            there(tmp_path / str(number), ".begun")
            chat = stack.enter_context(raw_websocket(server, "/"))
            chat.send(client_frame(1, b"hello"))
            server_frame(chat)
        text = server.command("status", "--stack", "0").stdout
    assert text.startswith("Thread ")
    tasks = [part for part in text.split("\n\n") if part.startswith("Task ")]
    assert len(tasks) == 2
    stuck, waiting = sorted(tasks, key=lambda task: "in stuck" not in task)
    assert stuck.startswith(
        f"Task GET /stuck?path={tmp_path}/0 and 2 more (most recent call first)"
    )
    first, second, *_ = stuck.splitlines()[1:]
    assert "in sleep" in first
    assert "async_basic.py" in second
    assert "in stuck" in second
    assert waiting.startswith("Task GET / and 2 more")
    assert "in echo_messages" in waiting
    assert "asgi_messages.py" not in text


def test_calls_at_the_same_time_are_all_counted(start: Start, tmp_path: Path) -> None:
    server, file = serve(start), tmp_path / "file"
    with ExitStack() as stack:
        talks = [stack.enter_context(talk(server)) for _ in range(40)]
        for raw in talks:
            raw.send(get(f"/hold?path={file}"))
        until(file.exists)
        until(lambda: len(server.status()["workers"][0]["calls"]) == 31)
        for raw in talks:

            def answered(sock: socket.socket = raw.sock) -> bool:
                file.unlink(missing_ok=True)  # a call that began late has made it anew
                return bool(select.select([sock], [], [], 0)[0])

            until(answered)
            assert raw.answer().status == 200
    until(lambda: server.status()["requests"] == 40)


def test_a_stream_of_events_may_be_silent(start: Start, tmp_path: Path) -> None:
    server, file = serve(start, "workers.request_timeout=0.2"), tmp_path / "file"
    server.expected_errors.add("request timed out")
    with server.connect() as sock:
        sock.sendall(get(f"/events?path={file}"))
        assert sock.recv(1000)
        with talk(server) as raw:  # by then a call that is at work would have been given up
            raw.send(get(f"/stuck?path={file}"))
            assert raw.answer().status == 504
        assert not os.path.exists(f"{file}.left")
    there(file, ".left")


# As many calls as may be.


def test_calls_beyond_max_concurrency_wait(start: Start, tmp_path: Path) -> None:
    server, file = serve(start, "workers.max_concurrency=1"), tmp_path / "file"
    kept = server.http()
    kept.request("GET", "/pid")
    kept.getresponse().read()
    with talk(server) as first, talk(server) as second:
        first.send(get(f"/hold?path={file}"))
        until(file.exists)
        kept.request("GET", "/pid")
        second.send(get("/pid"))
        assert server.status()["workers"][0]["state"] == "busy"
        file.unlink()
        assert first.answer().status == 200
        assert kept.getresponse().read()
        assert second.answer().status == 200
    kept.close()


def test_another_worker_takes_what_is_beyond_max_concurrency(start: Start, tmp_path: Path) -> None:
    server = serve(start, "workers.max_concurrency=1", workers=2)
    taken_by_the_sibling(server, "/hold", tmp_path / "file")


def test_what_siblings_hand_over_counts_for_max_concurrency(start: Start, tmp_path: Path) -> None:
    server = serve(start, "workers.max_concurrency=1", workers=2)
    file = tmp_path / "file"
    connections = [server.http() for _ in range(16)]
    for connection in connections:
        connection.request("GET", "/pid")
        connection.getresponse().read()
    with talk(server) as raw:
        raw.send(get(f"/block?path={file}"))
        until(file.exists)
        for connection in connections:
            connection.request("GET", "/at-one-time")
        served = Counter(connection.getresponse().read().split()[1] for connection in connections)
        file.unlink()
        assert raw.answer().status == 200
    for connection in connections:
        connection.close()
    assert served == {b"1": len(connections)}


# The end of a worker.


def test_stop_lets_calls_end(start: Start, tmp_path: Path) -> None:
    server, file = serve(start), tmp_path / "file"
    with talk(server) as raw:
        raw.send(get(f"/hold?path={file}"))
        until(file.exists)
        server.signal(15)
        server.wait("worker leaving")
        file.unlink()
        answer = raw.answer()
        assert (answer.status, answer.closes) == (200, True)
    assert server.wait_exit() == 0


def test_a_worker_that_leaves_may_still_be_stopped_at_once(start: Start, tmp_path: Path) -> None:
    server, file = serve(start), tmp_path / "file"
    with talk(server) as raw:
        raw.send(get(f"/stuck?path={file}"))
        there(file, ".begun")
        (pid,) = server.worker_pids()
        server.signal(15)
        until(lambda: LISTEN not in tcp_states(pid, server.port), "its listener is closed")
        server.signal(3)
        assert server.wait_exit() == 0
    assert not server.find("worker killed")


def test_stop_tells_streams_that_their_client_has_left(start: Start, tmp_path: Path) -> None:
    server, file = (
        serve(start, 'workers.hooks={ ready = "tests.apps.hasty:ready" }'),
        tmp_path / "file",
    )
    with talk(server) as raw:
        raw.send(get(f"/events?path={file}"))
        assert raw.head().status == 200
        server.signal(15)
        assert b"".join(raw.chunks()) == b"data: 1\n\ndata: 2\n\n"
    assert server.wait_exit() == 0
    there(file, ".left")


def test_stop_ends_streams_that_do_not_ask(start: Start) -> None:
    """As a whole response, and the application has not failed."""
    server = serve(start, "workers.graceful_timeout=4")
    with talk(server) as raw:
        raw.send(get("/ticks"))
        assert raw.head().status == 200
        server.signal(15)
        assert set(raw.chunks()) == {b"data: 1\n\n"}
    assert server.wait_exit() == 0
    assert not server.find("calls cancelled")


def test_stop_cancels_what_does_not_end(start: Start, tmp_path: Path) -> None:
    server, file = serve(start, "workers.graceful_timeout=8"), tmp_path / "file"
    with talk(server) as raw:
        raw.send(get(f"/stuck?path={file}"))
        there(file, ".begun")
        server.signal(15)
        assert raw.answer().status == 503
    assert server.wait_exit() == 0
    there(file, ".cancelled")
    assert server.find("calls cancelled")[0]["count"] == 1
    assert not server.find("worker killed")


def test_a_reload_hands_idle_connections_to_the_new_worker(start: Start) -> None:
    server = serve(start)
    connections = [server.http() for _ in range(5)]
    for connection in connections:
        connection.request("GET", "/pid")
        connection.getresponse().read()
    server.ask("reload")
    server.wait("worker exited")
    pid = str(server.ready_pids()[0]).encode()
    for connection in connections:
        assert connection.sock is not None
        connection.request("GET", "/pid")
        assert connection.getresponse().read() == pid
        connection.close()


def test_a_reload_from_wsgi_to_asgi_and_back(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "site.toml"

    def write(protocol: str, app: str) -> None:
        config.write_text(
            f'[server]\napp = "{app}"\nprotocol = "{protocol}"\n[workers]\ncount = 2\n'
        )

    kinds = {"wsgi": "tests.apps.basic:app", "asgi": APP}
    write("wsgi", kinds["wsgi"])
    server = start(str(config), "--set", f"server.chdir={os.getcwd()}").wait_ready(2)
    for number, protocol in enumerate(("asgi", "wsgi", "asgi"), 2):
        write(protocol, kinds[protocol])
        server.ask("reload")
        server.wait_settled(number)
        for _ in range(20):
            assert server.get("/pid")[0] == 200
        if protocol == "wsgi":
            until(lambda: is_blocking(server))
        else:
            until(lambda: not is_blocking(server))
