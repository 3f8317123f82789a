"""What the system and the application do to a server: it says so, serves on, and recovers."""

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from time import monotonic

import psutil
import pytest

from tests.support.changing_app import rewrite
from tests.support.commands import ROOT
from tests.support.load import Connection, Cut, Gate
from tests.support.path_load import PathLoad, tcp
from tests.support.processes import alive, asleep, stopped, system_calls
from tests.support.server import Event, Server, Start
from tests.support.site import Site, gated, pids
from tests.support.sockets import read_all
from tests.support.waiting import until

APP = "tests.apps.faulty:app"
is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="needs root")


@contextlib.contextmanager
def limited(pid: int, limit: str, number: int, user: tuple[str, ...] = ()) -> Iterator[None]:
    """A process under a resource limit (prlimit(2)) while the block runs.

    `user`: a wrapper that becomes its user, where even root has no right to do so.
    """
    read = ["prlimit", f"--pid={pid}", f"--{limit}", "--output=SOFT", "--noheadings"]
    before = subprocess.run([*user, *read], check=True, capture_output=True, text=True).stdout
    write = [*user, "prlimit", f"--pid={pid}"]
    subprocess.run([*write, f"--{limit}={number}:"], check=True)
    yield
    if alive(pid):
        subprocess.run([*write, f"--{limit}={before.strip()}:"], check=True)


def time_of(event: Event) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


# No process, no thread.

NOBODY = "54321"
"""A user of our own: who is root, or has the rights of root, is under no RLIMIT_NPROC."""

AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", "--clear-groups", "--bounding-set=-all,+dac_override"),
    *("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"),
)


@needs_root
def test_a_fork_that_fails_is_tried_again_and_said(start: Start, tmp_path: Path) -> None:
    site = Site(tmp_path / "site", count=2)
    server = site.start(start, wrapper=AS_NOBODY)
    server.expected_errors = {"worker died", "fork failed", "reload failed"}
    load = PathLoad(tcp(server.port), one_shot=1, path="/", right=(b"one",))
    first, other = pids(server).values()
    with limited(server.pid, "nproc", 1, AS_NOBODY):
        kill(first)  # the load asks one after the other: it may lose what is in flight there
        server.wait("fork failed", 4)
        for reason in server.find("fork failed"):
            assert reason["reason"] == "Resource temporarily unavailable"
        assert server.refusal("reload").startswith("fork failed: ")
        load.wait_answers(10)
        assert list(pids(server).values()) == [other]
    # One at once, one more, and then ever more slowly: it never spins.
    tried = [time_of(event) for event in server.find("fork failed", slot=0)][1:4]
    for number, (before, after) in enumerate(pairwise(tried)):
        assert after - before > 0.8 * 0.1 * 2**number - 0.01
    server.wait("worker ready", 3)
    assert len(pids(server)) == 2
    server.ask("reload")
    load.end_with_losses(1)


@needs_root
def test_a_first_boot_without_a_fork_fails(start: Start) -> None:
    server = start(APP, wrapper=("prlimit", "--nproc=1", *AS_NOBODY))
    server.expected_errors = {"first boot failed", "fork failed"}
    assert server.wait_exit() == 3
    assert "Resource temporarily unavailable" in server.wait("first boot failed")["traceback"]


@needs_root
def test_a_worker_that_gets_no_more_threads_serves_on(start: Start) -> None:
    """With an idle connection parked, another thread waits in accept4: it was made at the boot."""
    server = start(APP, "--workers", "1", wrapper=AS_NOBODY).wait_ready(1)
    (worker,) = pids(server).values()
    with Connection(server.port) as kept:
        with limited(worker, "nproc", 1, AS_NOBODY):
            assert int(kept.ask("/pid").body) == worker
            assert server.get("/pid") == (200, str(worker).encode())
        assert int(kept.ask("/pid").body) == worker


# No descriptors.


def test_a_master_without_descriptors_serves_on_and_recovers(start: Start, tmp_path: Path) -> None:
    site = Site(tmp_path / "site", count=2)
    site.configure(log={"access": "access.log"})
    server = site.start(start, start_new_session=True)
    server.expected_errors = {
        "worker died",
        "fork failed",
        "reload failed",
        "log files not reopened",
    }
    load = PathLoad(tcp(server.port), one_shot=1, path="/", right=(b"one",))
    first, other = pids(server).values()
    with socket.socket(socket.AF_UNIX) as client:
        with limited(server.pid, "nofile", 3):
            kill(first)
            server.wait("fork failed", 3, reason="Too many open files")
            server.signal(signal.SIGHUP)
            assert "Too many open files" in server.wait("reload failed")["reason"]
            server.signal(signal.SIGUSR1)
            assert "Too many open files" in server.wait("log files not reopened")["reason"]
            server.signal(signal.SIGWINCH)  # is there a terminal? it can't tell: nobody goes
            server.wait("signal received", signal="SIGWINCH")
            client.connect(str(server.control))
            client.sendall(b'{"v": 1, "command": "status", "args": {}}\n')
            assert "Too many open files" in server.wait("control socket paused")["reason"]
            load.wait_answers(10)
        assert json.loads(client.recv(65536))["ok"]
    server.wait("worker ready", 3)
    assert len(pids(server)) == 2
    assert other in pids(server).values()
    server.ask("reload")
    server.ask("reopen")
    load.end_with_losses(1)


def test_a_master_without_descriptors_stops_as_ever(start: Start) -> None:
    server = start(APP, "--workers", "2").wait_ready(2)
    sockets = [server.connect() for _ in range(20)]
    for sock in sockets:
        sock.sendall(b"GET /sleep?s=0.01 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    with limited(server.pid, "nofile", 3):
        server.signal(signal.SIGTERM)
        for sock in sockets:
            with sock:
                assert read_all(sock).startswith(b"HTTP/1.1 200 ")
        assert server.wait_exit() == 0


def test_a_worker_without_descriptors_rests_and_recovers(start: Start) -> None:
    server = start(APP, "--workers", "1").wait_ready(1)
    server.expected_errors = {"accept failed"}
    (worker,) = pids(server).values()
    assert server.get("/pid")[0] == 200
    until(lambda: asleep(worker), "it waits for the next")
    with contextlib.ExitStack() as stack:
        with limited(worker, "nofile", 3):
            server.get("/pid")  # the accept under way had its descriptor before
            waiting = stack.enter_context(server.connect())
            waiting.sendall(b"GET /pid HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            assert server.wait("accept failed")["reason"] == "Too many open files"
            begun, before = monotonic(), switches(worker)
            until(lambda: monotonic() > begun + 1, "a second has gone by")
            # It looks again ten times a second, and waits in between.
            assert switches(worker) - before <= 2 * 10 * (monotonic() - begun) + 10
            assert len(server.find("accept failed")) == 1
        assert read_all(waiting).endswith(str(worker).encode())
    assert server.get("/pid") == (200, str(worker).encode())


def switches(pid: int) -> int:
    """How often a process has gone to sleep of its own accord (proc(5))."""
    return int(psutil.Process(pid).num_ctx_switches().voluntary)


def test_the_siblings_of_a_worker_without_descriptors_serve(start: Start) -> None:
    server = start(APP, "--workers", "2").wait_ready(2)
    server.expected_errors = {"accept failed"}
    worker = pids(server)[0]
    with limited(worker, "nofile", 3):
        load = PathLoad(tcp(server.port), one_shot=3, kept=3)
        server.wait("accept failed", pid=worker)
        load.wait_answers(100)
        load.end()


def test_a_worker_without_descriptors_leaves_in_order(start: Start) -> None:
    """To leave its listener, too, takes none; what it holds is served to the end."""
    server = start(APP, "--workers", "1").wait_ready(1)
    server.expected_errors = {"accept failed"}
    (worker,) = pids(server).values()
    with Connection(server.port) as kept:
        assert kept.ask("/exhaust").status == 200
        server.ask("reload")
        server.wait("worker leaving", pid=worker)
        last = kept.ask("/pid")
        assert int(last.body) == worker
        assert last.last
        assert server.wait("worker exited", pid=worker)["how"] == "exit status 0"
    assert server.get("/pid")[0] == 200


def test_files_that_cannot_be_opened_are_503_for_now(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a file")
    server = start(str(tmp_path), "--workers", "1").wait_ready(1)
    server.expected_errors = {"accept failed"}
    (worker,) = pids(server).values()
    with Connection(server.port) as kept:
        assert kept.ask("/a.txt").body == b"a file"
        with limited(worker, "nofile", 3):
            assert kept.ask("/a.txt").status == 503
        assert kept.ask("/a.txt").body == b"a file"


# No room on the disk.

SMALL = 'mount -t tmpfs -o size=256k small {place} && exec "$@"'


@pytest.fixture
def small_disk(tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """A directory, and the wrapper of a server that finds a disk of 256 KiB there."""
    place = tmp_path / "small"
    place.mkdir()
    unshare = ("unshare", "--mount", "sh", "-c")
    if subprocess.run([*unshare, f"mount -t tmpfs small {place}"], check=False).returncode:
        pytest.skip("needs the right to mount in a namespace of its own")
    return place, (*unshare, SMALL.format(place=place), "sh")


def fill(directory: Path) -> Path:
    """A file that takes all the room there is."""
    filler = directory / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def free(directory: Path) -> int:
    return os.statvfs(directory).f_bfree


def inside(server: Server, path: Path) -> Path:
    """A path as the server sees it."""
    return Path(f"/proc/{server.pid}/root{path}")


def test_a_full_disk_under_the_logs_costs_lines_and_nothing_else(
    start: Start, small_disk: tuple[Path, tuple[str, ...]]
) -> None:
    place, wrapper = small_disk
    error, access = place / "error.log", place / "access.log"
    server = start(
        *(APP, "--workers", "2", "--set", f"log.error={error}", "--set", f"log.access={access}"),
        wrapper=wrapper,
    )
    events = LogFile(server, error)
    events.wait("worker ready", 2)
    port = int(events.wait("listening")["address"].rpartition(":")[2])
    load = PathLoad(tcp(port), one_shot=2, kept=2)
    load.wait_answers(20)
    filler = fill(inside(server, place))
    load.wait_answers(50)
    before = inside(server, access).stat().st_size
    load.wait_answers(50)
    assert inside(server, access).stat().st_size == before, "it was full"
    kill(server.status()["workers"][0]["pid"])
    until(lambda: len(pids(server)) == 2, "a new worker on a full disk")
    filler.unlink()
    lost = events.wait("log lines lost", log=str(access))
    assert lost["reason"] == "No space left on device"
    assert lost["lines"] > 0
    load.wait_answers(50)
    load.end_with_losses(4)
    lines = inside(server, access).read_text().splitlines()
    # What a write could not finish stands alone: it has spoiled no other line.
    assert all(line.count("GET /big?n=3000") <= 1 for line in lines)
    whole = [line for line in lines if '"GET /big?n=3000 HTTP/1.1" 200 3000 ' in line]
    assert len(whole) >= 70


class LogFile:
    """The events in a file."""

    def __init__(self, server: Server, path: Path) -> None:
        self.path = inside(server, path)

    def find(self, name: str, **fields: object) -> list[Event]:
        with contextlib.suppress(FileNotFoundError):
            lines = self.path.read_text().splitlines()
            events = [
                json.loads(line) for line in lines if line.startswith("{") and line[-1] == "}"
            ]
            return [
                event
                for event in events
                if event["event"] == name and fields.items() <= event.items()
            ]
        return []

    def wait(self, name: str, count: int = 1, **fields: object) -> Event:
        found = until(lambda: self.find(name, **fields)[count - 1 :], f"{name} {fields}")
        return dict(found[0])


@pytest.mark.parametrize("size", [6000, 300_000])
def test_a_full_disk_under_a_body_is_507(
    start: Start, small_disk: tuple[Path, tuple[str, ...]], size: int
) -> None:
    """Also where the file's last bytes go to the disk only when it is read."""
    place, wrapper = small_disk
    server = start(
        *(APP, "--workers", "1", "--set", "http.body_memory=1KiB"),
        wrapper=wrapper,
        env={"TMPDIR": str(place)},
    ).wait_ready(1)
    (worker,) = pids(server).values()
    body = os.urandom(2000)
    empty = free(inside(server, place))
    with Connection(server.port) as connection:
        assert connection.ask("/echo", body).body == body
    assert free(inside(server, place)) == empty - 1, "its page is the next body's"
    filler = fill(inside(server, place))
    with Connection(server.port) as connection:
        answer = connection.ask("/echo", os.urandom(size))
        assert answer.status == 507
        assert answer.last
        assert b"No space left on device" in answer.body
    assert server.get("/pid") == (200, str(worker).encode())
    filler.unlink()
    with Connection(server.port) as connection:
        assert connection.ask("/echo", body).body == body
    assert list(pids(server).values()) == [worker]


def test_a_full_disk_under_a_response_makes_it_wait_for_its_client(
    start: Start, small_disk: tuple[Path, tuple[str, ...]]
) -> None:
    place, wrapper = small_disk
    server = start(
        *(APP, "--workers", "1", "--set", "http.response_memory=1KiB"),
        wrapper=wrapper,
        env={"TMPDIR": str(place)},
    ).wait_ready(1)
    (worker,) = pids(server).values()
    with Connection(server.port) as slow:
        slow.send("/big?n=20000000")  # more than sockets, memory and disk hold
        answer = slow.receive()
        assert (answer.status, len(answer.body)) == (200, 20_000_000)
    assert not os.listdir(inside(server, place)), "what was written is given back"
    assert list(pids(server).values()) == [worker]


# The clocks.


def test_a_wall_clock_that_leaps_ends_nothing(start: Start, tmp_path: Path) -> None:
    """Every look at it finds another day; only the monotonic clock decides anything."""
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "now, days = time.time, itertools.cycle((0, 2, -2, 400, -400))\n"
        "time.time = lambda: now() + 86400 * next(days)\n"
    )
    server = start(
        *(APP, "--workers", "2", "--set", "workers.request_timeout=20"),
        *("--set", f"log.access={tmp_path / 'access.log'}"),
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    ).wait_ready(2)
    before = pids(server)
    load = PathLoad(tcp(server.port), one_shot=2, kept=2)
    with Connection(server.port) as idle:
        idle.ask("/pid")
        load.wait_answers(100)
        assert idle.ask("/pid").status == 200
    assert pids(server) == before
    server.ask("reload")
    load.wait_answers(50)
    load.end()
    server.wait("worker exited", 2)
    assert not server.find("worker killed")
    years = {line.split()[3][8:12] for line in (tmp_path / "access.log").read_text().splitlines()}
    assert len(years) > 1, "its clock did leap"


def test_a_master_that_stood_still_kills_no_worker_for_it(start: Start, tmp_path: Path) -> None:
    """Longer than every timeout: a request, a boot, and the time to leave end meanwhile."""
    site = Site(tmp_path / "site", count=2, boot_timeout=2)
    site.configure(workers={"request_timeout": 2, "graceful_timeout": 2})
    site.say("one", last=f"from {APP.replace(':', ' import ')}")
    server = site.start(start)
    retiring, late, boot = (Gate(tmp_path / name) for name in ("retiring", "late", "boot"))
    with Connection(server.port) as first, Connection(server.port) as second:
        first.send(retiring.target)
        retiring.arrived()
        holder = next(
            worker["pid"] for worker in server.status()["workers"] if worker["state"] == "busy"
        )
        site.say("two", first=gated(boot), last=f"from {APP.replace(':', ' import ')}")
        os.kill(holder, signal.SIGTERM)  # it leaves once its request is done, within two seconds
        server.wait("worker leaving", pid=holder)
        boot.arrived()  # its successor
        second.send(late.target)
        late.arrived()
        os.kill(server.pid, signal.SIGSTOP)
        until(lambda: stopped(server.pid), "the master stands still")
        begun = monotonic()
        until(lambda: monotonic() > begun + 2.5, "the timeouts are over")
        for gate in (retiring, late, boot):
            gate.open()
        assert first.receive().status == 200
        assert second.receive().status == 200
        successor = next(
            child.pid
            for child in psutil.Process(server.pid).children()
            if child.pid not in {event["pid"] for event in server.find("worker ready")}
        )
        # Ready or not, it accepts nothing before the master has heard of it.
        if os.uname().machine == "x86_64":
            # The second thread is that of the stacks; the others wait until the worker serves.
            epoll_wait, poll, ppoll, futex = 232, 7, 271, 202  # CPython 3.15 calls ppoll
            waits = [epoll_wait, poll], [epoll_wait, ppoll]
            until(
                lambda: [call for call in system_calls(successor) if call != futex] in waits,
                "it waits for the master",
            )
        os.kill(server.pid, signal.SIGCONT)
        server.wait("worker ready", pid=successor)
    assert server.wait("worker exited", pid=holder)["how"] == "exit status 0"
    assert not server.find("worker killed")
    assert not server.find("request timed out")
    assert len(pids(server)) == 2


# Deaths.


def test_all_workers_killed_at_once_are_back_and_the_queue_is_kept(start: Start) -> None:
    server = start(APP, "--workers", "3").wait_ready(3)
    server.expected_errors = {"worker died"}
    victims = pids(server).values()
    os.kill(server.pid, signal.SIGSTOP)
    for pid in victims:
        kill(pid)
    until(lambda: not any(alive(pid) for pid in victims), "nobody is left")
    with contextlib.ExitStack() as stack:
        queued = [stack.enter_context(Connection(server.port)) for _ in range(20)]
        for connection in queued:
            connection.send("/pid", close=True)
        os.kill(server.pid, signal.SIGCONT)
        answers = {int(connection.receive().body) for connection in queued}
    server.wait("worker ready", 6)
    assert answers <= set(pids(server).values())
    assert len(pids(server)) == 3


def test_a_crash_in_a_request_takes_along_that_connection_and_is_named(start: Start) -> None:
    server = start(APP, "--workers", "2").wait_ready(2)
    server.expected_errors = {"worker died"}
    load = PathLoad(tcp(server.port), one_shot=0, kept=0)
    with Connection(server.port) as crashing, pytest.raises(Cut):
        crashing.ask("/die")
    died = server.wait("worker died")
    assert died["how"] == "killed by SIGABRT"
    assert died["during"] == "GET /die"
    server.wait("worker ready", 3)
    load.end()


PHASES = ["before the import", "in the import", "an exit in the import", "in the warmup", "hanging"]


@pytest.mark.parametrize("phase", PHASES)
def test_workers_that_die_in_a_boot_leave_the_others_alone(
    start: Start, tmp_path: Path, phase: str
) -> None:
    """The server was ready once; then what its workers load breaks, and is repaired."""
    site = Site(tmp_path / "site", count=3, boot_timeout=2, warmup=["/"])
    logging = site.place / "logging.json"
    good = json.dumps({"version": 1})
    logging.write_text(good)
    site.configure(log={"config": str(logging)})
    server = site.start(start)
    server.expected_errors = {"worker died", "worker failed to boot"}
    die = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    (site.place / "deadly.py").write_text(f"def handler(): {die}\n")
    deadly = {"version": 1, "handlers": {"h": {"()": "deadly.handler"}}}
    match phase:
        case "before the import":
            rewrite(logging, json.dumps(deadly))
        case "in the import":
            site.say("broken", first=die)
        case "an exit in the import":
            site.say("broken", first="import sys; sys.exit('no')")
        case "in the warmup":
            site.say("broken", last=f"def app(*_): {die}")
        case "hanging":
            site.say("broken", first="import threading; threading.Event().wait()")
    victim, *others = pids(server).values()
    load = PathLoad(tcp(server.port), one_shot=1, path="/", right=(b"one", b"two"))
    kill(victim)
    tried = "worker killed" if phase == "hanging" else "worker failed to boot"
    died = "worker died" if "exit" not in phase and phase != "hanging" else tried
    server.wait(died, 3)
    assert list(pids(server).values()) == others
    load.wait_answers(10)
    site.say("two")
    rewrite(logging, good)
    until(lambda: len(pids(server)) == 3, "a full pool again")
    load.end_with_losses(1)


def test_a_worker_killed_while_it_retires_costs_no_request(start: Start, tmp_path: Path) -> None:
    server = start(APP, "--workers", "2").wait_ready(2)
    server.expected_errors = {"worker died"}
    gate = Gate(tmp_path / "gate")
    load = PathLoad(tcp(server.port), one_shot=2)
    with Connection(server.port) as held:
        holder = int(held.ask("/pid").body)
        held.send(gate.target)
        gate.arrived()
        server.ask("reload")
        server.wait("worker leaving", pid=holder)
        kill(holder)
        died = server.wait("worker died", pid=holder)
        assert died["during"].startswith("GET /hold")
        with pytest.raises(Cut):
            held.receive()
    gate.open()
    load.wait_answers(20)
    # Each client can have had one connection that was accepted and waited behind it.
    load.end_with_losses(2)
    assert len(server.find("worker ready")) == 4


# Applications that misbehave.


def test_a_worker_whose_application_ignores_term_leaves_all_the_same(start: Start) -> None:
    """SIGTERM is taken back after the request."""
    server = start(APP, "--workers", "1").wait_ready(1)
    _, worker = server.get("/ignore-term")
    server.get("/pid")  # the loop has gone round
    os.kill(int(worker), signal.SIGTERM)
    server.wait("worker leaving", pid=int(worker))
    server.wait("worker ready", 2)
    assert not server.find("worker killed")


@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_worker_whose_application_blocks_all_signals_leaves_all_the_same(
    start: Start, threads: str
) -> None:
    """They are let through again before it waits for a connection."""
    server = start(APP, "--workers", "1", "--threads", threads).wait_ready(1)
    for _ in range(3):
        _, worker = server.get("/deaf")
    server.ask("reload")
    server.wait("worker exited", pid=int(worker), how="exit status 0")
    assert not server.find("worker killed")
    assert list(pids(server).values()) != [int(worker)]
    assert server.get("/pid")[0] == 200


@pytest.mark.parametrize("path", ["/stuck", "/endless-thread"])
def test_a_worker_that_does_not_end_is_killed_and_the_server_stops(start: Start, path: str) -> None:
    server = start(APP, "--workers", "2", "--set", "workers.graceful_timeout=1").wait_ready(2)
    server.expected_errors = {"worker died"}
    with Connection(server.port) as connection:
        connection.send(path)
        if path == "/stuck":
            until(
                lambda: "busy" in {worker["state"] for worker in server.status()["workers"]},
                "it is stuck",
            )
        else:
            assert connection.receive().status == 200
        connection.close()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    assert len(server.find("worker killed")) == 1


def test_daemon_threads_keep_no_worker(start: Start) -> None:
    server = start(APP, "--workers", "1").wait_ready(1)
    _, worker = server.get("/daemon-thread")
    server.ask("reload")
    assert server.wait("worker exited", pid=int(worker))["how"] == "exit status 0"


def test_sys_exit_in_a_request_ends_the_request_and_not_the_worker(start: Start) -> None:
    server = start(APP, "--workers", "1").wait_ready(1)
    server.expected_errors = {"application failed"}
    with Connection(server.port) as connection:
        assert connection.ask("/exit?code=3").status == 500
    assert "SystemExit: 3" in server.wait("application failed")["traceback"]
    assert len(server.find("worker ready")) == 1
    assert server.get("/pid")[0] == 200


@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_response_ends_though_a_forked_child_lives(start: Start, threads: str) -> None:
    """It has inherited the connection, and would keep it open."""
    server = start(APP, "--workers", "1", "--threads", threads).wait_ready(1)
    with Connection(server.port) as idle:
        idle.ask("/pid")
        with Connection(server.port) as connection:
            told = json.loads(connection.ask("/fork", close=True).body)
            try:
                assert connection.sock.recv(1) == b"", "it ends for the client"
                assert idle.ask("/pid", close=True).status == 200
                assert idle.sock.recv(1) == b"", "the others, too"
                assert alive(told["child"])
            finally:
                kill(told["child"])


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("path", ["/exiting-child", "/returning-child"])
def test_a_forked_child_never_gets_into_the_server(start: Start, path: str, threads: str) -> None:
    """Neither by an exception nor by a return: one answer, from the parent."""
    server = start(APP, "--workers", "1", "--threads", threads).wait_ready(1)
    with Connection(server.port) as connection:
        told = json.loads(connection.ask(path).body)
        assert told["child"]
        assert connection.ask("/pid", close=True).status == 200
        assert connection.sock.recv(1) == b""
    if path == "/exiting-child":
        assert told["status"] == 7
    until(lambda: not alive(told["child"]), "the child is gone")
    assert not server.other
