"""The commands and the control socket of a real server."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.changing_app import copy_app, set_version
from tests.support.commands import run_prefork
from tests.support.load import Gate
from tests.support.processes import links, stopped
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE, until

BASIC = "tests.apps.basic:app"


class Place:
    """A directory with a configuration and its application, both to be changed by a test."""

    def __init__(self, directory: Path) -> None:
        self.app = copy_app(directory)
        self.config = directory / "site.toml"
        self.configure()

    def configure(self, workers: int = 1, more: str = "") -> None:
        app = '[server]\napp = "changing:app"\n'
        self.config.write_text(f"{app}[workers]\ncount = {workers}\n{more}")

    def change(self, version: str, before: str = "") -> None:
        set_version(self.app, version, before)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "site")


# Reload.


def test_reload_prints_what_changed_and_serves_it(start: Start, place: Place) -> None:
    server = start(str(place.config)).wait_ready(1)
    assert server.get() == (200, b"one")
    place.change("second")
    place.configure(workers=2, more="[http]\nkeepalive = 7\n")
    assert server.command("reload").stdout.splitlines() == [
        "workers.count: 1 -> 2",
        "http.keepalive: 5 -> 7",
        "reloaded: generation 2 serves",
    ]
    assert server.wait_settled(2).get() == (200, b"second")


def test_reload_waits_for_its_outcome(start: Start, place: Place, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    server = start(str(place.config)).wait_ready(1)
    place.change("second", f"open({str(tmp_path / 'gate')!r}).read()\n")
    with started("reload", server) as reload:
        gate.arrived()
        assert server.get() == (200, b"one")
        assert reload.poll() is None
        gate.open()
        assert reload.wait(PATIENCE) == 0
    assert server.wait_settled(2).get() == (200, b"second")


@contextlib.contextmanager
def started(command: str, server: Server) -> Iterator[subprocess.Popen[str]]:
    """A command that is on its way, until the end of the block."""
    process = server.start_command(command)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_broken_file_changes_nothing(start: Start, place: Place) -> None:
    server = start(str(place.config)).wait_ready(1)
    server.expected_errors.add("reload failed")
    place.configure(more="thread = 3\n")
    done = server.command("reload", check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "site.toml: workers.thread: " in done.stderr
    assert "threads" in done.stderr
    assert server.get() == (200, b"one")
    place.configure()
    assert server.command("reload").stdout == "reloaded: generation 2 serves\n"


def test_a_broken_application_changes_nothing(start: Start, place: Place) -> None:
    server = start(str(place.config)).wait_ready(1)
    server.expected_errors |= {"reload failed", "worker failed to boot"}
    place.change("second", "raise RuntimeError('not today')\n")
    done = server.command("reload", check=False)
    assert done.returncode == 1
    assert "changing.py" in done.stderr
    assert done.stderr.rstrip().endswith("RuntimeError: not today")
    assert server.get() == (200, b"one")
    place.change("third time")
    server.command("reload")
    assert server.wait_settled(3).get() == (200, b"third time")


# The other commands.


def test_status_shows_each_worker(start: Start) -> None:
    server = start(BASIC, "--workers", "2", "--set", "server.name=shop").wait_ready(2)
    for _ in range(6):
        server.get("/pid")

    def after_the_last() -> dict[str, Any] | None:
        """A worker ends its call when the answer is on its way."""
        told = server.status()
        idle = all(worker["state"] == "idle" for worker in told["workers"])
        return told if idle and told["requests"] == 6 else None

    told = until(after_the_last, "six requests, and workers that are idle")
    assert {name: told[name] for name in ("name", "pid", "generation", "target", "reloading")} == {
        "name": "shop",
        "pid": server.pid,
        "generation": 1,
        "target": 2,
        "reloading": False,
    }
    assert told["listeners"] == server.addresses
    assert told["uptime"] > 0
    pids = [event["pid"] for event in sorted(server.find("worker ready"), key=lambda e: e["slot"])]
    workers = told["workers"]
    assert [(worker["slot"], worker["pid"]) for worker in workers] == list(enumerate(pids))
    assert all(worker["generation"] == 1 and worker["age"] > 0 for worker in workers)
    assert sum(worker["requests"] for worker in workers) == 6

    header, queue, counted, titles, *rows = server.command("status").stdout.splitlines()
    assert header.startswith(f"shop: pid {server.pid}, prefork ")
    assert header.endswith(f"listening on {server.addresses[0]}")
    (listener,) = told["queues"]
    assert (listener["listener"], listener["depth"]) == (server.addresses[0], 0)
    limit = listener["limit"]
    assert queue == f"queue of {server.addresses[0]}: 0 of {limit}"
    # The kernel counts what overflows for all listeners of the machine, another test's included.
    assert re.fullmatch(r"6 requests(; \d+ overflows of listen queues)?", counted)
    titled = ["SLOT", "PID", "GEN", "STATE", "SINCE", "REQUESTS", "HELD", "MEAN", "AGE", "NOW"]
    assert titles.split() == titled
    shown = [row.split()[:4] for row in rows]
    assert shown == [
        [str(worker[key]) for key in ("slot", "pid", "generation", "state")] for worker in workers
    ]


def test_scale_adds_and_takes_away(start: Start) -> None:
    server = start(BASIC, "--workers", "1").wait_ready(1)
    assert server.command("scale", "3").stdout == "scaled to 3\n"
    server.wait_ready(3)
    server.command("scale", "2")
    server.wait("worker exited")
    assert len(server.workers()) == 2
    assert server.status()["target"] == 2
    refused = server.command("scale", "5000", check=False)
    assert refused.returncode == 1
    assert "5000" in refused.stderr
    assert len(server.workers()) == 2


def test_reopen_returns_when_all_workers_write_to_the_new_file(
    start: Start, tmp_path: Path
) -> None:
    log, moved = tmp_path / "access.log", tmp_path / "moved.log"
    server = start(BASIC, "--workers", "3", "--set", f"log.access={log}").wait_ready(3)
    for turn in range(4):
        log.rename(moved)
        assert server.command("reopen").stdout == "reopened\n"
        for pid in server.worker_pids():
            assert {*links(pid).values()} & {str(log), str(moved)} == {str(log)}, turn


def test_reopen_names_the_processes_that_write_to_the_old_file(
    start: Start, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    server = start(
        *(BASIC, "--workers", "2", "--set", f"log.access={log}"),
        *("--set", "workers.preload=true"),
    ).wait_ready(2)
    [zygote], worker = server.children("zygote"), server.workers()[1]
    log.rename(tmp_path / "moved.log")
    for process in (zygote, worker):
        process.suspend()
    late = server.command("reopen", check=False)
    for process in (zygote, worker):
        process.resume()
    assert late.returncode == 1
    names = f"worker {worker.pid} (slot 1), zygote {zygote.pid}"
    assert late.stderr.endswith(f"still write to the rotated ones: {names}\n")
    server.wait("log files still in use", processes=names)
    server.wait("log files reopened")
    for process in (zygote, worker):
        assert str(log) in links(process.pid).values()
    assert server.command("reopen").stdout == "reopened\n"


def test_stop_waits_for_the_end_and_takes_the_socket_along(start: Start) -> None:
    server = start(BASIC, "--workers", "2").wait_ready(2)
    assert stat.S_IMODE(server.control.stat().st_mode) == 0o600
    assert server.command("stop").stdout == "stopped\n"
    assert not server.control.exists()
    assert server.wait_exit() == 0
    done = server.command("status", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"Error: no server is running at {server.control}: there is no such socket"
    ]


# Which server is meant.


@pytest.fixture
def own_places(tmp_path: Path) -> dict[str, str]:
    """An environment in which there are no servers but those of the test."""
    for name in ("run", "user", "tmp"):
        (tmp_path / name).mkdir(0o700)
    return {
        "PREFORK_RUN_DIR": str(tmp_path / "run"),
        "XDG_RUNTIME_DIR": str(tmp_path / "user"),
        "TMPDIR": str(tmp_path / "tmp"),
    }


def test_the_only_server_need_not_be_named(
    start: Start, place: Place, own_places: dict[str, str]
) -> None:
    none = run_prefork("status", env=own_places)
    assert none.returncode == 1
    assert none.stderr.startswith("Error: no server of this user is running")

    shop = start(str(place.config), env=own_places, default_control=True).wait_ready(1)
    socket_file = Path(own_places["PREFORK_RUN_DIR"], "site.sock")
    assert stat.S_IMODE(socket_file.stat().st_mode) == 0o600
    assert json.loads(run_prefork("status", "--json", env=own_places).stdout)["pid"] == shop.pid
    assert run_prefork("scale", "2", env=own_places).stdout == "scaled to 2\n"
    shop.wait_ready(2)
    assert run_prefork("reload", env=own_places).stdout == "reloaded: generation 2 serves\n"
    assert run_prefork("reopen", env=own_places).returncode == 0

    options = ("--workers", "1", "--set", "server.name=other")
    other = start(BASIC, *options, env=own_places, default_control=True).wait_ready(1)
    unclear = run_prefork("scale", "3", env=own_places)
    assert unclear.returncode == 1
    (line,) = unclear.stderr.splitlines()
    assert line.startswith("Error: several servers are running")
    assert "site (" in line
    assert "other (" in line

    named = run_prefork("status", "--json", str(place.config), env=own_places)
    assert json.loads(named.stdout)["pid"] == shop.pid
    assert run_prefork("stop", str(place.config), env=own_places).stdout == "stopped\n"
    assert shop.wait_exit() == 0
    assert not socket_file.exists()
    assert run_prefork("stop", env=own_places).stdout == "stopped\n"
    assert other.wait_exit() == 0


def test_the_users_directory_is_used_if_the_systems_cannot_be(
    start: Start, own_places: dict[str, str]
) -> None:
    os.rmdir(own_places["PREFORK_RUN_DIR"])
    Path(own_places["PREFORK_RUN_DIR"]).write_text("a file in its place")
    options = ("--workers", "1", "--set", "server.name=shop")
    server = start(BASIC, *options, env=own_places, default_control=True).wait_ready(1)
    assert Path(own_places["XDG_RUNTIME_DIR"], "prefork", "shop.sock").is_socket()
    assert json.loads(run_prefork("status", "--json", env=own_places).stdout)["pid"] == server.pid


def test_a_control_socket_in_use_is_not_taken(start: Start, tmp_path: Path) -> None:
    first = start(BASIC, "--workers", "1").wait_ready(1)
    path = tmp_path / "second.sock"
    bind = ("--bind", f"unix:{path}", "--set", f"control.path={first.control}")
    second = run_prefork("serve", BASIC, *bind)
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert f"cannot open the control socket {first.control}: " in line
    assert f"in use by pid {first.pid}" in line
    assert not path.exists()
    assert first.status()["pid"] == first.pid
    assert first.get("/pid")[0] == 200


# Clients that are dead, slow or hostile.


def test_a_stopped_client_delays_no_other(start: Start, place: Place, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    server = start(str(place.config)).wait_ready(1)
    place.change("second", f"open({str(tmp_path / 'gate')!r}).read()\n")
    with started("reload", server) as reload:
        gate.arrived()
        reload.send_signal(signal.SIGSTOP)
        until(lambda: stopped(reload.pid), "the client is stopped")
        gate.open()
        server.wait("generation settled", generation=2)
        place.change("third time")
        server.ask("reload")
        assert server.wait_settled(3).get() == (200, b"third time")
        reload.send_signal(signal.SIGCONT)
        assert reload.wait(PATIENCE) == 0


def test_a_client_that_is_killed_does_not_end_its_reload(
    start: Start, place: Place, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    server = start(str(place.config)).wait_ready(1)
    place.change("second", f"open({str(tmp_path / 'gate')!r}).read()\n")
    with started("reload", server) as reload:
        gate.arrived()
        reload.kill()
        reload.wait()
    gate.open()
    assert server.wait_settled(2).get() == (200, b"second")


def test_a_hundred_hostile_clients_stop_nothing(start: Start, place: Place) -> None:
    """Garbage, half a request, a flood without an end of line, silence, and all of them stay."""
    server = start(str(place.config)).wait_ready(1)
    says = (b"\x00\xff garbage\n", b'{"v": 1, "comm', b"x" * 200_000, b"", b'{"v": 99}\n')
    clients = []
    try:
        for number in range(100):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            clients.append(client)
            client.settimeout(PATIENCE)
            client.connect(str(server.control))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                client.send(says[number % len(says)])
            if number % 25 == 24:
                assert server.get() == (200, b"one")
        place.change("second")
        server.ask("reload")
        assert server.wait_settled(2).get() == (200, b"second")
        assert server.status()["pid"] == server.pid
    finally:
        for client in clients:
            client.close()


def two_servers(start: Start, place: Place, env: dict[str, str]) -> tuple[Server, Server]:
    """`site`, of the file of the place, and `other`, of the command line."""
    options = ("--workers", "1", "--set", "server.name=other")
    site = start(str(place.config), env=env, default_control=True)
    other = start(BASIC, *options, env=env, default_control=True)
    return site.wait_ready(1), other.wait_ready(1)


def test_status_shows_all_servers_also_if_one_hangs(
    start: Start, place: Place, own_places: dict[str, str]
) -> None:
    site, other = two_servers(start, place, own_places)
    both = run_prefork("status", env=own_places)
    assert both.returncode == 0
    first, second = both.stdout.split("\n\n")
    assert first.startswith(f"other: pid {other.pid}, ")
    assert second.startswith(f"site: pid {site.pid}, ")
    found = json.loads(run_prefork("status", "--json", env=own_places).stdout)
    assert [(each["name"], each["file"]) for each in found] == [
        ("other", ""),
        ("site", str(place.config)),
    ]

    other.signal(signal.SIGSTOP)
    try:
        both = run_prefork("status", env=own_places)
    finally:
        other.signal(signal.SIGCONT)
    assert both.returncode == 1
    assert "other.sock does not answer" in both.stderr
    assert both.stdout.startswith(f"site: pid {site.pid}, ")


def test_one_of_several_servers_is_chosen_by_its_name_or_address(
    start: Start, place: Place, own_places: dict[str, str]
) -> None:
    site, other = two_servers(start, place, own_places)
    name, address, port = "other", other.addresses[0], f":{other.port}"
    for target in (name, address, port):
        told = json.loads(run_prefork("status", "--json", target, env=own_places).stdout)
        assert (target, told["pid"]) == (target, other.pid)
    assert run_prefork("reload", address, env=own_places).returncode == 0
    assert run_prefork("stop", port, env=own_places).stdout == "stopped\n"
    assert other.wait_exit() == 0
    assert run_prefork("status", "--json", env=own_places).returncode == 0
    assert site.get()[0] == 200


def test_a_running_server_is_controlled_while_its_file_is_broken(
    start: Start, place: Place, own_places: dict[str, str]
) -> None:
    site, _ = two_servers(start, place, own_places)
    site.expected_errors.add("reload failed")
    good, target = place.config.read_text(), str(place.config)
    for damage in ("[workers]\nno_such_key = 1\n", "[workers"):
        place.config.write_text(f"{good}\n{damage}")
        told = json.loads(run_prefork("status", "--json", target, env=own_places).stdout)
        assert (damage, told["pid"]) == (damage, site.pid)
        failed = run_prefork("reload", target, env=own_places)
        assert failed.returncode == 1
        assert "site.toml: " in failed.stderr
    assert run_prefork("scale", "2", target, env=own_places).stdout == "scaled to 2\n"
    assert run_prefork("reopen", target, env=own_places).stdout == "reopened\n"
    assert run_prefork("stop", target, env=own_places).stdout == "stopped\n"
    assert site.wait_exit() == 0


def test_reopen_all_passes_over_a_dead_server(
    start: Start, place: Place, own_places: dict[str, str]
) -> None:
    assert run_prefork("reopen", "--all", env=own_places).returncode == 0, "no server runs"
    site, other = two_servers(start, place, own_places)
    third = start(BASIC, "--workers", "1", env=own_places, default_control=True).wait_ready(1)
    other.kill()
    assert Path(own_places["PREFORK_RUN_DIR"], "other.sock").exists()
    assert run_prefork("reopen", "--all", env=own_places).returncode == 0
    for server in (site, third):
        server.wait("log files reopened")
    both = run_prefork("reopen", "--all", str(place.config), env=own_places)
    assert both.returncode == 2


@pytest.mark.parametrize("kept", ["call", "idle"])
def test_stop_reports_what_it_waits_for(start: Start, tmp_path: Path, kept: str) -> None:
    server = start("tests.apps.slow:app", "--workers", "1").wait_ready(1)
    pid = server.ready_pids()[0]
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with server.connect() as sock:
        path = f"/locked?fifo={fifo}" if kept == "call" else "/pid"
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        release = os.open(fifo, os.O_WRONLY) if kept == "call" else -1  # waits for its reader
        if kept == "idle":
            assert sock.recv(4096)
        stop = server.start_command("stop")
        assert stop.stderr is not None
        line = stop.stderr.readline()
        assert line.startswith(f"waiting for worker 0 (pid {pid}): ")
        if kept == "call":
            assert f"GET {path} for 127.0.0.1, " in line
            os.close(release)
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        else:
            assert line.endswith("1 client connected, which may send a request\n")
    output, _ = stop.communicate(timeout=PATIENCE * 2)
    assert output == "stopped\n"
    assert server.wait_exit() == 0


def test_stop_reports_that_the_server_still_serves(start: Start) -> None:
    server = start(BASIC, "--workers", "1", "--set", "workers.drain_delay=3").wait_ready(1)
    stop = server.start_command("stop")
    assert stop.stderr is not None
    assert "still serve (workers.drain_delay" in stop.stderr.readline()
    stop.communicate(timeout=PATIENCE * 2)
    assert server.wait_exit() == 0
