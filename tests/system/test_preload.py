"""Preloading: one process a generation imports the application and forks its workers; and hooks."""

import json
import os
import random
import re
import selectors
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from prefork import logs
from prefork.channel import BornReport, Channel, ReadyReport, Report
from prefork.config import Log, Source, load
from prefork.master.pool.plan import Worker
from prefork.master.processes.children import Children
from prefork.master.processes.generation import Generation
from prefork.scoreboard import Scoreboard
from tests.support.commands import ROOT
from tests.support.load import Answer, Connection, Load, running_load
from tests.support.processes import alive, links
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE, until

APP = "preloaded:app"
PRELOAD = ("--set", "workers.preload=true")
HOOKS = ("before_fork", "after_fork", "ready", "before_exit")


@dataclass
class Site:
    """A directory with a copy of tests/apps/preloaded.py, and the journal that it keeps."""

    path: Path
    start_server: Start
    env: dict[str, str] = field(default_factory=dict)

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    def start(self, *args: str, app: str = APP, env: dict[str, str] | None = None) -> Server:
        environment = {"JOURNAL": str(self.journal), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        server: Server = self.start_server(app, *args, cwd=self.path, env=environment)
        return server

    def notes(self, what: str = "") -> list[list[str]]:
        """The journal's lines that begin with a word, each as its words."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [words for line in lines if (words := line.split())[0].startswith(what)]

    def rewrite(self, version: str) -> None:
        source = (ROOT / "tests/apps/preloaded.py").read_text()
        self.replace(source.replace('VERSION = "one"', f'VERSION = "{version}"'))

    def replace(self, source: str) -> None:
        # No bytecode is written (see `start`), whose age in seconds could hide a change.
        (self.path / "preloaded.py").write_text(source)


@pytest.fixture
def site(tmp_path: Path, start: Start) -> Site:
    path = tmp_path / "site"
    path.mkdir()
    shutil.copy(ROOT / "tests/apps/preloaded.py", path)
    return Site(path, start)


def answer(server: Server) -> dict[str, Any]:
    status, body = server.get("/")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def zygote(server: Server, count: int = 1, **fields: Any) -> psutil.Process:
    """The zygote of the `count`th event that one is ready."""
    return psutil.Process(server.wait("zygote ready", count, **fields)["pid"])


def gone(pid: int) -> Callable[[], bool]:
    """Where the master is dead, whoever takes in its orphans may be slow to bury them."""
    return lambda: not alive(pid)


def end(server: Server) -> list[int]:
    """Stops a server, and returns the processes of it that are still there."""
    known = [server.pid, *(event["pid"] for event in everybody(server))]
    server.stop()
    return [pid for pid in known if psutil.pid_exists(pid)]


def everybody(server: Server) -> list[dict[str, Any]]:
    return [*server.find("zygote ready"), *server.find("worker ready")]


def has_sockets(pid: int, count: int) -> bool:
    return sum(name.startswith("socket") for name in links(pid).values()) == count


def listening(pid: int) -> set[int]:
    """The ports of the listening sockets that a process has open."""
    inodes = {}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == "0A":
            inodes[f"socket:[{rest[5]}]"] = int(local.rpartition(":")[2], 16)
    return {inodes[name] for name in links(pid).values() if name in inodes}


@contextmanager
def visited(server: Server) -> Iterator[Load]:
    """Clients that ask all the while, on kept connections and with one for each request; each
    answer is looked at, and none may fail."""
    with running_load() as clients:

        def check(answer: Answer) -> None:
            assert answer.status == 200
            assert json.loads(answer.body)["version"] == "one"
            clients.count()

        def keep_alive(_: random.Random) -> None:
            with Connection(server.port) as connection:
                last = False
                while not last and not clients.over.is_set():
                    answer = connection.ask("/")
                    check(answer)
                    last = answer.last

        def one_shot(_: random.Random) -> None:
            with Connection(server.port) as connection:
                check(connection.ask("/", close=True))

        clients.run(keep_alive, 2)
        clients.run(one_shot, 2)
        yield clients


# Memory and import.


def _pss(processes: list[psutil.Process]) -> int:
    """Proportional set size in KiB (proc(5), smaps_rollup)."""
    total = 0
    for process in processes:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        total += int(re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[0])
    return total


def test_the_workers_share_the_memory_of_the_application(site: Site) -> None:
    args = ("--workers", "4")
    apart = site.start(*args, env={"BALLAST": "50"}).wait_ready(4)
    shared = site.start(*args, *PRELOAD, env={"BALLAST": "50"}).wait_ready(4)
    for server in (apart, shared):
        with visited(server) as clients:
            clients.wait_answers(200)
    without = _pss(apart.workers())
    with_it = _pss([*shared.workers(), zygote(shared)])
    assert without > 4 * 50_000
    assert with_it < without / 2


def test_the_application_is_imported_once_and_by_no_worker(site: Site) -> None:
    server = site.start("--workers", "3", *PRELOAD, app="preloaded:factory()").wait_ready(3)
    imports = [["import", str(zygote(server).pid)], ["factory", str(zygote(server).pid)]]
    assert site.notes() == imports
    assert zygote(server).pid not in set(server.worker_pids())
    assert zygote(server).cmdline()[0].startswith("prefork: zygote [")


def test_the_master_is_the_parent_of_what_the_zygote_forks(site: Site) -> None:
    server = site.start("--workers", "3", *PRELOAD).wait_ready(3)
    assert answer(server)["parent"] == server.pid
    assert {worker.ppid() for worker in server.workers()} == {server.pid}
    assert zygote(server).ppid() == server.pid
    assert zygote(server).children() == []


def test_each_worker_has_random_numbers_of_its_own(site: Site) -> None:
    server = site.start("--workers", "4", *PRELOAD).wait_ready(4)
    seen: dict[int, float] = {}
    until(lambda: _see(server, seen) == 4, "an answer of each worker")
    assert len(set(seen.values())) == 4


def _see(server: Server, seen: dict[int, float]) -> int:
    """The first random number of each worker that has answered."""
    found = answer(server)
    seen.setdefault(found["pid"], found["random"])
    return len(seen)


@pytest.mark.parametrize("kind", ["tcp", "static"])
def test_every_protocol_can_be_preloaded(site: Site, start: Start, kind: str) -> None:
    (site.path / "page.txt").write_text("a page")
    args = ("examples.echo:handle", "--tcp") if kind == "tcp" else (str(site.path),)
    server = start(*args, "--workers", "2", *PRELOAD).wait_ready(2)
    if kind == "tcp":
        with server.connect() as sock:
            sock.sendall(b"hello\n")
            assert sock.recv(100) == b"hello\n"
    else:
        assert server.get("/page.txt") == (200, b"a page")


# Reload.


def test_a_reload_brings_new_code_by_a_zygote_of_its_own(site: Site) -> None:
    server = site.start("--workers", "2", *PRELOAD).wait_ready(2)
    first = zygote(server).pid
    site.rewrite("two")
    server.ask("reload")
    assert answer(server)["version"] == "two"
    assert zygote(server, generation=2).is_running()
    until(gone(first), "the end of the first zygote")
    assert len(site.notes("import")) == 2


def test_a_reload_can_switch_preloading_on_and_off(site: Site, start: Start) -> None:
    file = site.path / "site.toml"

    def write(preload: str) -> None:
        file.write_text(f'[server]\napp = "{APP}"\n[workers]\ncount = 2\npreload = {preload}\n')

    write("false")
    server = site.start(app=str(file)).wait_ready(2)
    assert not server.find("zygote ready")
    write("true")
    server.ask("reload")
    only = zygote(server, generation=2).pid
    write("false")
    server.ask("reload")
    until(gone(only), "the end of the zygote")
    assert len(server.find("zygote ready")) == 1
    assert answer(server)["parent"] == server.pid


FAILING_IMPORTS = [
    ("raise RuntimeError('broken on purpose')", "RuntimeError: broken on purpose"),
    ("import sys; sys.exit('leaves at import')", "SystemExit: leaves at import"),
    ("import os; os._exit(5)", "the zygote died before it was ready: exit status 5"),
    ("import os; os.kill(os.getpid(), 9)", "before it was ready: killed by SIGKILL"),
    ("import threading; threading.Event().wait()", "not ready within 3 s"),
    ("nothing = None", "preloaded:app: preloaded has no 'app'"),
]
# Each boot that is to succeed has to be quicker, on a busy machine, too.
IN_TIME = ("--workers", "2", *PRELOAD, "--set", "workers.boot_timeout=3")


def test_an_import_that_fails_at_a_reload_changes_nothing(site: Site) -> None:
    server = site.start(*IN_TIME).wait_ready(2)
    before = server.worker_pids(), zygote(server).pid
    server.expected_errors |= {"reload failed", "spawn failed", "zygote died"}
    for source, said in FAILING_IMPORTS:
        site.replace(source)
        assert said in server.refusal("reload"), source
        assert (server.worker_pids(), zygote(server).pid) == before, source
    # The old generation goes on with the code that it has, whatever is on disk now.
    victim = server.workers()[0].pid
    server.expected_errors.add("worker died")
    os.kill(victim, signal.SIGKILL)
    server.wait("worker ready", 3, generation=1)
    assert answer(server)["version"] == "one"


@pytest.mark.parametrize(("source", "said"), FAILING_IMPORTS)
def test_an_import_that_fails_at_the_first_boot_ends_the_server(
    site: Site, source: str, said: str
) -> None:
    site.replace(source)
    first = site.start(*IN_TIME)
    assert first.wait_exit() == 3
    assert said in first.wait("first boot failed")["traceback"]
    assert "prefork/" not in first.find("first boot failed")[0]["traceback"]
    assert not first.find("zygote ready")
    first.expected_errors |= {"first boot failed", "zygote died"}


def test_a_listener_that_a_reload_drops_is_not_kept_open_by_a_zygote(
    site: Site, start: Start
) -> None:
    file = site.path / "site.toml"

    def write(*extra: str) -> None:
        binds = json.dumps(["127.0.0.1:0", *extra])
        text = f'[server]\napp = "{APP}"\nbind = {binds}\n[workers]\ncount = 2\npreload = true\n'
        file.write_text(text)

    write("unix:other.sock")
    server = site.start_server(str(file), cwd=site.path, bind=()).wait_ready(2)
    other = str(site.path / "other.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(other)

    def holds(number: int, pid: int) -> None:
        """Listeners and channel; a worker's end of its own passes through for a moment."""
        until(
            lambda: sum("socket" in name for name in links(pid).values()) == number,
            f"{number} sockets",
        )

    holds(3, zygote(server).pid)
    write()
    server.ask("reload")
    holds(2, zygote(server, generation=2).pid)
    until(lambda: len(server.workers()) == 2, "the end of the old workers")
    for worker in server.workers():
        # Listener, channel, its own inbox, and the way into those of the other three slots.
        holds(6, worker.pid)


# The zygote's death.


def test_the_death_of_the_zygote_costs_no_request_and_no_worker(site: Site) -> None:
    server = site.start("--workers", "2", *PRELOAD).wait_ready(2)
    server.expected_errors.add("zygote died")
    workers = set(server.worker_pids())
    with visited(server) as clients:
        for number in range(1, 6):
            clients.wait_answers(20)
            zygote(server, number).kill()
            server.wait("zygote ready", number + 1)
        clients.wait_answers(20)
    assert set(server.worker_pids()) == workers
    assert len(server.find("worker ready")) == 2

    server.expected_errors.add("worker died")
    os.kill(min(workers), signal.SIGKILL)
    server.wait("worker ready", 3)
    assert answer(server)["version"] == "one"


def test_a_zygote_that_dies_young_is_replaced_by_the_next_spawn(site: Site) -> None:
    server = site.start("--workers", "2", *PRELOAD).wait_ready(2)
    server.expected_errors |= {"zygote died", "spawn failed", "worker died"}
    zygote(server).send_signal(signal.SIGABRT)  # it leaves TERM to its workers
    server.wait("zygote died", how="killed by SIGABRT")
    os.kill(min(set(server.worker_pids())), signal.SIGKILL)
    server.wait("worker ready", 3)
    assert len(server.find("zygote ready")) == 2


def test_a_zygote_that_does_not_fork_in_time_is_replaced(site: Site) -> None:
    args = ("--workers", "2", *PRELOAD, "--set", "workers.boot_timeout=3")
    server = site.start(*args).wait_ready(2)
    server.expected_errors |= {"zygote died", "spawn failed", "worker died"}
    zygote(server).suspend()
    os.kill(min(set(server.worker_pids())), signal.SIGKILL)
    server.wait("zygote killed", reason="its worker was not ready within 3 s")
    server.wait("worker ready", 3)


def test_nothing_is_left_when_the_master_is_killed(site: Site) -> None:
    server = site.start("--workers", "3", *PRELOAD).wait_ready(3)
    known = [event["pid"] for event in everybody(server)]
    server.process.kill()
    server.process.wait(PATIENCE)
    for pid in known:
        until(gone(pid), f"the end of {pid}")


def test_nothing_is_left_when_the_master_is_killed_during_an_import(site: Site) -> None:
    """An import hears no channel's end: the signal at the parent's death is what ends it."""
    server = site.start("--workers", "1", *PRELOAD).wait_ready(1)
    note = f"open({str(site.journal)!r}, 'a').write(f'hanging {{os.getpid()}}\\n')"
    site.replace(f"import os, threading\n{note}\nthreading.Event().wait()\n")
    server.signal(signal.SIGHUP)
    ((_, pid),) = until(lambda: site.notes("hanging"), "an import under way")
    server.process.kill()
    server.process.wait(PATIENCE)
    until(gone(int(pid)), "the end of the new zygote")


# Workers that a zygote forks.


def test_a_killed_worker_is_replaced_without_an_import(site: Site) -> None:
    server = site.start("--workers", "2", *PRELOAD).wait_ready(2)
    server.expected_errors.add("worker died")
    only = zygote(server).pid
    for number in range(10):
        os.kill(server.workers()[number % 2].pid, signal.SIGKILL)
        server.wait("worker ready", 3 + number)
        until(lambda: len(server.workers()) == 2, "two workers")
    assert len(site.notes("import")) == 1
    assert zygote(server).pid == only
    assert [event["slot"] for event in server.find("worker ready")[2:]] == [0, 1] * 5


def test_a_worker_that_dies_before_its_pid_is_known_is_asked_for_again(site: Site) -> None:
    flag = site.path / "die"
    server = site.start("--workers", "2", *PRELOAD, env={"DIE_UNBORN": str(flag)}).wait_ready(2)
    server.expected_errors |= {"spawn failed", "worker died"}
    flag.touch()
    os.kill(min(set(server.worker_pids())), signal.SIGKILL)
    server.wait("spawn failed", 3, slots=[0])
    flag.unlink()
    server.wait("worker ready", 2, slot=0)
    for _, pid in site.notes("unborn"):
        assert not psutil.pid_exists(int(pid))
    assert answer(server)["version"] == "one"


def test_a_first_boot_whose_workers_die_unborn_fails(site: Site) -> None:
    flag = site.path / "die"
    flag.touch()
    server = site.start("--workers", "2", *PRELOAD, env={"DIE_UNBORN": str(flag)})
    assert server.wait_exit() == 3
    why = "the worker died before it had reported its process id"
    assert server.find("first boot failed", traceback=why)
    server.expected_errors.add("first boot failed")
    assert not psutil.pid_exists(server.find("zygote ready")[0]["pid"])


def test_warmup_is_for_each_worker_and_can_fail_its_boot(site: Site) -> None:
    good = site.start("--workers", "2", *PRELOAD, "--set", 'workers.warmup=["/"]').wait_ready(2)
    assert len(site.notes("import")) == 1
    assert answer(good)["version"] == "one"
    site.replace("def app(environ, start_response):\n    raise RuntimeError('cold')\n")
    bad = site.start("--workers", "1", *PRELOAD, "--set", 'workers.warmup=["/"]')
    assert bad.wait_exit() == 3
    assert bad.find("zygote ready")
    assert bad.find("first boot failed")[0]["traceback"].endswith("RuntimeError: cold")
    bad.expected_errors.add("first boot failed")


def test_many_workers_are_forked(site: Site) -> None:
    server = site.start("--workers", "2", *PRELOAD).wait_ready(2)
    server.ask("scale", count=24)
    server.wait("worker ready", 24)
    server.ask("scale", count=2)
    until(lambda: len(server.workers()) == 2, "two workers")
    assert len(site.notes("import")) == 1


def test_a_worker_of_a_zygote_reopens_its_logs(site: Site) -> None:
    access = site.path / "access.log"
    args = ("--workers", "1", *PRELOAD, "--set", f"log.access={access}")
    server = site.start(*args).wait_ready(1)
    answer(server)
    # Written after the response: it is not to be in the new file.
    until(lambda: len(access.read_text().splitlines()) == 1, "a line in the old file")
    access.rename(site.path / "access.log.1")
    server.ask("reopen")
    server.expected_errors.add("worker died")
    # A request that the old worker answers could not show what its successor has.
    os.kill(min(set(server.worker_pids())), signal.SIGKILL)
    server.wait("worker ready", 2)
    answer(server)
    until(lambda: len(access.read_text().splitlines()) == 1, "a line in the new file")
    assert len((site.path / "access.log.1").read_text().splitlines()) == 1


class Zygote:
    """Stands for one whose worker's last words the master has not read yet."""

    def __init__(self, children: Children, generation: Any, channel: Channel) -> None:
        self.children, self.generation, self.channel = children, generation, channel
        self.dead: list[int] = []

    def read_reports(self) -> None:
        report = self.channel.receive_report()
        assert isinstance(report, BornReport)
        self.children.add(report.pid, 7, self.generation, self.channel, None)

    def died(self, pid: int, how: str, *, sigkill: bool) -> None:
        self.dead.append(pid)


def test_a_worker_that_reported_its_pid_and_died_is_known_when_it_is_reaped() -> None:
    """What it told is read before it is reaped, though nobody has looked at its channel since."""
    selector = selectors.DefaultSelector()
    heard: list[Report] = []
    children = Children(
        "site",
        selector,
        Scoreboard(),
        logs.configure(Log()),
        forked=lambda pid, slot, generation: Worker(
            slot, pid, generation.number, generation.settings, 0, 0.0, None
        ),
        report=lambda child, report: heard.append(report),
        foreign=lambda generation: (),
    )
    ours, theirs = Channel.pair()
    generation = Generation(1, load(Source("preloaded:app"), {}), [])
    others = Zygote(children, generation, ours)
    pid = os.fork()
    if pid == 0:
        theirs.send(BornReport(os.getpid()))
        theirs.send(ReadyReport())
        os._exit(9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    (death,) = children.reap(others)
    assert (death.child.pid, death.child.slot, death.how) == (pid, 7, "exit status 9")
    assert heard == [ReadyReport()]
    assert others.dead == []
    assert list(children) == []
    theirs.close()
    selector.close()


# What is held open, and what is left.


def test_a_zygote_holds_the_listeners_and_nothing_else_of_the_master(site: Site) -> None:
    server = site.start("--workers", "2", *PRELOAD).wait_ready(2)

    def held() -> int:
        return sum(
            name.startswith(("socket", "anon")) for name in links(zygote(server).pid).values()
        )

    # The listener and its channel: no worker's channel (but while it forks one), no control socket,
    # no epoll.
    until(lambda: held() == 2, "two descriptors of the zygote")
    assert listening(zygote(server).pid) == {server.port}
    pipes = [name for name in links(zygote(server).pid).values() if name.startswith("pipe")]
    assert set(pipes) <= set(_standard(server))
    for worker in server.workers():
        assert listening(worker.pid) == {server.port}
        # Listener, channel, its own inbox and the way into the other's.
        until(
            partial(has_sockets, worker.pid, 4),
            "four sockets",
        )


def _standard(server: Server) -> list[str]:
    return [os.readlink(f"/proc/{server.pid}/fd/{fd}") for fd in (0, 1, 2)]


def test_reloads_leak_neither_descriptors_nor_zombies(site: Site) -> None:
    server = site.start("--workers", "2", *PRELOAD).wait_ready(2)

    def settled() -> bool:
        return len(psutil.Process(server.pid).children()) == 3

    server.ask("reload")
    until(settled, "the end of the old generation")
    before = _kinds(server.pid), _kinds(zygote(server, 2).pid)
    for number in range(3, 13):
        server.ask("reload")
        server.wait("zygote ready", number)
        until(settled, "the end of the old generation")
    assert (_kinds(server.pid), _kinds(zygote(server, 12).pid)) == before
    family = psutil.Process(server.pid).children(recursive=True)
    assert len(family) == 3
    assert all(process.status() != psutil.STATUS_ZOMBIE for process in family)
    assert end(server) == []


def _kinds(pid: int) -> list[str]:
    """What a process has open, without the inodes."""
    return sorted(re.sub(r"\[\d+\]", "", name) for name in links(pid).values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_the_zygote_before_the_master(site: Site, number: signal.Signals) -> None:
    server = site.start("--workers", "2", *PRELOAD).wait_ready(2)
    where = ("127.0.0.1", server.port)
    known = [event["pid"] for event in everybody(server)]
    server.signal(number)
    assert server.wait_exit() == 0
    assert not any(map(psutil.pid_exists, known))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_an_import(site: Site, number: signal.Signals) -> None:
    server = site.start("--workers", "2", *PRELOAD).wait_ready(2)
    server.expected_errors.add("reload failed")
    note = f"open({str(site.journal)!r}, 'a').write('hanging\\n')"
    site.replace(f"import threading\n{note}\nthreading.Event().wait()\n")
    server.signal(signal.SIGHUP)
    until(lambda: site.notes("hanging"), "an import under way")
    server.signal(number)
    assert server.wait_exit() == 0
    assert server.find("zygote exited", generation=2)


def test_a_terminal_s_signals_do_not_reach_the_zygote(site: Site) -> None:
    server = site.start("--workers", "1", *PRELOAD).wait_ready(1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGWINCH, signal.SIGTTIN):
        zygote(server).send_signal(number)
    server.expected_errors.add("worker died")
    os.kill(min(set(server.worker_pids())), signal.SIGKILL)
    server.wait("worker ready", 2)
    assert len(server.find("zygote ready")) == 1


@contextmanager
def fifo(path: Path) -> Iterator[Path]:
    """A FIFO that whoever reads it waits for."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    try:
        yield path
    finally:
        os.close(fd)


def test_a_process_that_the_import_forks_holds_no_listener(site: Site, start: Start) -> None:
    with fifo(site.path / "fifo") as path:
        server = site.start("--workers", "1", *PRELOAD, env={"OWN_CHILD": str(path)}).wait_ready(1)
        # Beside it may stand, for a moment, the process between the zygote and its worker.
        (own,) = until(
            lambda: found if len(found := zygote(server).children()) == 1 else None,
            "one child of the zygote",
        )
        assert listening(own.pid) == set()
        assert not any(name.startswith("socket") for name in links(own.pid).values())
        server.ask("reload")
        # Its parent is gone; the master takes it in, and buries it.
        until(lambda: own.ppid() == server.pid, "its adoption")
    until(gone(own.pid), "its burial")


# Threads.


def test_threads_of_the_import_are_warned_of(site: Site) -> None:
    server = site.start("--workers", "1", *PRELOAD, env={"THREAD": "1"}).wait_ready(1)
    warning = server.wait("threads are not in the workers", generation=1, role="zygote")
    assert warning["level"] == "warning"
    assert warning["threads"] == "poller"
    assert answer(server)["version"] == "one"


def test_there_is_no_warning_without_threads(site: Site) -> None:
    quiet = site.start("--workers", "1", *PRELOAD).wait_ready(1)
    apart = site.start("--workers", "1", env={"THREAD": "1"}).wait_ready(1)
    for server in (quiet, apart):
        server.stop()
        assert not server.find("threads are not in the workers")


# Hooks.


def hooks(*moments: str) -> tuple[str, str]:
    table = ", ".join(f'{moment} = "preloaded:{moment}"' for moment in moments)
    return "--set", f"workers.hooks={{ {table} }}"


@pytest.mark.parametrize("preload", [True, False])
def test_hooks_are_called_in_order_and_in_their_process(site: Site, preload: bool) -> None:
    moments = HOOKS if preload else HOOKS[1:]
    options = PRELOAD if preload else ()
    server = site.start("--workers", "1", *options, *hooks(*moments)).wait_ready(1)
    (worker,) = set(server.worker_pids())
    (name,) = server.addresses
    server.stop()
    name = "127.0.0.1:0"  # as it was asked for
    forker = zygote_pid(server) if preload else 0
    where = {"before_fork": forker}
    assert site.notes()[1:] == [
        [moment, "0", "1", str(pid), name, str(pid)]
        for moment in moments
        for pid in [where.get(moment, worker)]
    ]
    assert site.notes()[0] == ["import", str(forker or worker)]


def zygote_pid(server: Server) -> int:
    pid = server.find("zygote ready")[0]["pid"]
    assert isinstance(pid, int)
    return pid


def test_after_fork_comes_before_the_import_where_it_is_not_preloaded(site: Site) -> None:
    (site.path / "early.py").write_text(
        "import os\n"
        "def after_fork(worker):\n"
        "    open(os.environ['JOURNAL'], 'a').write(f'early {worker.slot}\\n')\n"
    )
    args = ("--set", 'workers.hooks={ after_fork = "early:after_fork" }')
    site.start("--workers", "1", *args).wait_ready(1)
    assert [words[0] for words in site.notes()] == ["early", "import"]


@pytest.mark.parametrize(
    ("moment", "options"),
    [(moment, PRELOAD) for moment in HOOKS[:3]] + [(moment, ()) for moment in HOOKS[1:3]],
)
def test_a_hook_that_raises_fails_the_boot(
    site: Site, moment: str, options: tuple[str, ...]
) -> None:
    options = (*options, *hooks(moment))
    server = site.start("--workers", "2", *options, env={"RAISE_IN": moment})
    assert server.wait_exit() == 3
    said = server.find("first boot failed")[0]["traceback"]
    assert said.endswith(f"RuntimeError: {moment} fails on purpose")
    assert "prefork/" not in said
    server.expected_errors |= {"first boot failed", "worker died"}  # the other one, by the master


def test_a_hook_that_raises_at_the_end_is_logged(site: Site) -> None:
    options = (*PRELOAD, *hooks("before_exit"))
    server = site.start("--workers", "1", *options, env={"RAISE_IN": "before_exit"}).wait_ready(1)
    server.expected_errors.add("hook failed")
    server.stop()
    (event,) = server.find("hook failed", hook="before_exit", slot=0)
    assert event["traceback"].endswith("RuntimeError: before_exit fails on purpose")
    assert server.find("worker exited", how="exit status 0")


@pytest.mark.parametrize("options", [PRELOAD, ()])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere:hook", "nowhere:hook: there is no module 'nowhere'; check workers.hooks.ready"),
        ("preloaded:reday", "preloaded:reday: preloaded has no 'reday'; did you mean 'ready'?"),
    ],
)
def test_a_hook_that_is_not_there_fails_the_boot(
    site: Site, options: tuple[str, ...], target: str, said: str
) -> None:
    hook = ("--set", f'workers.hooks={{ ready = "{target}" }}')
    server = site.start("--workers", "1", *options, *hook)
    assert server.wait_exit() == 3
    assert server.find("first boot failed")[0]["traceback"].startswith(said)
    server.expected_errors.add("first boot failed")


def test_before_fork_without_preloading_is_refused(site: Site) -> None:
    server = site.start("--workers", "1", *hooks("before_fork"))
    assert server.wait_exit() == 1
    assert "workers.preload: the hook before_fork needs the process that preloads" in (server.log())


@pytest.mark.skipif(
    sys.version_info < (3, 15), reason="does not apply: PEP 810 came with CPython 3.15"
)
def test_lazy_imports_are_made_before_the_fork(start: Start, tmp_path: Path) -> None:
    """Of the application's modules, also in turn; one that fails stays lazy."""
    (tmp_path / "shop.py").write_text(
        "import sys\n"
        "lazy import stock\n"
        "lazy import nowhere\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    names = [name for name in ('stock', 'prices', 'nowhere') if name in sys.modules]\n"
        "    return [' '.join(names).encode()]\n"
    )
    (tmp_path / "stock.py").write_text("lazy from prices import PRICE\n")
    (tmp_path / "prices.py").write_text("PRICE = 1\n")
    preloaded = start("shop:app", "--workers", "1", *PRELOAD, cwd=tmp_path).wait_ready(1)
    assert preloaded.get("/") == (200, b"stock prices")
    plain = start("shop:app", "--workers", "1", cwd=tmp_path).wait_ready(1)
    assert plain.get("/") == (200, b"")
