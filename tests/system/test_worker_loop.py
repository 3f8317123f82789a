"""The worker's engine: where it waits, how connections are shared, and who waits for whom."""

import json
import os
import platform
import resource
import selectors
import signal
import statistics
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial

import pytest

from tests.support.load import Connection, Load
from tests.support.processes import asleep, links, system_calls
from tests.support.server import Server, Start
from tests.support.waiting import until

BASIC = "tests.apps.basic:app"

ACCEPT4 = 288
POLL = {7, 271}  # poll, and ppoll of CPython 3.15
FUTEX = 202
EPOLL_WAIT = {232, 281, 441}  # epoll_wait, epoll_pwait, epoll_pwait2

x86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the numbers of system calls are those of x86-64"
)


def places_of(pid: int) -> list[int]:
    """Where a worker's threads wait, the main one's first, without those that wait in poll (the
    watcher, and the one that writes the stacks) or for their turn (acceptors)."""
    main, *others = system_calls(pid)
    return [main, *(call for call in others if call not in {*POLL, FUTEX})]


def in_accept4(pid: int) -> bool:
    """Its main thread waits there, and no other thread does."""
    return places_of(pid) == [ACCEPT4]


def worker(server: Server) -> int:
    pid: int = server.find("worker ready")[0]["pid"]
    return pid


@x86_64
def test_an_idle_worker_is_in_accept4(start: Start) -> None:
    server = start(BASIC, "--workers", "3").wait_ready(3)
    idle = [event["pid"] for event in server.find("worker ready")]
    for pid in idle:
        until(partial(in_accept4, pid), "the main thread is in accept4")
    # So it is again after it has served.
    for _ in range(6):
        assert server.get("/pid")[0] == 200
    for pid in idle:
        until(partial(in_accept4, pid), "it is back in accept4")


@pytest.mark.parametrize("preload", ["false", "true"])
def test_a_single_worker_knows_that_it_is_the_only_one(start: Start, preload: str) -> None:
    """The scoreboard says so, and stops saying so before another worker may accept."""
    server = start(BASIC, "--workers", "1", "--set", f"workers.preload={preload}").wait_ready(1)
    number = next(fd for fd, link in links(server.pid).items() if "prefork-scoreboard" in link)

    def single() -> bool:
        with open(f"/proc/{server.pid}/fd/{number}", "rb") as scoreboard:
            return scoreboard.read(2)[1] == 1  # behind what Scoreboard.draining reads

    assert single()
    server.signal(signal.SIGTTIN)
    server.wait("worker ready", slot=1)
    assert not single()
    server.signal(signal.SIGTTOU)
    until(single, "one is left")
    # For a moment there are two again.
    server.ask("reload")
    until(single, "the old one is gone")
    server.expected_errors = {"worker died"}
    before = server.workers()
    for process in before:
        process.kill()
    until(lambda: single() and server.workers() != before, "a new one")


@x86_64
def test_with_a_connection_parked_another_thread_is_in_accept4(start: Start) -> None:
    server = start(BASIC, "--workers", "1", "--set", "http.keepalive=0").wait_ready(1)
    pid = worker(server)

    def places() -> bool:
        main, *others = places_of(pid)
        return main in EPOLL_WAIT and others == [ACCEPT4]

    with Connection(server.port) as parked:
        parked.ask("/pid")
        until(places, "the main thread is in the epoll, the acceptor in accept4")
        with Connection(server.port) as second:
            assert int(second.ask("/pid", close=True).body) == pid
        until(places, "and again")
        assert int(parked.ask("/pid").body) == pid

    # Nothing is parked any more: a connection brings the main thread back to its place, once the
    # worker has seen the end of the parked one. No event tells when that is.
    def main_accepts() -> bool:
        assert server.get("/pid")[0] == 200
        main, *others = places_of(pid)
        return main == ACCEPT4 and ACCEPT4 not in others

    until(main_accepts, "never two threads in accept4, and the main thread in it")


@x86_64
def test_with_two_listeners_each_has_its_acceptor(start: Start) -> None:
    server = start(BASIC, "--workers", "1", bind=("127.0.0.1:0", "127.0.0.2:0")).wait_ready(1)

    def places() -> bool:
        main, *others = places_of(worker(server))
        return main in EPOLL_WAIT and others == [ACCEPT4, ACCEPT4]

    until(places, "the main thread in the epoll, two acceptors in accept4")
    for address in server.addresses:
        host, _, port = address.rpartition(":")
        with Connection(int(port), host) as connection:
            assert connection.ask("/pid").status == 200
    until(places, "and again")


def test_four_workers_share_connections_evenly(start: Start) -> None:
    """The kernel wakes who has waited longest: in turn, where nobody is busy.

    One by one: the next comes when the worker that answered the last is asleep again, however
    long a busy machine keeps it from its place.
    """
    server = start(BASIC, "--workers", "4").wait_ready(4)
    shares: Counter[int] = Counter()
    for _ in range(400):
        with Connection(server.port) as connection:
            pid = int(connection.ask("/pid", close=True).body)
        shares[pid] += 1
        until(partial(asleep, pid), "it waits for the next")
    assert len(shares) == 4
    variation = statistics.pstdev(shares.values()) / statistics.mean(shares.values())
    assert variation < 0.05, shares


class Drip:
    """Clients that send a byte a second each, all from one thread."""

    def __init__(self, port: int, count: int) -> None:
        # More bytes than the test waits for: none of them is ever complete.
        head = b"GET / HTTP/1.1\r\nHost: t\r\nX-Slow: " + b"x" * 1000
        body = b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n" + b"x" * 999
        self.sent = 0
        self.ended = 0
        self._over = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._clients: list[tuple[Connection, Iterator[int]]] = []
        for number in range(count):
            connection = Connection(port)
            start, rest = (head[:1], head[1:]) if number % 2 else (body[:60], body[60:])
            connection.sock.sendall(start)
            connection.sock.setblocking(False)
            self._selector.register(connection.sock, selectors.EVENT_READ)
            self._clients.append((connection, iter(rest)))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(1.0):
            for connection, rest in self._clients:
                connection.sock.send(bytes([next(rest)]))
                self.sent += 1
            # Nobody may be answered or closed meanwhile.
            self.ended += len(self._selector.select(0))

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        self._selector.close()
        for connection, _ in self._clients:
            connection.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_two_hundred_slow_clients_delay_no_other(start: Start, threads: int) -> None:
    server = start(
        *(BASIC, "--workers", "1", "--threads", str(threads)),
        *("--set", "http.header_timeout=0", "--set", "http.body_timeout=0"),
        *("--set", "http.keepalive=1"),
    ).wait_ready(1)
    slow = Drip(server.port, 200)
    good = 0
    try:
        with Connection(server.port) as kept:
            while slow.sent < 2 * 200 or good < 200:
                assert kept.ask("/pid").status == 200
                assert server.get("/pid")[0] == 200
                good += 2
    finally:
        slow.end()
    assert slow.ended == 0


def test_a_thousand_idle_connections_and_a_good_request(start: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 1300
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"only {hard} descriptors may be open")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    idle: list[Connection] = []
    try:
        server = start(BASIC, "--workers", "1", "--set", "http.keepalive=0").wait_ready(1)
        for _ in range(1000):
            idle.append(Connection(server.port))
            assert idle[-1].ask("/pid").status == 200
        assert server.get("/") is not None
        assert len(os.listdir(f"/proc/{worker(server)}/fd")) > 1000
        status, body = server.get("/big?n=100000")
        assert (status, len(body)) == (200, 100_000)
        for connection in idle[::50]:
            assert connection.ask("/pid").status == 200
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # All of them are let go, and the worker is back where it was.
    until(lambda: len(os.listdir(f"/proc/{worker(server)}/fd")) < 50, "the descriptors are closed")
    assert server.get("/pid")[0] == 200


def test_with_one_thread_the_application_stays_in_the_thread_that_imported_it(
    start: Start,
) -> None:
    """sqlite3 raises in any other; kept and fresh connections come in different ways."""
    server = start("tests.apps.sqlite_app:app", "--workers", "2", "--threads", "1").wait_ready(2)
    clients = Load(eager=True)
    visits: dict[int, list[int]] = defaultdict(list)

    def visit(connection: Connection, *, close: bool) -> None:
        answer = connection.ask("/", close=close)
        assert answer.status == 200, answer
        told = json.loads(answer.body)
        visits[told["pid"]].append(told["visits"])
        clients.count()

    def keep_alive(_: object) -> None:
        with Connection(server.port) as connection:
            for _ in range(20):
                visit(connection, close=False)

    def one_shot(_: object) -> None:
        with Connection(server.port) as connection:
            visit(connection, close=True)

    clients.run(keep_alive, 6)
    clients.run(one_shot, 4)
    clients.wait_answers(1000)
    clients.end()
    assert len(visits) == 2
    for counted in visits.values():
        assert sorted(counted) == list(range(1, len(counted) + 1)), "each was answered once"
