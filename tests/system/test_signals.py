"""What each signal does, to the master and to a worker; reload as a transaction."""

import fcntl
import json
import os
import pty
import random
import select
import signal
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.changing_app import copy_app, rewrite
from tests.support.commands import ROOT
from tests.support.load import Connection, Gate, Load
from tests.support.processes import alive, signal_set
from tests.support.server import Server, Start
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE, until

BASIC = "tests.apps.basic:app"
SUPERVISED = "tests.apps.supervised:app"


def refused(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


# The end.


def test_term_finishes_what_is_in_flight(start: Start, tmp_path: Path) -> None:
    server = start(SUPERVISED, "--workers", "2").wait_ready(2)
    gate = Gate(tmp_path / "gate")
    with Connection(server.port) as connection:
        connection.send(gate.target)
        gate.arrived()
        server.signal(signal.SIGTERM)
        server.wait("worker exited")  # the idle one does not wait for the busy one
        gate.open()
        answer = connection.receive()
        assert (answer.status, answer.last) == (200, True)
    assert server.wait_exit() == 0
    assert len(server.find("worker exited", how="exit status 0")) == 2
    assert refused(server)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_stop_at_once(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    server = start(SUPERVISED, "--workers", "2", "--set", "workers.graceful_timeout=0")
    server.wait_ready(2).expected_errors.add("worker exited")  # it names what was cut off
    workers = server.ready_pids()
    gate = Gate(tmp_path / "gate")
    with Connection(server.port) as connection:
        connection.send(gate.target)
        gate.arrived()
        server.signal(number)
        assert server.wait_exit() == 0
        assert read_all(connection.sock) == b""
    gate.open()
    assert not any(map(alive, workers))
    assert not server.control.exists()
    assert not server.other, "no traceback of anybody's KeyboardInterrupt"


def test_a_second_term_is_a_quick_stop(start: Start, tmp_path: Path) -> None:
    server = start(SUPERVISED, "--workers", "1", "--set", "workers.graceful_timeout=0")
    server.wait_ready(1).expected_errors.add("worker exited")
    gate = Gate(tmp_path / "gate")
    with Connection(server.port) as connection:
        connection.send(gate.target)
        gate.arrived()
        server.signal(signal.SIGTERM)
        server.wait("worker leaving")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert read_all(connection.sock) == b""
    gate.open()


# The number of workers.


def test_ttin_and_ttou_change_the_number_by_one(start: Start) -> None:
    server = start(BASIC, "--workers", "1").wait_ready(1)
    for number in (2, 3):
        server.signal(signal.SIGTTIN)
        assert server.wait("worker ready", number)["slot"] == number - 1
    for number in (1, 2):
        server.signal(signal.SIGTTOU)
        assert server.wait("worker exited", number)["slot"] == 3 - number
    (last,) = server.ready_pids()
    server.signal(signal.SIGTTOU)  # there is no less than one
    server.wait("signal received", 3, signal="SIGTTOU")
    assert server.get("/pid") == (200, str(last).encode())
    assert server.ready_pids() == [last]
    assert server.status()["target"] == 1


def test_winch_lets_the_workers_go_and_hup_brings_them_back(start: Start) -> None:
    server = start(BASIC, "--workers", "2", start_new_session=True).wait_ready(2)
    server.signal(signal.SIGWINCH)
    server.wait("worker exited", 2)
    # The socket is still there: who comes now waits for the next worker.
    with Connection(server.port) as waiting:
        waiting.send("/", close=True)
        waiting.arrived()
        server.signal(signal.SIGHUP)
        server.wait_settled(2)
        told = json.loads(waiting.receive().body)
    assert told["generation"] == 2


@pytest.fixture
def terminal() -> Iterator[tuple[int, Callable[[], None]]]:
    """A terminal of our own: its keyboard's side, and what makes it a process's controlling one.

    To be named before `start`: a terminal that goes away first sends HUP to what is left.
    """
    keyboard, screen = pty.openpty()
    name = os.ttyname(screen)

    def take() -> None:
        os.setsid()
        # The first terminal that a session's leader opens is its own, tty(4).
        os.close(os.open(name, os.O_RDWR))

    yield keyboard, take
    os.close(keyboard)
    os.close(screen)


def test_winch_of_a_terminal_is_no_order(
    terminal: tuple[int, Callable[[], None]], start: Start
) -> None:
    keyboard, take = terminal
    server = start(BASIC, "--workers", "2", preexec_fn=take).wait_ready(2)
    before = server.ready_pids()
    # A resize, as a window does it: the kernel tells the whole foreground group, tty_ioctl(4).
    fcntl.ioctl(keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))
    server.wait("signal received", signal="SIGWINCH")
    server.signal(signal.SIGTTIN)
    server.wait("worker ready", 3)
    assert server.ready_pids()[:2] == before
    assert not server.find("worker leaving")


def test_ctrl_c_reaches_all_and_the_master_decides(
    terminal: tuple[int, Callable[[], None]], start: Start
) -> None:
    keyboard, take = terminal
    server = start(BASIC, "--workers", "3", preexec_fn=take).wait_ready(3)
    os.write(keyboard, b"\x03")
    assert server.wait_exit() == 0
    assert server.find("signal received", signal="SIGINT")
    exits = server.find("worker exited")
    assert [event["how"] for event in exits] == ["exit status 0"] * 3
    assert not server.other


def test_usr1_goes_on_in_new_files(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    server = start(BASIC, "--workers", "2", "--set", f"log.access={log}").wait_ready(2)
    moved = tmp_path / "access.log.1"
    server.get("/pid?before")
    until(lambda: "before" in log.read_text(), "the first line is there")
    log.rename(moved)
    server.signal(signal.SIGUSR1)
    server.wait("log files reopened")
    for number in range(10):
        server.get(f"/pid?after={number}")
    until(lambda: moved.read_text().count("\n") + log.read_text().count("\n") == 11, "all lines")
    assert "before" in moved.read_text()
    # A worker may have had a request while the order was under way to it, but not many.
    assert "after=9" in log.read_text()


# Workers.


def test_a_worker_ignores_what_a_terminal_sends(start: Start) -> None:
    server = start(BASIC, "--workers", "1", "--set", "http.keepalive=0").wait_ready(1)
    (worker,) = server.ready_pids()
    ignored = [signal.SIGINT, signal.SIGHUP, signal.SIGWINCH, signal.SIGUSR1, signal.SIGUSR2]
    ignored += [signal.SIGTTIN, signal.SIGTTOU]
    with Connection(server.port) as kept:
        for number in ignored:
            os.kill(worker, number)
            assert server.get("/pid") == (200, str(worker).encode())
            os.kill(worker, number)  # and in its other place to wait
            assert int(kept.ask("/pid").body) == worker
    assert server.ready_pids() == [worker]
    # Caught and not ignored, which a program of the application's would inherit.
    assert not signal_set(worker, "SigIgn") & set(ignored)
    assert set(ignored) <= signal_set(worker, "SigCgt")


def test_term_to_a_worker_retires_it_and_its_successor_is_there_first(
    start: Start, tmp_path: Path
) -> None:
    server = start(SUPERVISED, "--workers", "1").wait_ready(1)
    (worker,) = server.ready_pids()
    gate = Gate(tmp_path / "gate")
    with Connection(server.port) as connection:
        connection.send(gate.target)
        gate.arrived()
        os.kill(worker, signal.SIGTERM)
        server.wait("worker leaving", pid=worker)
        successor = server.wait("worker ready", 2)["pid"]
        assert server.get("/pid") == (200, str(successor).encode())
        assert not server.find("worker exited")
        gate.open()
        answer = connection.receive()
        assert int(answer.body) == worker
        assert answer.last
    assert server.wait("worker exited", pid=worker)["how"] == "exit status 0"


def test_a_worker_retired_under_load_loses_nothing(start: Start) -> None:
    server = start(BASIC, "--workers", "2", "--set", "http.keepalive=25").wait_ready(2)
    clients = Load()

    def one_shot(_: random.Random) -> None:
        with Connection(server.port) as connection:
            connection.ask("/pid", close=True)
            clients.count()

    def keep_alive(rng: random.Random) -> None:
        with Connection(server.port) as connection:
            for _ in range(rng.randint(5, 50)):
                answer = connection.ask("/pid")
                clients.count()
                if answer.last:
                    return

    clients.run(one_shot, 4)
    clients.run(keep_alive, 4)
    for number in range(3, 13):
        clients.wait_answers(20)
        os.kill(server.ready_pids()[number % 2], signal.SIGTERM)
        server.wait("worker ready", number)
    clients.end()
    server.wait("worker exited", 10)


def test_an_unknown_child_is_reaped_and_is_no_worker(start: Start) -> None:
    """One that the master had before it was a master: exec(2) keeps children."""
    keep, end = os.pipe()
    told, tell = os.pipe()

    def child() -> None:
        pid = os.fork()
        if pid == 0:
            # The log's pipe, and the one that subprocess waits at for the exec.
            os.closerange(0, keep)
            os.closerange(keep + 1, 1024)
            os.read(keep, 1)
            os._exit(7)
        os.write(tell, b"%d\n" % pid)

    server = start(BASIC, "--workers", "1", preexec_fn=child, pass_fds=(keep, tell))
    os.close(keep)
    os.close(tell)
    with open(told) as reader:
        pid = int(reader.readline())
    server.wait_ready(1)
    assert alive(pid)
    before = server.ready_pids()
    os.write(end, b".")
    until(lambda: not Path(f"/proc/{pid}").exists(), "not even a zombie is left of it")
    os.close(end)
    assert server.get("/pid")[0] == 200
    assert server.ready_pids() == before
    assert not server.find("worker exited")
    assert not server.find("worker died")


# HUP.


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An application file that may be rewritten, in a directory of its own."""
    return copy_app(tmp_path / "app")


class Watch(Load):
    """Clients that note which version answers, in order, from before to after a reload."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.versions: list[bytes] = []
        self._port = port
        self.run(self._client, 3)

    def _client(self, _: random.Random) -> None:
        with Connection(self._port) as connection:
            answer = connection.ask("/", close=True)
            assert answer.status == 200
            self.versions.append(answer.body)
            self.count()


def test_hup_serves_the_changed_code_and_costs_no_request(start: Start, app: Path) -> None:
    server = start(
        *("changing:app", "--workers", "2", "--set", "log.level=debug"), cwd=app.parent
    ).wait_ready(2)
    old = server.ready_pids()
    clients = Watch(server.port)
    clients.wait_answers(20)
    rewrite(app, app.read_text().replace('"one"', '"second"'))
    server.signal(signal.SIGHUP)
    server.wait("generation settled", generation=2)
    for pid in old:
        assert server.wait("worker exited", pid=pid)["how"] == "exit status 0"
    after = len(clients.versions) + 3  # what was under way
    clients.wait_answers(20)
    clients.end()
    assert set(clients.versions) == {b"one", b"second"}
    assert set(clients.versions[after:]) == {b"second"}
    # The transaction: one canary, and when it is ready the other; an old worker goes for each.
    order = [
        event["event"]
        for event in server.events
        if (event["event"], event.get("generation"))
        in (("worker forked", 2), ("worker ready", 2), ("worker leaving", 1))
    ]
    assert order[:2] == ["worker forked", "worker ready"]
    assert sorted(order[2:]) == sorted(["worker forked", "worker ready", *["worker leaving"] * 2])


BROKEN = {
    "raises": 'raise RuntimeError("broken by a bad deployment")\n',
    "syntax": "def app(:\n",
    "no app": "application = None\n",
    "exits": "import os\nos._exit(1)\n",
}


@pytest.mark.parametrize("how", BROKEN)
def test_hup_with_a_broken_application_changes_nothing(start: Start, app: Path, how: str) -> None:
    server = start("changing:app", "--workers", "2", cwd=app.parent).wait_ready(2)
    server.expected_errors |= {"reload failed", "worker failed to boot", "worker died"}
    before = server.ready_pids()
    clients = Watch(server.port)
    clients.wait_answers(5)
    rewrite(app, BROKEN[how])
    server.signal(signal.SIGHUP)
    failed = server.wait("reload failed")
    assert failed["generation"] == 2
    if how == "raises":
        assert failed["reason"].endswith("RuntimeError: broken by a bad deployment")
    clients.wait_answers(5)
    clients.end()
    assert set(clients.versions) == {b"one"}
    assert server.ready_pids() == before
    assert all(map(alive, before))
    assert not server.find("worker leaving")

    def pids() -> list[int]:
        return sorted(worker["pid"] for worker in server.status()["workers"])

    until(lambda: pids() == sorted(before), "what was tried is gone")
    assert server.status()["generation"] == 1


def toml(path: Path, **keys: str) -> Path:
    """Writes a configuration: server__bind='"..."' is `bind` of [server]."""
    sections: dict[str, list[str]] = {"server": ['app = "changing:app"']}
    for name, value in keys.items():
        section, _, key = name.partition("__")
        sections.setdefault(section, []).append(f"{key} = {value}")
    rewrite(path, "\n".join(f"[{name}]\n" + "\n".join(sections[name]) for name in sections) + "\n")
    return path


@pytest.mark.parametrize("text", ["[server\n", '[server]\napp = "changing:app"\nbnid = ":0"\n'])
def test_hup_with_a_broken_file_changes_nothing(start: Start, app: Path, text: str) -> None:
    config = toml(app.with_name("site.toml"), workers__count="2")
    server = start(str(config)).wait_ready(2)
    server.expected_errors.add("reload failed")
    before = server.ready_pids()
    clients = Watch(server.port)
    clients.wait_answers(5)
    rewrite(config, text)
    rewrite(app, app.read_text().replace('"one"', '"second"'))  # not that either
    server.signal(signal.SIGHUP)
    assert "site.toml" in server.wait("reload failed")["reason"]
    clients.wait_answers(5)
    clients.end()
    assert set(clients.versions) == {b"one"}
    assert server.ready_pids() == before
    # Repaired, it goes through.
    toml(config, workers__count="1")
    server.signal(signal.SIGHUP)
    server.wait("generation settled", generation=2)
    server.wait("worker exited", 2)
    assert server.get("/") == (200, b"second")
    assert len(server.ready_pids()) == 1


def ask_unix(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        return read_all(sock).rpartition(b"\r\n\r\n")[2]


def test_hup_with_another_bind_opens_the_new_and_closes_the_old(start: Start, app: Path) -> None:
    first, second = app.with_name("a"), app.with_name("b")
    kept = app.with_name("kept")
    config = toml(app.with_name("site.toml"), server__bind=f'["unix:{first}", "unix:{kept}"]')
    server = start(str(config), "--workers", "2", bind=()).wait_ready(2)
    assert ask_unix(first) == ask_unix(kept) == b"one"
    inode = kept.stat().st_ino
    toml(config, server__bind=f'["unix:{second}", "unix:{kept}"]')
    server.signal(signal.SIGHUP)
    server.wait("generation settled", generation=2)
    server.wait("worker exited", 2)
    assert ask_unix(second) == ask_unix(kept) == b"one"
    until(lambda: not first.exists(), "the old socket's file is gone")
    assert kept.stat().st_ino == inode, "it was never closed"


def test_hup_with_an_address_that_cannot_be_bound_changes_nothing(start: Start, app: Path) -> None:
    first, second = app.with_name("a"), app.with_name("b")
    config = toml(app.with_name("site.toml"), server__bind=f'["unix:{first}"]')
    server = start(str(config), "--workers", "1", bind=()).wait_ready(1)
    server.expected_errors.add("reload failed")
    before = server.ready_pids()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        toml(config, server__bind=f'["unix:{second}", "127.0.0.1:{port}"]')
        server.signal(signal.SIGHUP)
        assert str(port) in server.wait("reload failed")["reason"]
    assert ask_unix(first) == b"one"
    assert not second.exists(), "what was opened for it is closed"
    assert server.ready_pids() == before


def test_hup_changes_threads_and_timeouts(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "site.toml"
    text = '[server]\napp = "tests.apps.supervised:app"\nchdir = "{}"\n[workers]\ncount = 1\n{}'
    config.write_text(text.format(ROOT, "threads = 1\n"))
    server = start(str(config)).wait_ready(1)
    server.expected_errors |= {"request timed out", "worker exited"}
    config.write_text(text.format(ROOT, "threads = 3\nrequest_timeout = 1\n"))
    server.signal(signal.SIGHUP)
    server.wait("generation settled", generation=2)
    server.wait("worker exited")
    gates = [Gate(tmp_path / f"gate-{number}") for number in range(3)]
    connections = [Connection(server.port) for _ in gates]
    for connection, gate in zip(connections, gates, strict=True):
        connection.send(gate.target)
    for gate in gates:
        gate.arrived()  # all three at one time, in the one worker
    late = server.wait("request timed out", generation=2)
    assert 1 <= late["elapsed"] < 30
    # The first that is late is answered while all are held; its siblings may finish.
    assert select.select([connection.sock for connection in connections], [], [], PATIENCE)[0]
    for gate in gates:
        gate.open()
    statuses = []
    for connection in connections:
        statuses.append(connection.receive().status)
        connection.close()
    assert 504 in statuses
    assert set(statuses) <= {200, 504}


def test_a_thousand_hups(start: Start, app: Path) -> None:
    """Each supersedes the one before it; the last is what is served, and no request fails."""
    server = start("changing:app", "--workers", "2", cwd=app.parent).wait_ready(2)
    server.expected_errors.add("reload failed")
    clients = Watch(server.port)
    clients.wait_answers(5)
    for _ in range(999):
        server.signal(signal.SIGHUP)
    rewrite(app, app.read_text().replace('"one"', '"second"'))
    server.signal(signal.SIGHUP)
    server.ask("reload")  # waits for its own, which is the last
    clients.wait_answers(5)
    clients.end()
    assert server.get("/") == (200, b"second")
    generation = server.status()["generation"]
    server.wait("generation settled", generation=generation)
    until(lambda: len(server.workers()) == 2, "two workers are left")
    for failed in server.find("reload failed"):
        assert failed["reason"] == "a later reload took its place"
    # Each was answered, one way or the other.
    started = {event["generation"] for event in server.find("reload started")}
    ended = {
        event["generation"]
        for name in ("reload failed", "generation settled")
        for event in server.find(name)
    }
    assert started <= ended
    assert started
