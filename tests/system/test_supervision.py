"""The supervisor: what dies is replaced, what fails is told, and nobody else notices."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE
from time import monotonic
from typing import Any

import psutil
import pytest

from tests.support.changing_app import copy_app, rewrite
from tests.support.commands import ROOT
from tests.support.load import Connection, Cut, Gate, Killed, Load, ask, explained
from tests.support.processes import (
    alive,
    links,
    listener_inode,
    peers_of,
    signal_set,
    sockets,
    stopped,
)
from tests.support.server import Event, Server, Start
from tests.support.waiting import PATIENCE, until

BASIC = "tests.apps.basic:app"
SUPERVISED = "tests.apps.supervised:app"


def time_of(event: Event) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


# Killed under load.


@dataclass
class Victims(Load):
    """A load that knows which of its connections may fail, and which did."""

    port: int = 0
    killed: list[Killed] = field(default_factory=list)
    failed: int = 0

    def keep_alive(self, rng: random.Random) -> None:
        self._connection(rng, rng.randint(1, 30), close=False)

    def one_shot(self, rng: random.Random) -> None:
        self._connection(rng, 1, close=True)

    def _connection(self, rng: random.Random, requests: int, *, close: bool) -> None:
        before = len(self.killed)
        with Connection(self.port) as connection:
            try:
                for _ in range(requests):
                    ask(connection, rng, close=close)
                    self.count()
            except Cut as cut:
                self._judge(connection, cut, self.killed[before:])

    def _judge(self, connection: Connection, cut: Cut, killed: list[Killed]) -> None:
        """`killed`: those that were killed since it connected."""
        assert explained(connection, killed), (
            f"port {connection.port}, held by {connection.pid}: {cut}; killed: {killed}"
        )
        assert b"HTTP/1.1 200 OK\r\n".startswith(cut.got[:17]), cut
        self.failed += 1


def test_a_worker_killed_forty_times_takes_along_only_what_it_held(start: Start) -> None:
    """Exactly the connections that the killed worker held may fail, and each is looked up.

    The victim is stopped (SIGSTOP) at a moment of its load's choice.  From then on it can neither
    accept nor answer, so what it holds is what the kernel shows: the sockets among its
    descriptors.  That is noted, by the clients' ports, and then it is killed: from a stop, too,
    SIGKILL lets no instruction of the process run.  A client whose connection fails has to find
    its port among those of a worker that was killed since it connected; where an answer had told
    it who holds the connection, it has to be that worker.  All else (refused, reset in the queue,
    a wrong byte, the wrong worker) is an error, and so is a client that waits for ever.
    """
    # With hand-over, a connection may be another worker's at each request.
    settings = ("--set", "http.keepalive=0", "--set", "workers.handover=false")
    server = start(BASIC, "--workers", "3", *settings).wait_ready(3)
    server.expected_errors.add("worker died")
    rng = random.Random(1)
    clients = Victims(port=server.port)
    try:
        clients.run(clients.keep_alive, 5)
        clients.run(clients.one_shot, 2)
        for number in range(1, 41):
            clients.wait_answers(8)
            victim = rng.choice(server.ready_pids())
            os.kill(victim, signal.SIGSTOP)
            until(partial(stopped, victim), "the victim is stopped")
            clients.killed.append(Killed(victim, peers_of(victim, server.port)))
            os.kill(victim, signal.SIGKILL)
            died = server.wait("worker died", pid=victim)
            assert died["how"] == "killed by SIGKILL"
            server.wait("worker ready", 3 + number)
        clients.wait_answers(30)
    finally:
        clients.over.set()
    clients.end()
    held = sum(len(killed.held) for killed in clients.killed)
    # The kills met a load, and what they took along was noticed.
    assert held >= clients.failed > 0
    assert clients.answers > 300
    assert len(server.workers()) == 3
    # The slots are the same three: each was filled again, and none was filled twice.
    assert {event["slot"] for event in server.find("worker ready")} == {0, 1, 2}


@pytest.mark.parametrize("threads", [1, 4])
def test_no_accepted_request_fails_at_term_under_load(start: Start, threads: int) -> None:
    """What must be answered after TERM, whole and right to the byte:

    - a request that the server's kernel had taken before TERM was sent (its bytes were
      acknowledged, so the connection is in the queue or accepted);
    - a request on a connection that has had an answer without "Connection: close" (so it was
      accepted), whenever it was sent;
    - a request whose answer has begun.

    What may fail is a first request on a connection of which none of that is true: it came as the
    listener went.  Keep-alive clients learn the end from "Connection: close".
    """
    server = start(
        *(BASIC, "--workers", "2", "--threads", str(threads)),
        *("--set", "http.keepalive=25"),
    ).wait_ready(2)
    clients = Leavers(port=server.port, eager=True)
    try:
        clients.run(clients.keep_alive, 12)
        clients.run(clients.one_shot, 8)
        clients.wait_answers(500)
        clients.term = True
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    finally:
        clients.over.set()
    clients.end()
    # Each of the keep-alive clients had a connection at that time, and was told.
    assert clients.told >= 1
    assert clients.told + clients.refused >= 12


@dataclass
class Leavers(Load):
    """Clients of a server that stops: each goes on until it is told, or refused."""

    port: int = 0
    term: bool = False
    """About to be sent; set before it is."""
    told: int = 0
    refused: int = 0

    def keep_alive(self, rng: random.Random) -> None:
        self._connection(rng, rng.randint(20, 60))

    def one_shot(self, rng: random.Random) -> None:
        self._connection(rng, 1)

    def _connection(self, rng: random.Random, requests: int) -> None:
        try:
            connection = Connection(self.port)
        except OSError:
            assert self.term, "refused before TERM"
            self.refused += 1
            self.over.wait(0.01)
            return
        with connection:
            for _ in range(requests):
                body = rng.randbytes(rng.choice((10, 20_000)))
                promised = connection.answers > 0
                try:
                    connection.send("/echo", body, close=requests == 1)
                    connection.arrived()
                    promised = promised or not self.term
                    answer = connection.receive()
                except Cut as cut:
                    if promised or cut.got or not self.term:
                        raise
                    self.refused += 1
                    return
                assert answer.status == 200
                assert answer.body == body
                self.count()
                if answer.last:
                    assert requests == 1 or self.term, "an end for no reason"
                    self.told += requests > 1
                    return


@pytest.mark.parametrize("threads", [1, 2])
def test_term_finishes_what_is_running_queued_begun_and_idle(
    start: Start, tmp_path: Path, threads: int
) -> None:
    server = start(
        *(SUPERVISED, "--workers", "1", "--threads", str(threads)),
        *("--set", "http.keepalive=25"),
    ).wait_ready(1)
    idle, begun = Connection(server.port), Connection(server.port)
    assert not idle.ask("/pid").last
    begun.sock.sendall(b"GET /pid HTTP/1.1\r\nHost: ")
    running = [Connection(server.port) for _ in range(threads)]
    gates = [Gate(tmp_path / f"gate-{number}") for number in range(threads)]
    for connection, gate in zip(running, gates, strict=True):
        connection.send(gate.target)
        gate.arrived()
    # All that could answer is held: these are read by nobody, or stay in the listen queue.
    queued = [Connection(server.port) for _ in range(20)]
    for connection in queued:
        connection.send("/pid")
        connection.arrived()
    server.signal(signal.SIGTERM)
    server.wait("worker leaving")
    for gate in gates:
        gate.open()
    for connection in (*running, *queued):
        answer = connection.receive()
        assert answer.status == 200
        assert answer.last
    assert idle.ask("/pid").last
    begun.sock.sendall(b"t\r\n\r\n")
    assert begun.receive().last
    for connection in (*running, *queued, idle, begun):
        assert connection.sock.recv(1) == b""
        connection.close()
    assert server.wait_exit() == 0


def test_an_idle_client_at_the_end_is_closed_without_a_reset(start: Start) -> None:
    server = start(BASIC, "--workers", "2", "--set", "http.keepalive=0.5").wait_ready(2)
    idle = [Connection(server.port) for _ in range(6)]
    for connection in idle:
        connection.ask("/pid")
    server.signal(signal.SIGTERM)
    for connection in idle:
        assert connection.sock.recv(1) == b""
        connection.close()
    assert server.wait_exit() == 0


def test_when_the_master_is_killed_its_workers_finish_and_go(start: Start, tmp_path: Path) -> None:
    server = start(SUPERVISED, "--workers", "3").wait_ready(3)
    workers = server.ready_pids()
    gate = Gate(tmp_path / "gate")
    with Connection(server.port) as connection:
        connection.send(gate.target)
        gate.arrived()
        server.signal(signal.SIGKILL)
        server.process.wait(PATIENCE)
        until(lambda: sum(map(alive, workers)) == 1, "all but the busy worker are gone")
        gate.open()
        answer = connection.receive()
        assert answer.last
        assert int(answer.body) in workers
    until(lambda: not any(map(alive, workers)), "the busy worker is gone")
    with pytest.raises(ConnectionRefusedError):
        server.connect()


def test_a_worker_that_is_stuck_when_the_master_is_killed_goes_with_its_channel(
    start: Start,
) -> None:
    """Parked connections do not keep it: each gets its last chance and no more."""
    server = start(BASIC, "--workers", "1", "--set", "http.keepalive=0.3").wait_ready(1)
    (worker,) = server.ready_pids()
    with Connection(server.port) as idle:
        idle.ask("/pid")
        server.signal(signal.SIGKILL)
        server.process.wait(PATIENCE)
        assert idle.sock.recv(1) == b""
    until(lambda: not alive(worker), "the worker is gone")


# The first boot.


def failed_boot(server: Server, *, workers: int) -> str:
    """What a first boot that failed has said; nothing of it may be left."""
    assert server.wait_exit() == 3
    server.expected_errors.add("first boot failed")
    (event,) = server.find("first boot failed")
    assert not server.find("worker ready")
    forked = [forked["pid"] for forked in server.find("worker forked")]
    assert len(forked) <= workers, "it was tried again"
    assert not any(map(alive, forked))
    assert not server.control.exists()
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    why: str = event["traceback"]
    return why


DEBUG = ("--set", "log.level=debug")


def test_an_application_that_raises_at_import(start: Start) -> None:
    server = start("tests.apps.broken:app", "--workers", "3", *DEBUG)
    why = failed_boot(server, workers=3)
    assert why.startswith("Traceback (most recent call last):\n")
    assert why.endswith("RuntimeError: this application is broken on purpose")
    assert 'tests/apps/broken.py", line 3' in why
    assert "prefork/worker" not in why, "our own frames say nothing about the application"


def test_an_application_that_exits_at_import(start: Start) -> None:
    server = start("tests.apps.exits:app", "--workers", "2", *DEBUG)
    why = failed_boot(server, workers=2)
    assert why.endswith("SystemExit: this application exits at import")
    assert 'tests/apps/exits.py", line 5' in why


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("tests.apps.basic:ap", "has no 'ap'; did you mean 'app'?"),
        ("tests.apps.basic:PIECE", "tests.apps.basic.PIECE is int, which is not callable"),
    ],
)
def test_a_target_that_leads_nowhere_is_reported_in_one_line(
    start: Start, target: str, said: str
) -> None:
    """`tests/unit/test_application_loader.py` has the others."""
    why = failed_boot(start(target, "--workers", "2", *DEBUG), workers=2)
    assert why.startswith(f"{target}: ")
    assert "\n" not in why
    assert said in why


def test_an_application_that_hangs_at_import(start: Start) -> None:
    server = start("tests.apps.hang:app", "--workers", "2", "--set", "workers.boot_timeout=3")
    assert "tests/apps/hang.py" in server.wait("worker boots slowly")["traceback"]
    assert failed_boot(server, workers=2) == "not ready within 3 s"


def test_an_application_that_kills_its_worker_at_import(start: Start, tmp_path: Path) -> None:
    app = copy_app(tmp_path / "app")
    app.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    server = start("changing:app", "--workers", "2", *DEBUG, cwd=app.parent)
    server.expected_errors.add("worker died")
    why = failed_boot(server, workers=2)
    assert why == "a worker died before it was ready: killed by SIGSEGV"


def test_a_port_in_use_is_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = start(BASIC, bind=(address,))
        assert server.wait_exit() == 1
    assert len(server.other) == 1
    assert server.other[0].startswith(
        f"prefork: cannot listen on {address}: the address is in use by "
    )
    assert f"(pid {os.getpid()})" in server.other[0]
    assert not server.events
    assert not server.control.exists()


def test_a_port_of_another_server_names_its_master(start: Start) -> None:
    other = start(BASIC, "--workers", "3", "--set", "server.name=the shop").wait_ready(3)
    address = f"127.0.0.1:{other.port}"
    server = start(BASIC, bind=(address,))
    assert server.wait_exit() == 1
    (line,) = server.other
    assert line == (
        f"prefork: cannot listen on {address}: the address is in use by prefork: master [the shop]"
        f" (pid {other.pid}); stop that server with `prefork stop 'the shop'`, or choose another"
        " address\n"
    )


def test_a_socket_of_another_server_names_it(start: Start, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'shop.sock'}"
    name = ("--set", "server.name=shop")
    other = start(BASIC, "--workers", "1", *name, bind=(address,)).wait_ready(1)
    server = start(BASIC, bind=(address,))
    assert server.wait_exit() == 1
    (line,) = server.other
    assert line == (
        f"prefork: cannot listen on {address}: the address is in use by pid {other.pid}; stop that"
        " server with `prefork stop shop`, or choose another address\n"
    )


def test_a_port_of_a_foreign_server_names_the_first_of_its_processes(start: Start) -> None:
    program = """
import os, socket, sys, time
with socket.create_server(("127.0.0.1", 0)) as listener:
    for _ in range(2):
        if not os.fork():
            break
    else:
        print(listener.getsockname()[1], flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as master:
        assert master.stdout
        address = f"127.0.0.1:{master.stdout.readline().strip()}"
        server = start(BASIC, bind=(address,))
        assert server.wait_exit() == 1
        master.communicate("")
    (line,) = server.other
    assert f"(pid {master.pid}); stop that process, or choose another address" in line


def test_all_problems_of_a_configuration_are_reported(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[server]\napp = "x"\nbnid = ":1"\n[workers]\ncount = 0\nthreads = "many"\n')
    server = start(str(file))
    assert server.wait_exit() == 1
    said = "".join(server.other)
    for key in ("server.app", "server.bnid", "workers.count", "workers.threads"):
        assert sum(key in line for line in server.other) == 1, said
    assert "bind" in said, "the nearest known key"
    assert "Traceback" not in said
    assert not server.events


# Respawn.


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_worker_is_replaced_at_once(start: Start, workers: int) -> None:
    server = start(BASIC, "--workers", str(workers)).wait_ready(workers)
    server.expected_errors.add("worker died")
    for victim in server.ready_pids():
        os.kill(victim, signal.SIGKILL)
    server.wait("worker ready", 2 * workers)
    assert server.get("/pid") == (200, str(server.ready_pids()[0]).encode()) or workers > 1
    died = server.find("worker died")
    assert sorted(event["slot"] for event in died) == list(range(workers))
    assert sorted(event["slot"] for event in server.find("worker ready")[workers:]) == list(
        range(workers)
    )


def test_a_worker_dead_in_a_request_is_logged_with_the_request(
    start: Start, tmp_path: Path
) -> None:
    server = start(SUPERVISED, "--workers", "1").wait_ready(1)
    server.expected_errors.add("worker died")
    gate = Gate(tmp_path / "gate")
    with Connection(server.port) as connection:
        connection.send(gate.target)
        gate.arrived()
        os.kill(server.ready_pids()[0], signal.SIGKILL)
        with pytest.raises(Cut):
            connection.receive()
    gate.open()
    died = server.wait("worker died")
    assert died["during"].startswith(f"GET /hold?fifo={tmp_path}"[: len("GET /hold?fifo=/")])


def test_a_crash_loop_is_backed_off_from_while_the_others_serve(
    start: Start, tmp_path: Path
) -> None:
    app = copy_app(tmp_path / "app")
    good = app.read_text()
    server = start("changing:app", "--workers", "2", *DEBUG, cwd=app.parent).wait_ready(2)
    server.expected_errors |= {"worker died", "worker failed to boot"}
    rewrite(app, 'raise RuntimeError("broken by a bad deployment")\n')
    victim, other = server.ready_pids()
    os.kill(victim, signal.SIGKILL)
    failures = 5
    for number in range(1, failures + 1):
        event = server.wait("worker failed to boot", number)
        assert event["traceback"].endswith("RuntimeError: broken by a bad deployment")
        assert server.get("/") == (200, b"one")
    forks = [time_of(event) for event in server.find("worker forked")][2:]
    # The first two are free; then 0.1 s, doubled with each failure, less a fifth. The clock
    # of the log may be set meanwhile, but not by so much.
    for number, (before, after) in enumerate(pairwise(forks[1:])):
        assert after - before > 0.8 * 0.1 * 2**number - 0.01
    assert len(forks) <= failures + 1
    assert alive(other)
    rewrite(app, good.replace('"one"', '"repaired"'))
    server.wait("worker ready", 3)
    answers: set[bytes] = set()

    def both_answer() -> bool:
        answers.add(server.get("/")[1])
        return len(answers) > 1

    until(both_answer, "both answer")
    assert answers == {b"one", b"repaired"}


# Requests that take too long.


@pytest.mark.parametrize("threads", [1, 4])
def test_a_request_over_its_time_gets_504_and_its_worker_is_replaced(
    start: Start, tmp_path: Path, threads: int
) -> None:
    server = start(
        *(SUPERVISED, "--workers", "1", "--threads", str(threads)),
        *("--set", "workers.request_timeout=0.5"),
    ).wait_ready(1)
    server.expected_errors |= {"request timed out", "worker exited"}
    (worker,) = server.ready_pids()
    gate = Gate(tmp_path / "gate")
    with Connection(server.port) as connection:
        connection.send(gate.target)
        gate.arrived()
        answer = connection.receive()
        assert answer.status == 504
        assert answer.last
        assert connection.sock.recv(1) == b""
    late = server.wait("request timed out")
    assert late["pid"] == worker
    assert late["elapsed"] >= 0.5
    assert late["request"].startswith("GET /hold?fifo=/")
    server.wait("worker leaving", pid=worker)
    server.wait("worker ready", 2)
    assert server.get("/pid")[1] == str(server.ready_pids()[0]).encode()
    assert alive(worker), "it has graceful_timeout"
    gate.open()
    exited = server.wait("worker exited", pid=worker)
    assert exited["how"] == "exit status 0"
    assert len(server.find("request timed out")) == 1


def test_the_siblings_of_a_late_request_are_finished(start: Start, tmp_path: Path) -> None:
    server = start(
        *(SUPERVISED, "--workers", "1", "--threads", "3"),
        *("--set", "workers.request_timeout=2"),
    ).wait_ready(1)
    server.expected_errors |= {"request timed out", "worker exited"}
    (worker,) = server.ready_pids()
    late, good = Gate(tmp_path / "late"), Gate(tmp_path / "good")
    with Connection(server.port) as first, Connection(server.port) as second:
        first.send(late.target)
        late.arrived()
        begun = monotonic()
        # So much younger that it is not late, too, however late the timeout is noticed.
        until(lambda: monotonic() > begun + 1, "a second has gone by")
        second.send(good.target)
        good.arrived()
        assert first.receive().status == 504
        good.open()
        assert second.receive().status == 200
    late.open()
    server.wait("worker exited", pid=worker)


def test_a_server_stops_while_its_only_worker_is_stuck(start: Start) -> None:
    """Its listener is closed before the worker has heard a word, and may still be told."""
    server = start(
        *(SUPERVISED, "--workers", "1", "--threads", "2"),
        *("--set", "workers.request_timeout=0.2", "--set", "workers.graceful_timeout=1"),
    ).wait_ready(1)
    server.expected_errors |= {"request timed out", "worker died"}
    with Connection(server.port) as connection:
        connection.send("/stuck")
        server.wait("request timed out")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    assert not server.other


@pytest.mark.parametrize("path", ["/stuck", "/backtrack"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_worker_stuck_in_c_code_is_killed(start: Start, path: str, threads: int) -> None:
    # This C code looks for signals now and then, so that a handler can run, on a busy machine, too.
    answers = path == "/backtrack"
    grace = "2" if answers else "0.6"
    server = start(
        *(SUPERVISED, "--workers", "1", "--threads", str(threads)),
        *("--set", "workers.request_timeout=0.4", "--set", f"workers.graceful_timeout={grace}"),
    ).wait_ready(1)
    server.expected_errors |= {"request timed out", "worker died"}
    (worker,) = server.ready_pids()
    with Connection(server.port) as connection:
        connection.send(path)
        late = server.wait("request timed out", pid=worker)
        assert late["request"] == f"GET {path}"
        server.wait("worker ready", 2)
        killed = server.wait("worker killed", pid=worker)
        assert killed["reason"] == f"still there {grace} s after the order to leave"
        died = server.wait("worker died", pid=worker)
        assert died["how"] == "killed by SIGKILL"
        assert died["during"] == f"GET {path}"
        if answers:
            assert connection.receive().status == 504
        else:
            with pytest.raises(Cut) as cut:
                connection.receive()
            assert not cut.value.got
    assert server.get("/pid")[0] == 200
    assert len(server.find("worker ready")) == 2


# What processes look like, and what they hold.


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def test_process_titles_name_the_role_the_slot_and_the_server(start: Start) -> None:
    server = start(BASIC, "--workers", "3", "--set", "server.name=shop").wait_ready(3)
    assert title(server.pid) == "prefork: master [shop]"
    for event in server.find("worker ready"):
        assert title(event["pid"]) == f"prefork: worker {event['slot']} [shop]"


def test_a_worker_holds_nothing_of_the_masters(start: Start) -> None:
    """Of sockets and pipes, master and workers share the listener and what they were started
    with, and no more: control socket, signal pipe, other channels are where they belong.  A worker
    has one pipe from the master, for itself alone."""
    # Inboxes are held by all (prefork.worker.schedule.handover).
    server = start(BASIC, "--workers", "3", "--set", "workers.handover=false").wait_ready(3)
    server.expected_errors.add("worker died")
    os.kill(
        server.ready_pids()[0], signal.SIGKILL
    )  # its successor is born among the others' channels
    server.wait("worker ready", 4)
    listener = f"socket:[{listener_inode(server.port)}]"

    def held(pid: int) -> set[str]:
        found = links(pid)
        inherited = {found.get(fd) for fd in (0, 1, 2)}
        return {
            link
            for link in found.values()
            if link.startswith(("socket:", "pipe:")) and link not in inherited
        }

    processes = [server.pid, *server.ready_pids()]
    assert len(processes) == 4
    for one in processes:
        assert listener in held(one)
        for other in processes[1:]:
            if one == other:
                continue
            common = held(one) & held(other) - {listener}
            if one == server.pid:  # the pipe by which the master asks for the worker's stacks
                assert [link.partition(":")[0] for link in common] == ["pipe"]
            else:
                assert not common
    control = [
        line.split()[6]
        for line in Path("/proc/net/unix").read_text().splitlines()
        if line.endswith(f" {server.control}")
    ]
    assert set(control) <= sockets(server.pid)
    assert control
    for pid in server.ready_pids():
        assert len(held(pid)) == 3, "the listener, its channel, and the pipe for its stacks"


def test_reloads_leak_no_descriptor(start: Start) -> None:
    server = start(BASIC, "--workers", "2").wait_ready(2)

    def reload(times: int) -> int:
        for _ in range(times):
            generation = len(server.find("reload started")) + 2
            server.signal(signal.SIGHUP)
            server.wait("generation settled", generation=generation)
            server.wait("worker exited", 2 * (generation - 1))
        return len(os.listdir(f"/proc/{server.pid}/fd"))

    before = reload(2)
    assert reload(20) == before

    def alike() -> bool:
        (one, other) = (len(os.listdir(f"/proc/{pid}/fd")) for pid in server.ready_pids())
        return one == other

    until(alike, "each worker has heard of all inboxes, and has none of the old ones")


# Children of the application.


@contextmanager
def child(server: Server, path: str) -> Iterator[tuple[int, int]]:
    """(worker, a child that the application leaves behind); ended with the block."""
    with Connection(server.port) as connection:
        told: dict[str, Any] = json.loads(connection.ask(path, close=True).body)
    try:
        yield told["pid"], told["child"]
    finally:
        os.kill(told["child"], signal.SIGKILL)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("path", ["/fork", "/popen"])
def test_an_applications_child_has_default_signals_and_no_listener(
    start: Start, path: str, threads: int
) -> None:
    server = start(SUPERVISED, "--workers", "1", "--threads", str(threads)).wait_ready(1)
    address = ("127.0.0.1", server.port)
    with child(server, path) as (worker, pid):
        assert psutil.Process(pid).ppid() == worker
        ours = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1}
        ours |= {signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGCHLD}
        if path == "/popen":
            until(lambda: title(pid).startswith("sleep"), "it has executed its program")
        # The first instructions of a forked child see to that.
        until(lambda: not signal_set(pid, "SigCgt") & ours, "no handler of ours is left")
        assert not signal_set(pid, "SigIgn") & ours
        # In the background, a read from the terminal is an error, and does not stop the program.
        terminal = {signal.SIGTTIN, signal.SIGTTOU}
        until(lambda: signal_set(pid, "SigBlk") <= terminal, "the signals are let in again")
        assert listener_inode(server.port) in sockets(worker)
        assert listener_inode(server.port) not in sockets(pid)
        unix = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()}
        ours_alone = sockets(worker) & unix
        assert len(ours_alone) == 2  # channel and inbox
        until(lambda: not ours_alone & sockets(pid), "it has closed them")
        server.signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0  # the child has its log still open
        # It lives on, in nobody's way: the port can be had at once.
        assert alive(pid)
        with socket.socket() as successor:
            successor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            successor.bind(address)
            successor.listen()
        os.kill(pid, signal.SIGTERM)
        until(lambda: not alive(pid), "TERM ends it")


def test_a_first_boot_that_fails_reports_nothing_but_the_cause(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "broken_site.py").write_text("import no_such_module_here\n")
    server = start(
        *("broken_site:app", "--workers", "2"), cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}
    )
    server.expected_errors.add("first boot failed")
    assert server.wait_exit() == 3
    text = server.wait("first boot failed")["traceback"]
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.count("File ") == 1, "the application's own frame alone"
    assert text.endswith("ModuleNotFoundError: No module named 'no_such_module_here'")
    assert not server.find("worker killed")
    assert not server.find("worker died")
